"""Correct what DVC wrongly takes for current, before it decides what to run.

DVC notes the settings that it finds when a stage ends, and trusts the files of its cache as long as they are
read-only."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from quantlab.errors import CellFailure, QuantlabError
from quantlab.names import cell_name
from quantlab.parsing import read_yaml
from quantlab.recipe import parse_recipe
from quantlab.records import BY_DVC, VARIANT, Record, StageName
from quantlab.workspace.checkpoint import read_checkpoint
from quantlab.workspace.prepared import Prepared
from quantlab.workspace.results import is_stale, read_record, record_path
from quantlab.workspace.tracked import TRACKED

CACHE = Path(".dvc") / "cache"
ASIDE = Path(".quantlab") / "stale"
"""Where such records are kept until the next of the same stage."""


def set_aside_stale(root: Path) -> list[str]:
    """Move away the records of other settings that DVC takes for current, so that it makes them again.
    Returns their cells.

    What DVC remembers of earlier runs is forgotten then: it would bring the same records back.
    """
    params = read_yaml(root / "params.yaml") if (root / "params.yaml").is_file() else None
    set_aside = []
    for model in (params or {}).get("models") or []:
        raw = read_yaml(root / "recipes" / f"{model}.yaml")
        recipe = parse_recipe(raw, f"recipes/{model}.yaml")
        stale = [
            (variant, name)
            for variant, name, record in _records(root, params, model)
            if is_stale(record, recipe)
        ]
        noted = _noted(root) if stale else {}
        for variant, name in stale:
            entry = (noted.get(f"{name}@{cell_name(model, variant)}") or {}).get("params") or {}
            if entry.get(f"recipes/{model}.yaml") == _part(raw, name, variant):
                _move(record_path(root, model, variant, name), root / ASIDE / model / variant)
                set_aside.append(f"{name} of {cell_name(model, variant)}")
    if set_aside:
        shutil.rmtree(root / CACHE / "runs", ignore_errors=True)
    return set_aside


def _noted(root: Path) -> dict[str, Any]:
    """By stage, what dvc.lock says of its last run; DVC's own file, which grows with every cell."""
    path = root / "dvc.lock"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return dict(
        (yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}).get("stages") or {}
    )


def _records(root: Path, params: Any, model: str) -> Iterator[tuple[str, StageName, Record]]:
    for cell in ((params or {}).get("cells") or {}).values():
        for stage in BY_DVC if cell["model"] == model else ():
            try:
                record = read_record(record_path(root, model, cell["variant"], stage.name), stage.record)
            except QuantlabError:
                continue  # of another version: the report says so
            if record is not None:
                yield cell["variant"], stage.name, record


def _part(raw: Any, stage: str, variant: str) -> dict[str, Any]:
    """The stage's part of a recipe as DVC notes it."""
    part = {key: raw.get(key) for key in TRACKED[stage] if key != VARIANT}
    return part | (
        {f"variants.{variant}": (raw.get("variants") or {}).get(variant)} if VARIANT in TRACKED[stage] else {}
    )


def _move(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path.replace(folder / path.name)


def discard_damaged(root: Path, model: str, variants: Iterable[str]) -> list[str]:
    """Remove what is not as it was made or cannot be read, with DVC's other name for it, so that it is not
    linked back but made.

    Returns what was removed. Somebody else's files are left alone.
    """
    prepared, checkpoints = Prepared(root, model), root / "checkpoints" / model
    checks: dict[Path, Callable[[], None]] = {
        prepared.source_folder: prepared.require_sound,
        prepared.gguf_folder: prepared.require_gguf,
    }
    checks |= {
        checkpoints / variant: partial(_require_own_weights, checkpoints / variant) for variant in variants
    }
    damaged = [folder for folder, check in checks.items() if folder.is_dir() and _fails(check)]
    for folder in damaged:
        keys = {_key(path) for path in folder.rglob("*") if path.is_file()}
        for twin in (root / CACHE / "files").rglob("*"):
            if twin.is_file() and _key(twin) in keys:
                twin.unlink()
        shutil.rmtree(folder)
    if damaged:
        shutil.rmtree(root / CACHE / "runs", ignore_errors=True)
    return [folder.relative_to(root).as_posix() for folder in damaged]


def _require_own_weights(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    if checkpoint.manifest.failure is None and checkpoint.manifest.weights == ".":
        checkpoint.require_weights()


def _fails(check: Callable[[], None]) -> bool:
    try:
        check()
    except (CellFailure, QuantlabError):
        return True
    return False


def _key(path: Path) -> tuple[int, int]:
    seen = path.stat()
    return seen.st_dev, seen.st_ino
