"""Records in which every number is as small or as large as a record takes: a report is written, without an
overflow."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import write_hostile_cell
from madeup import MODEL, write_recipe

from quantlab.errors import QuantlabError
from quantlab.records import STAGES
from quantlab.stages.report import run
from quantlab.workspace.results import read_record, record_path

SLUGS = ("baseline-16", "gguf-16", "gptq-4")
EXTREMES = (0, 1e-9, 10**15, 1e100)
Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("extremes")
    write_recipe(root)
    for slug in SLUGS:
        write_hostile_cell(root, slug, without=("evaluate",))
    return root


def _numbers(value: Any, place: Place = ()) -> Iterator[Place]:
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and not str(place[0]).endswith("_version")
    ):
        yield place
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from _numbers(inner, (*place, key))


def _put(value: Any, place: Place, number: float) -> Any:
    for key in place[:-1]:
        value = value[key]
    old, value[place[-1]] = value[place[-1]], number
    return old


def _taken(path: Path, stage: str, text: str, number: float) -> Any:
    """The record with the number in every place that takes it alone."""
    data = json.loads(text)
    alone = copy.deepcopy(data)
    for place in _numbers(data):
        old = _put(alone, place, number)
        path.write_text(json.dumps(alone))
        try:
            read_record(path, STAGES[stage].record)  # type: ignore[index]
            _put(data, place, number)
        except QuantlabError:
            pass
        _put(alone, place, old)
    return data


@pytest.mark.parametrize("number", EXTREMES)
def test_a_report_is_written_of_it(root: Path, number: float) -> None:
    paths = [(stage, record_path(root, MODEL, slug, stage)) for slug in SLUGS for stage in STAGES]
    before = {path: path.read_text() for _, path in paths}
    try:
        for stage, path in paths:
            path.write_text(json.dumps(_taken(path, stage, before[path], number)))
        assert run(root, MODEL).is_file()
    finally:
        for path, text in before.items():
            path.write_text(text)
