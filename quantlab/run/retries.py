"""Retry stages that failed for a passing reason at the next `quantlab run` or `dvc repro`.

A stage that failed leaves a record and exits with code 0, so that the other cells go on; DVC then takes it
for done. `probe` always runs, before every stage of a cell. It adds a line break to such a record, so that
DVC sees a change and runs the stage again, and removes DVC's copy of the record from its cache, so that the
failure does not come back from there. If the stage is not asked for, its record stays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, get_args

from quantlab.errors import TRANSIENT, FailureKind
from quantlab.files import write_text
from quantlab.formats import GGUF
from quantlab.parsing import read_yaml
from quantlab.records import BY_DVC
from quantlab.workspace.results import record_path

LOG = ".quantlab/retried.jsonl"


class Retry(NamedTuple):
    """A stage that is tried again."""

    stage: str
    """As DVC names it, such as `measure@m--gptq-4`."""
    file: Path
    failure: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.stage} is tried again: {self.failure['kind']}: {self.failure['reason']}"


def retry_transient(root: Path) -> list[Retry]:
    """Make DVC run again what failed for a reason that passes, and note it in .quantlab/retried.jsonl."""
    retries = list(transient(root))
    if not retries:
        return []
    _forget(
        root, [hashlib.md5(retry.file.read_bytes(), usedforsecurity=False).hexdigest() for retry in retries]
    )
    for retry in retries:
        text = retry.file.read_text(encoding="utf-8")
        write_text(retry.file, text if text.endswith("\n\n") else text + "\n")
    _note(root, retries)
    return retries


def transient(root: Path) -> Iterator[Retry]:
    """Records of the cells of params.yaml, and GGUF conversions, that hold a transient failure anywhere, and
    references that could not be computed."""
    params = (read_yaml(root / "params.yaml") if (root / "params.yaml").is_file() else None) or {}
    places = [
        (f"{stage.name}@{name}", record_path(root, cell["model"], cell["variant"], stage.name))
        for name, cell in (params.get("cells") or {}).items()
        for stage in BY_DVC
    ]
    places += [
        (f"convert@{model}", root / "models" / model / GGUF / "gguf.json")
        for model in params.get("gguf_models") or []
    ]
    for stage, file in places:
        failure = _failure_in(file, TRANSIENT)
        if failure:
            yield Retry(stage, file, failure)
    for model in params.get("models") or []:
        # a reference does not depend on the device, so that the next one, which may be larger, has to try
        file = root / "references" / model / "reference.json"
        if failure := _failure_in(file, get_args(FailureKind)):
            yield Retry(f"reference@{model}", file, failure)


def _failure_in(file: Path, kinds: Collection[str]) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # not there, or no record: its own reader says so
    return next(_failures(content, kinds), None)


def _failures(value: Any, kinds: Collection[str]) -> Iterator[dict[str, Any]]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict) and value.get("kind") in kinds and "reason" in value:
        yield value
    for one in inside:
        yield from _failures(one, kinds)


def _forget(root: Path, digests: list[str]) -> None:
    """Take files out of DVC's cache by the MD5 of their content; without DVC there is none."""
    if not (root / ".dvc").is_dir():
        return
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        for digest in digests:
            Path(repo.cache.local.oid_to_path(digest)).unlink(missing_ok=True)


def _note(root: Path, retries: list[Retry]) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [
        json.dumps({"at": now, "stage": one.stage, **one.failure}, ensure_ascii=False) for one in retries
    ]
    (root / LOG).parent.mkdir(parents=True, exist_ok=True)
    with (root / LOG).open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))
