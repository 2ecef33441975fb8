"""Damaged records: one line and code 2, whatever is read and whatever is wrong with it; a failing gate alone
has code 1."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from madeup import MODEL, write_cell, write_recipe

from quantlab.cli import main
from quantlab.records import STAGES, StageName

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    write_recipe(root)
    for slug in ("baseline-16", "gguf-8"):
        write_cell(root, slug)
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "root")
    return tmp_path / "root"


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _text(text: str | bytes) -> Damage:
    return lambda path: (path.write_bytes(text.encode() if isinstance(text, str) else text), None)[1]


def _changed(**values: object) -> Damage:
    return lambda path: (path.write_text(json.dumps(json.loads(path.read_text()) | values)), None)[1]


def _twice(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace("{", '{"variant": "gguf-2",', 1))


RECORD_DAMAGE: dict[str, Damage] = {
    "empty": _text(""),
    "cut": lambda path: (path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), None)[1],
    "latin1": _text(b'{"model": "caf\xe9"}'),
    "utf16": _text("{}".encode("utf-16")),
    "folder": _folder,
    "list": _text("[]"),
    "number": _text("1"),
    "deep": _text("[" * 100_000),
    "deep object": _text('{"a":' * 100_000),
    "deep value": _changed(notes=json.loads("[" * 60 + "]" * 60)),
    "twice": _twice,
    "nan": _text('{"seconds": NaN}'),
    "infinite": _text('{"seconds": 1e999}'),
    "minus infinity": _text('{"seconds": -Infinity}'),
    "401 digits": _text('{"seconds": 1' + "0" * 400 + "}"),
    "surrogate": _changed(device="\ud800"),
    "unknown key": _changed(surprise=1),
    "schema": _changed(schema_version=99),
    "schema text": _changed(schema_version="x"),
    "other variant": _changed(variant="gguf-2"),
    "text for a number": _changed(versions=7),
    "long text": _changed(device="x" * 200_000),
}


def _said(root: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> str:
    monkeypatch.chdir(root)
    done = CliRunner().invoke(main, line.split())
    assert done.exit_code == 2 and done.stdout == "", (done.output, done.exception)
    assert done.stderr.startswith("quantlab: ") and done.stderr.count("\n") == 1 and len(done.stderr) < 600
    return done.stderr


@pytest.mark.parametrize("name", RECORD_DAMAGE)
@pytest.mark.parametrize("stage", ["quantize", "evaluate"])
def test_a_damaged_record_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, stage: StageName, name: str
) -> None:
    path = root / "reports" / MODEL / "data" / "gguf-8" / STAGES[stage].file
    RECORD_DAMAGE[name](path)
    for line in (f"check reports/{MODEL} --max-drop 5", f"report --model {MODEL}", "show gguf-8"):
        assert STAGES[stage].file in _said(root, monkeypatch, line)


@pytest.mark.parametrize("stage", STAGES)
def test_every_kind_of_record_is_read_by_the_same_reader(
    root: Path, monkeypatch: pytest.MonkeyPatch, stage: StageName
) -> None:
    path = root / "reports" / MODEL / "data" / "gguf-8" / STAGES[stage].file
    path.write_text("[" * 100_000)
    assert "more than 64 deep" in _said(root, monkeypatch, f"check reports/{MODEL} --max-drop 5")


def test_a_record_of_another_model_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _changed(model="another")(root / "reports" / MODEL / "data" / "gguf-8" / "measure.json")
    assert "holds a record of 'another'" in _said(root, monkeypatch, f"check reports/{MODEL} --max-drop 5")


def _with(**columns: object) -> Damage:
    return lambda path: pd.read_parquet(path).assign(**columns).to_parquet(path)  # type: ignore[arg-type]


SAMPLES_DAMAGE: dict[str, Damage] = {
    "empty": _text(b""),
    "text": _text("no parquet"),
    "cut": lambda path: (path.write_bytes(path.read_bytes()[:-40]), None)[1],
    "middle": lambda path: (
        path.write_bytes(path.read_bytes()[:300] + b"\xff" * 900 + path.read_bytes()[1200:]),
        None,
    )[1],
    "head": lambda path: (path.write_bytes(b"PAR1" + b"\0" * 100 + b"PAR1"), None)[1],
    "folder": _folder,
    "no value": lambda path: pd.read_parquet(path).drop(columns="value").to_parquet(path),
    "value text": _with(value="1.0"),
    "value bool": _with(value=True),
    "value list": lambda path: (
        pd.read_parquet(path).assign(value=lambda f: [[1.0]] * len(f)).to_parquet(path)
    ),
    "task number": _with(task=1),
    "task list": lambda path: (
        pd.read_parquet(path).assign(task=lambda f: [["piqa"]] * len(f)).to_parquet(path)
    ),
    "doc_id text": _with(doc_id="one"),
    "doc_id fraction": _with(doc_id=0.5),
    "doc_hash number": _with(doc_hash=np.arange(400)),
    "cluster list": lambda path: (
        pd.read_parquet(path).assign(cluster=lambda f: [["a"]] * len(f)).to_parquet(path)
    ),
    "answer struct": lambda path: (
        pd.read_parquet(path).assign(answer=lambda f: [{"a": 1}] * len(f)).to_parquet(path)
    ),
}


@pytest.mark.parametrize("name", SAMPLES_DAMAGE)
@pytest.mark.parametrize("slug", ["baseline-16", "gguf-8"])
def test_damaged_samples_are_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, slug: str, name: str
) -> None:
    path = root / "reports" / MODEL / "data" / slug / "samples.parquet"
    SAMPLES_DAMAGE[name](path)
    for line in (f"check reports/{MODEL} --max-drop 5", f"report --model {MODEL}"):
        assert "samples.parquet" in _said(root, monkeypatch, line)


@pytest.mark.parametrize("what", ["empty data", "no record", "cut", "folder", "beside others"])
def test_plan_against_a_damaged_report_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    data = root / "reports" / MODEL / "data"
    if what == "cut":
        RECORD_DAMAGE["cut"](data / "gguf-8" / "measure.json")
    elif what == "folder":
        _folder(data / "gguf-8" / "measure.json")
    elif what == "beside others":
        (root / "reports" / "other" / "data" / "gguf-8").mkdir(parents=True)
    else:
        shutil.rmtree(data)
        (data / "gguf-8").mkdir(parents=True) if what == "no record" else data.mkdir()
    for place in {"reports", "reports/other" if what == "beside others" else f"reports/{MODEL}"}:
        _said(root, monkeypatch, f"plan --against {place}")
