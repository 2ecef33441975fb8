"""A measured point's formula and ceiling, of an ordinary decoder and of a hybrid."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab.measuring.memory import Held
from quantlab.measuring.points import Ceilings, points
from quantlab.measuring.speed import Timing, Timings, Turns
from quantlab.measuring.timing import Timed
from quantlab.measuring.worker_client import GridPoint
from quantlab.records import SpeedPoint
from quantlab.records.measured import Bandwidth, Conditions

ORDINARY: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "hidden_size": 256,
    "head_dim": 32,
    "vocab_size": 512,
}
HYBRID = ORDINARY | {
    "model_type": "qwen3_next",
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
}
WINDOW = ORDINARY | {"model_type": "mistral", "sliding_window": 10}
PER_TOKEN = 2 * 2 * 32 * 2
"""Of one layer: keys and values of 2 heads, 32 wide, in 2 bytes."""
STATE = 3 * (4 * 16 * 16 * 4 + 3 * (2 * 2 * 16 + 4 * 16) * 2)
WORK = GridPoint(batch=2, context=24, prompt=8, decode=8)
BANDWIDTH = Bandwidth(measured_bytes_per_second=1e9, copied_bytes=1, threads=None)


def measured(
    config: dict[str, Any], parallel: int = 1, cache_dtype: str = "bfloat16", kv_bytes: int = 1000
) -> SpeedPoint:
    held = [Held(WORK, kv_cache_bytes=kv_bytes, state_bytes=500)]
    turns = {WORK: Turns(Timings(WORK, (Timing(0.5, 0.25, None, None),)), None)}
    timed = Timed(turns, None, None, Conditions(), Conditions())
    about = {"cache_dtype": cache_dtype, "reads": {"always_bytes": 10_000}, "parallel": parallel}
    return points(held, timed, None, Ceilings(BANDWIDTH, None, config), about)[0]


@pytest.mark.parametrize(
    ("config", "kept", "read"),
    [
        (ORDINARY, 4 * 40 * PER_TOKEN, 4 * 36 * PER_TOKEN),
        (HYBRID, 40 * PER_TOKEN, 36 * PER_TOKEN + STATE),
        (WINDOW, 4 * 10 * PER_TOKEN, 4 * 10 * PER_TOKEN),
    ],
    ids=["ordinary", "hybrid", "window"],
)
def test_formula_and_ceiling_are_computed_by_layer(config: dict[str, Any], kept: int, read: int) -> None:
    point = measured(config)
    assert point.kv_cache_formula_bytes == 2 * kept
    assert point.roofline and (point.roofline.weight_bytes_per_step, point.roofline.cache_bytes_per_step) == (
        10_000,
        2 * read,
    )
    assert point.roofline.tokens_per_second == pytest.approx(2 * 1e9 / (10_000 + 2 * read))
    assert point.roofline.share == pytest.approx(2 * 8 / 0.25 / point.roofline.tokens_per_second)


def test_gpus_that_share_each_layer_read_at_once_and_each_its_own_copy_of_a_head() -> None:
    two, four = (measured(ORDINARY, parallel=n).roofline for n in (2, 4))
    one = measured(ORDINARY).roofline
    assert one and two and four
    assert (
        one.cache_bytes_per_step == two.cache_bytes_per_step == four.cache_bytes_per_step / 2
    )  # 2 heads on 4 GPUs
    assert two.tokens_per_second == pytest.approx(2 * one.tokens_per_second)


@pytest.mark.parametrize(
    ("config", "cache"), [(ORDINARY | {"model_type": "its_own"}, "bfloat16"), (ORDINARY, "hqq4")]
)
def test_without_a_formula_the_measured_cache_sets_the_ceiling(config: dict[str, Any], cache: str) -> None:
    point = measured(config, cache_dtype=cache)
    assert point.kv_cache_formula_bytes is None
    assert point.roofline and point.roofline.cache_bytes_per_step == 1000 * 36 / 40 + 500
