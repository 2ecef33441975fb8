"""Stands for `quantlab` under DVC: the real probe, and stages that write what the real ones do without
loading a model.

Each call is a line of ran.log. Where the file `edit` is there, evaluate sets tasks.items to what it says
after it began."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from quantlab.files import write_text
from quantlab.records import DivergenceRecord, MeasureRecord, QuantizeRecord, Record, TaskRecord
from quantlab.workspace.cell import Cell
from quantlab.workspace.checkpoint import Manifest, list_files, write_manifest
from quantlab.workspace.prepared import Source
from quantlab.workspace.results import made_with, write_record

ROOT = Path.cwd()


def prepare(model: str) -> None:
    files = json.loads((ROOT / "env" / "models" / f"{model}.json").read_text())["source"]["files"]
    about = Source(
        model=model,
        kind="folder",
        name=model,
        weights="/elsewhere",
        files=files,
        parameters=1,
        dtype="float32",
        vocabulary=8,
    )
    write_text(ROOT / "models" / model / "source" / "source.json", about.model_dump_json())
    write_text(ROOT / "models" / model / "text" / "text.json", "{}")


def reference(model: str) -> None:
    write_text(ROOT / "references" / model / "reference.json", "{}")


def quantize(cell: Cell) -> Record:
    source = (ROOT / "models" / cell.model / "source" / "source.json").read_text()
    write_text(cell.checkpoint_folder / "model.safetensors", f"made from {source}")
    about = Manifest(
        model=cell.model,
        variant=cell.variant.slug,
        method="baseline",
        bits=16,
        files=list_files(cell.checkpoint_folder),
    )
    write_manifest(cell.checkpoint_folder, about)
    return QuantizeRecord(model=cell.model, variant=cell.variant.slug)


def measure(cell: Cell) -> Record:
    return MeasureRecord(model=cell.model, variant=cell.variant.slug)


def diverge(cell: Cell) -> Record:
    return DivergenceRecord(model=cell.model, variant=cell.variant.slug)


def evaluate(cell: Cell) -> Record:
    n, edit, path = cell.recipe.tasks.items, ROOT / "edit", ROOT / "recipes" / f"{cell.model}.yaml"
    if edit.exists():
        recipe = yaml.safe_load(path.read_text())
        recipe["tasks"]["items"] = int(edit.read_text())
        path.write_text(yaml.safe_dump(recipe))
        edit.unlink()
    write_text(cell.data_folder / "samples.parquet", "")
    return TaskRecord(model=cell.model, variant=cell.variant.slug, notes=(f"n = {n}",))


def main(stage: str, arguments: list[str]) -> None:
    with (ROOT / "ran.log").open("a") as log:
        log.write(f"{stage}\n")
    model = arguments[arguments.index("--model") + 1]
    if stage in ("prepare", "reference"):
        globals()[stage](model)
        return
    cell = Cell(ROOT, model, arguments[arguments.index("--variant") + 1])
    write_record(ROOT, made_with(globals()[stage](cell), cell.recipe))


if __name__ == "__main__":
    if sys.argv[1] == "probe":
        from quantlab.cli import main as command

        command()
    main(sys.argv[1], sys.argv[2:])
