"""Keep the workspace that the checks share: random models, their references, and the records of their cells,
each made by the pipeline's own stages when a check first asks for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from quantlab import engines, methods
from quantlab.errors import CellFailure
from quantlab.files import write_text
from quantlab.formats import GGUF
from quantlab.hardware.device import Device, parse_places
from quantlab.names import BASELINE, Variant
from quantlab.progress import Progress
from quantlab.recipe import read_recipe
from quantlab.records import STAGES, DivergenceRecord, MeasureRecord, QuantizeRecord, Record, StageName
from quantlab.scratch import scratch
from quantlab.verification import models
from quantlab.workspace.cell import Cell
from quantlab.workspace.results import is_stale, read_record, record_path

if TYPE_CHECKING:
    from quantlab.reference.store import ReferenceInfo

R = TypeVar("R", bound=Record)
QUIET = Progress(quiet=True)
_STEPS = 20
"""Of a method that optimizes: a tenth of what is usual, and somewhat worse."""
_WORK: dict[str, dict[str, Any]] = {
    "cpu": {
        "calibration": {"windows": 8, "length": 128},
        "evaluation": {"windows": 4, "length": 128},
        "measure": {"prompt_tokens": 64, "decode_tokens": 16, "repeats": 3},
    },
    "gpu": {
        "calibration": {"windows": 16, "length": 512},
        "evaluation": {"windows": 8, "length": 512},
        "measure": {"prompt_tokens": 512, "decode_tokens": 64, "batch": [1, 8], "context": [0]},
    },
}


def variants() -> list[Variant]:
    """Every method at every width that it offers."""
    return [Variant(name, bits) for name in methods.names() for bits in methods.load(name).bits]


class Bench:
    """One model of the workspace on one device."""

    def __init__(
        self, root: Path, device: Device, model: str, dtype: str = "float32", label: str = ""
    ) -> None:
        """`dtype` is the reference's; `label` tells a model from the same one on another device."""
        self.root, self.device, self._shape, self._dtype = root, device, model, dtype
        self._source = f"{model}{label}"
        self.model = f"{model}{label}" + ("" if dtype == "float32" else f"-{dtype}")

    def cell(self, variant: str) -> Cell:
        """A variant of the prepared model."""
        if not (self.root / "models" / self.model / "text" / "text.json").exists():
            self._prepare()
        return Cell(self.root, self.model, variant)

    def use_engine(self, variant: str, name: str | None = None) -> None:
        """Let an engine run the variant, and whatever else it reads, from now on; None for the usual one."""
        form = methods.load(self.cell(variant).variant.method).format
        chosen = None if name in (None, engines.engine_for(form)) else name
        path = self.root / "recipes" / f"{self.model}.yaml"
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        write_text(path, yaml.safe_dump(recipe | {"engine": chosen}))

    def quantized(self, variant: str) -> QuantizeRecord:
        """The record of its checkpoint. Raises CellFailure where there is none."""
        cell = self.cell(variant)
        if methods.load(cell.variant.method).starts_from == GGUF:
            self._convert(cell)
        return self._record(cell, "quantize", QuantizeRecord)

    def measured(self, variant: str) -> MeasureRecord:
        """The record of its memory and speed. Raises CellFailure where it could not be measured."""
        self.quantized(variant)
        return self._record(self.cell(variant), "measure", MeasureRecord)

    def diverged(self, variant: str) -> DivergenceRecord:
        """The record of its divergence from the reference. Raises CellFailure where there is none."""
        self.quantized(variant)
        self.reference()
        return self._record(self.cell(variant), "diverge", DivergenceRecord)

    def reference(self) -> ReferenceInfo:
        """Description of the stored reference. Raises CellFailure where it cannot be had on this device."""
        from quantlab.reference.store import INFO, NoReference, ReferenceInfo, folder_of
        from quantlab.stages import reference

        folder, cell = folder_of(self.root, self.model), self.cell(BASELINE)
        if (folder / INFO).exists():
            return ReferenceInfo.model_validate_json((folder / INFO).read_text(encoding="utf-8"))
        with self._as_stage(cell):
            made = reference.run(self.root, self.model, self.device, QUIET)
        if isinstance(made, NoReference):
            shutil.rmtree(folder)  # another check tries again
            raise CellFailure(made.failure.kind, f"reference: {made.failure.reason}")
        return made

    def answers(self, variant: str, prompts: list[str], tokens: int) -> list[tuple[int, ...]]:
        """The tokens of greedy answers to a batch of prompts, at most so many each."""
        from quantlab.evaluation.generation import generate

        cell = self.cell(variant)
        with self._as_stage(cell):
            made = generate(cell, self.device, prompts, tokens, QUIET)
        return [answer.token_ids for answer in made]

    def _record(self, cell: Cell, stage: StageName, kind: type[R]) -> R:
        from quantlab.stages.isolation import run_isolated

        recipe = read_recipe(self.root / "recipes" / f"{self.model}.yaml")
        path = record_path(self.root, self.model, cell.variant.slug, stage)
        record = read_record(path, kind)
        if record is None or is_stale(record, recipe):
            made = run_isolated(cell, stage, self.device.device, True)
            assert isinstance(made, kind)
            record = made
        if record.failure:
            raise CellFailure(record.failure.kind, f"{STAGES[stage].name}: {record.failure.reason}")
        return record

    def _prepare(self) -> None:
        from quantlab.stages import prepare

        source = self.root / "made" / self._source
        if not (source / "config.json").exists():
            models.write(self._shape, self.device, source)
        text = models.texts()
        for purpose, words in text._asdict().items():
            write_text(self.root / "made" / f"{purpose}.txt", words)
        write_text(self.root / "recipes" / f"{self.model}.yaml", yaml.safe_dump(self._recipe(source)))
        prepare.run(self.root, self.model, QUIET)

    def _recipe(self, source: Path) -> dict[str, Any]:
        work = _WORK["gpu" if self.device.places.gpus else "cpu"]
        text = {name: {"text": f"made/{name}.txt"} | work[name] for name in ("calibration", "evaluation")}
        return {
            "model": self.model,
            "source": {"path": str(source.relative_to(self.root))},
            "seed": 7,
            **text,
            "reference": {"dtype": self._dtype},
            "measure": work["measure"],
            "variants": {variant.slug: self._settings(variant) for variant in variants()},
        }

    def _settings(self, variant: Variant) -> dict[str, Any]:
        """Groups that divide the rows and few steps, where the method has such settings."""
        known = methods.load(variant.method).Settings.model_fields
        wanted = {"group_size": models.group_of(self._shape), "iterations": _STEPS}
        return {name: value for name, value in wanted.items() if name in known}

    def _convert(self, cell: Cell) -> None:
        from quantlab.stages import convert

        if not (cell.prepared.gguf_folder / "gguf.json").exists():
            log = self.root / "logs" / self.model / "convert.log"
            with self._as_stage(cell):
                convert.run(self.root, self.model, log, QUIET)

    @contextmanager
    def _as_stage(self, cell: Cell) -> Iterator[None]:
        """What a stage's process has: its environment, and temporary files in the workspace."""
        from quantlab.stages.isolation import environment_of

        os.environ.update(environment_of(cell, "diverge", self.device.device))
        with scratch(self.root):
            yield


def on_gpu(device: Device) -> bool:
    """Whether the device names a GPU."""
    return bool(parse_places(device.device).gpus)
