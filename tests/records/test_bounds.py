"""What no machine can have measured is refused where a record is made or read, by the unit in the field's
name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from quantlab.records import (
    DivergenceRecord,
    Estimate,
    MeasureRecord,
    QuantizeRecord,
    SpeedPoint,
    SpeedRecord,
    TaskRecord,
    TaskResult,
)
from quantlab.records.bounds import impossible
from quantlab.records.measured import Median

CELL: Any = {"model": "tiny", "variant": "gptq-4"}


def _measured(**values: Any) -> MeasureRecord:
    point = {"batch": 1, "context_tokens": 0, "prompt_tokens": 8, "decode_tokens": 8} | values
    return MeasureRecord(
        **CELL,
        speed=SpeedRecord(kernel="k", dtype="d", threads=2, load_seconds=0.0, points=(SpeedPoint(**point),)),
    )


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"disk_bytes": 10**400}, "disk_bytes is a number of 401 digits"),
        ({"disk_bytes": -1}, "disk_bytes is -1"),
        ({"seconds": 1e308}, "seconds is 1e+308"),
        ({"parameters": 10**30}, "parameters"),
        ({"loss_in_memory_nats": -1e9}, "loss_in_memory_nats"),
        ({"bits_per_weight": 1e9}, "bits_per_weight"),
        ({"tensor_types": {"F32": 10**400}}, "tensor_types.F32"),
        ({"notes": ("x" * 100_001,)}, "notes.0 has 100,001 characters"),
        ({"versions": {"x" * 100_001: "1"}}, "characters"),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_its_place(values: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        QuantizeRecord(**CELL, **values)
    assert place in refused.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    "values",
    [
        {"decode_seconds": (0.1, 0.0)},
        {"decode_seconds": (1e-300,)},
        {"prefill_seconds": (-1.0,)},
        {"baseline_decode_seconds": (1e308,)},
        {"batch": 0},
        {"decode_tokens": 0},
        {"decode_rate": Median(value=942e6, low=1.0, high=2.0, coverage=0.9, n=5), "decode_tokens": 10**10},
        {"decode_ratio": Median(value=1e308, low=1.0, high=2.0, coverage=0.9, n=5)},
        {"kv_cache_bytes": 10**17},
    ],
)
def test_no_speed_divides_by_nothing_or_overflows(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="which cannot be"):
        _measured(**values)


def test_the_place_names_every_step() -> None:
    with pytest.raises(
        ValidationError,
        match=r"speed\.points\.0\.decode_seconds\.1 is 0, which cannot be: from 1e-09 to 1e\+09 can",
    ):
        _measured(decode_seconds=(0.1, 0.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_no_numbers(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Estimate(value=value, standard_error=None, n=1)
    with pytest.raises(ValidationError, match="finite"):
        DivergenceRecord(**CELL, bits_per_byte=value)
    score = Estimate(value=0.5, standard_error=None, n=2)
    with pytest.raises(ValidationError, match="finite"):
        TaskRecord(
            **CELL,
            tasks={
                "a": TaskResult(
                    metric="acc", score=score, metrics={"acc": value}, task_version="1", fewshot=0
                )
            },
        )


def test_real_figures_are_far_within() -> None:
    fast = Median(value=2.5e6, low=2e6, high=3e6, coverage=0.9375, n=5)
    fine = _measured(
        batch=4096, context_tokens=10_000_000, decode_seconds=(1e-4,), decode_rate=fast, kv_cache_bytes=10**13
    )
    assert impossible(fine) is None
    worst = Estimate(value=7e86, standard_error=1e80, n=32)
    assert DivergenceRecord(
        **CELL, perplexity=worst, log_perplexity_ratio=Estimate(value=-3.0, standard_error=0.1, n=32)
    )
    assert QuantizeRecord(**CELL, parameters=10**13, disk_bytes=2 * 10**13, seconds=10**7)
