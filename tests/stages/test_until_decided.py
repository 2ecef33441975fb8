"""The early end of an evaluation: which items are asked, when it ends, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml

from quantlab.analysis.sequential import looks
from quantlab.errors import QuantlabError
from quantlab.evaluation.looks import Baseline, evaluate_in_looks, read_baseline
from quantlab.records import Estimate, TaskRecord, TaskResult
from quantlab.workspace.cell import Cell
from quantlab.workspace.results import made_with, read_record, record_path, write_record

N = 1000


class _Found(NamedTuple):
    samples: dict[str, list[dict[str, Any]]]


def _item(task: str, item: int) -> tuple[str, int, str]:
    return task, item, f"prompt {item}"


def _run(
    variant: dict[str, list[float]], metric: str = "acc", **doc: str
) -> tuple[list[dict[str, int]], _Found, dict[str, Any]]:
    """Ask a made-up variant; its answers lie by task, the baseline has every item right."""
    asked: list[dict[str, int]] = []

    def evaluate(sizes: Mapping[str, int]) -> _Found:
        asked.append(dict(sizes))
        common = {"metrics": [metric], "doc": doc}
        return _Found(
            {
                t: [
                    {"subtask": t, "doc_id": i, "prompt_hash": f"prompt {i}", metric: v[i], **common}
                    for i in range(sizes[t])
                ]
                for t, v in variant.items()
            }
        )

    baseline = Baseline({task: {metric: {_item(task, i): 1.0 for i in range(N)}} for task in variant})
    found, ended = evaluate_in_looks(evaluate, baseline, margin=1.0)
    return asked, found, ended


def test_a_broken_variant_ends_at_the_first_look_and_a_close_one_sees_all_items() -> None:
    plan = looks(N)
    asked, found, ended = _run({"bad": [0.0] * N, "close": [0.0 if i % 80 == 0 else 1.0 for i in range(N)]})
    assert ended["bad"].verdict == "worse" and ended["bad"].items == plan[0]
    assert ended["close"].items == N and ended["close"].verdict == "undecided"
    assert [sizes["close"] for sizes in asked] == plan and {sizes["bad"] for sizes in asked} == {plan[0]}
    assert len(found.samples["bad"]) == plan[0] and len(found.samples["close"]) == N


def test_an_unchanged_variant_is_within_the_margin_before_the_end() -> None:
    _, _, ended = _run({"same": [1.0] * N})
    assert ended["same"].verdict == "within margin" and ended["same"].items < N


def test_a_metric_that_is_not_right_or_wrong_is_measured_whole() -> None:
    asked, found, ended = _run({"f1": [0.5] * N}, "f1")
    assert ended == {"f1": None} and len(found.samples["f1"]) == N and len(asked) == 2


def test_items_that_share_a_text_are_measured_whole() -> None:
    _, found, ended = _run({"boolq": [0.0] * N}, passage="one passage for all")
    assert ended == {"boolq": None} and len(found.samples["boolq"]) == N


def _baseline(root: Path, **changes: Any) -> Cell:
    """A cell whose baseline was asked 3 of 10 items of piqa."""
    (root / "recipes").mkdir(parents=True)
    recipe = {
        "model": "small",
        "source": {"path": "nowhere"},
        "tasks": {"names": ["piqa"], "items": 3, "fewshot": 0},
    }
    (root / "recipes" / "small.yaml").write_text(yaml.safe_dump(recipe | changes))
    result = TaskResult(
        metric="acc",
        score=Estimate(value=1.0, standard_error=0.0, n=3),
        metrics={},
        task_version="1",
        fewshot=0,
        available=10,
    )
    write_record(root, TaskRecord(model="small", variant="baseline-16", tasks={"piqa": result}, seed=1234))
    rows = [
        {
            "task": "piqa",
            "subtask": "piqa",
            "doc_id": i,
            "prompt_hash": f"prompt {i}",
            "metric": "acc",
            "value": 1.0,
        }
        for i in range(3)
    ]
    pd.DataFrame(rows).to_parquet(root / "reports" / "small" / "data" / "baseline-16" / "samples.parquet")
    return Cell(root, "small", "gptq-4")


def test_the_baselines_answers_are_read(tmp_path: Path) -> None:
    found = read_baseline(_baseline(tmp_path))
    assert found.total("piqa") == 3 and found.values["piqa"]["acc"][_item("piqa", 2)] == 1.0
    with pytest.raises(QuantlabError, match="not evaluated on copa"):
        found.total("copa")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"names": ["piqa"], "items": 5, "fewshot": 0}}, "3 items of piqa, 0-shot"),
        ({"tasks": {"names": ["piqa"], "items": 3, "fewshot": 2}}, "3 items of piqa, 0-shot"),
        ({"tasks": {"names": ["piqa"], "items": 3, "chat_template": True}}, "chat template"),
        ({"seed": 7, "tasks": {"names": ["piqa"], "items": 3}}, "another seed"),
    ],
)
def test_a_baseline_that_was_asked_otherwise_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(QuantlabError, match=message):
        read_baseline(_baseline(tmp_path, **changes))


def test_a_baseline_of_other_settings_is_refused(tmp_path: Path) -> None:
    """Whichever they are: here the margin, which the record itself does not hold."""
    cell = _baseline(tmp_path)
    path = record_path(tmp_path, "small", "baseline-16", "evaluate")
    record = read_record(path, TaskRecord)
    assert record is not None
    write_record(tmp_path, made_with(record, cell.recipe))
    read_baseline(cell)
    recipe = tmp_path / "recipes" / "small.yaml"
    recipe.write_text(recipe.read_text() + "comparison: {margin_points: 2.0}\n")
    with pytest.raises(QuantlabError, match="evaluated with other settings than the recipe has now"):
        read_baseline(Cell(tmp_path, "small", "gptq-4"))


def test_without_the_baseline_it_is_refused(tmp_path: Path) -> None:
    cell = _baseline(tmp_path)
    (tmp_path / "reports" / "small" / "data" / "baseline-16" / "samples.parquet").unlink()
    with pytest.raises(QuantlabError, match="was not evaluated"):
        read_baseline(cell)
