"""The early end of an evaluation: which items are asked, when it ends, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from quantlab.analysis.sequential import looks
from quantlab.cell import Cell
from quantlab.errors import QuantlabError
from quantlab.stages._until_decided import Baseline, evaluate_in_looks, read_baseline

N = 1000


def _run(variant: dict[str, list[float]], metric: str = "acc") -> tuple[list[dict[str, int]], dict[str, Any], dict[str, Any]]:
    """Ask a made-up variant; its answers lie by task, the baseline has every item right."""
    asked: list[dict[str, int]] = []

    def evaluate(sizes: Mapping[str, int]) -> dict[str, Any]:
        asked.append(dict(sizes))
        samples = {t: [{"doc_id": i, metric: v[i], "metrics": [metric]} for i in range(sizes[t])] for t, v in variant.items()}
        return {"samples": samples}

    baseline = Baseline({task: {metric: dict.fromkeys(range(N), 1.0)} for task in variant})
    found, ended = evaluate_in_looks(evaluate, baseline, lambda sample: metric, margin=1.0)
    return asked, found, ended


def test_a_broken_variant_ends_at_the_first_look_and_a_close_one_sees_all_items() -> None:
    plan = looks(N)
    asked, found, ended = _run({"bad": [0.0] * N, "close": [0.0 if i % 80 == 0 else 1.0 for i in range(N)]})
    assert ended["bad"].verdict == "worse" and ended["bad"].items == plan[0]
    assert ended["close"].items == N and ended["close"].verdict == "undecided"
    assert [sizes["close"] for sizes in asked] == plan and {sizes["bad"] for sizes in asked} == {plan[0]}
    assert len(found["samples"]["bad"]) == plan[0] and len(found["samples"]["close"]) == N


def test_an_unchanged_variant_is_within_the_margin_before_the_end() -> None:
    _, _, ended = _run({"same": [1.0] * N})
    assert ended["same"].verdict == "within margin" and ended["same"].items < N


def test_a_metric_that_is_not_right_or_wrong_is_measured_whole() -> None:
    asked, found, ended = _run({"f1": [0.5] * N}, "f1")
    assert ended == {"f1": None} and len(found["samples"]["f1"]) == N and len(asked) == 2


def test_without_the_baseline_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuantlabError, match="was not evaluated"):
        read_baseline(Cell(tmp_path, "small", "gptq-4"))
