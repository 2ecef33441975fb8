"""What vLLM is told to reserve: the longest sequence of the job, and no memory that it needs outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stand_in_vllm import LLM, install, open_engine

from quantlab import engines
from quantlab.engines import ANYTHING, Demand
from quantlab.engines._vllm import reserve
from quantlab.hardware.device import Gpu
from quantlab.planning.calibration import calibration

GIB = 2**30
WORDS = 128_256


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    monkeypatch.setattr(LLM, "positions", 131_072)
    card = Gpu(index=0, uuid="GPU-a", name="card", memory_bytes=24 * GIB, driver="1")
    monkeypatch.setattr(reserve, "gpus", lambda: (card, card.model_copy(update={"index": 1})))
    return install(monkeypatch)


def _weights(folder: Path, **config: Any) -> str:
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("demand", "config", "given"),
    [
        (Demand(tokens=513), {"max_position_embeddings": 131_072}, 513),
        (Demand(tokens=4_257), {"max_position_embeddings": 2_048}, 2_048),
        (Demand(tokens=4_257), {"text_config": {"max_position_embeddings": 4_096}}, 4_096),
        (Demand(tokens=700), {}, 700),
        (ANYTHING, {"max_position_embeddings": 131_072}, -1),
    ],
)
def test_gpu_row_9_vllm_gets_the_longest_length_that_the_job_needs(
    demand: Demand, config: dict[str, Any], given: int, fake: type[LLM], tmp_path: Path
) -> None:
    """Never its default, the whole context, whose cache 24 GB do not hold; -1 is vLLM's word for what fits."""
    engine = open_engine(demand=demand, weights=_weights(tmp_path, **config))
    assert fake.made[0].arguments["max_model_len"] == given
    assert engine.context_tokens == (131_072 if given == -1 else given)


def test_gpu_row_9_vllm_takes_what_fits_where_nothing_is_known(fake: type[LLM], tmp_path: Path) -> None:
    open_engine(weights=str(tmp_path))
    assert fake.made[0].arguments["max_model_len"] == -1


def test_gpu_row_20_sorting_log_probabilities_has_memory_outside_vllms_share(
    fake: type[LLM], tmp_path: Path
) -> None:
    weights = _weights(tmp_path, vocab_size=WORDS, max_position_embeddings=131_072)
    for demand in (Demand(tokens=513), Demand(513, 512), Demand(2_049, 2_048)):
        open_engine("cuda:0,1", demand=demand, weights=weights)
    shares = [made.arguments.get("gpu_memory_utilization") for made in fake.made]
    assert shares[0] is None  # nothing is scored: vLLM's own share
    needed = 512 * WORDS * 32  # what is certainly held at once while the rows are sorted
    assert shares[1] == pytest.approx(0.92 - 512 * WORDS * 40 / (24 * GIB), abs=1e-4)
    assert (0.92 - shares[1]) * 24 * GIB > needed > 1.5e9
    assert 0 < shares[2] < shares[1]


def test_gpu_row_20_a_vocabulary_in_the_text_part_counts_too(fake: type[LLM], tmp_path: Path) -> None:
    open_engine(demand=Demand(513, 512), weights=_weights(tmp_path, text_config={"vocab_size": WORDS}))
    assert fake.made[0].arguments["gpu_memory_utilization"] < 0.85


def test_gpu_row_16_the_planner_has_vllms_share() -> None:
    assert calibration().gpu.vllm_share == reserve.SHARE == 0.92


def test_only_an_engine_that_reserves_the_gpu_says_so() -> None:
    assert [name for name in engines.names() if engines.load(name).reserves_gpu] == ["vllm"]
