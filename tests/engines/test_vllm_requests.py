"""What vLLM is asked with and after a run, and what it cannot give."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from stand_in_vllm import LLM, VOCABULARY, install, open_engine

from quantlab.engines import Demand
from quantlab.engines._vllm import engine as _logits
from quantlab.errors import CellFailure


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    return install(monkeypatch)


@pytest.mark.parametrize("after", ["logits", "language_model", "generate"])
def test_what_follows_a_prefill_does_not_run_its_leftovers(after: str, fake: type[LLM]) -> None:
    engine = open_engine()
    engine.prefill(np.zeros((2, 8), np.int64))
    steps, core = fake.made[0].steps, fake.made[0].llm_engine
    made = {
        "logits": lambda: engine.logits(np.array([3, 1, 4], np.int64)),
        "language_model": lambda: engine.language_model(2),
        "generate": lambda: engine.generate(["one two"], 4),
    }[after]()
    assert fake.made[0].steps == steps and len(core.aborted) == 2 and not core.requests
    if after == "logits":
        assert np.array_equal(made, fake.made[0].rows[:3])


def test_names_of_requests_are_numbers_that_vllm_does_not_count_itself(fake: type[LLM]) -> None:
    engine = open_engine()
    engine.prefill(np.zeros((2, 8), np.int64))
    first = [int(name) for name in fake.made[0].llm_engine.requests]
    engine.prefill(np.zeros((1, 8), np.int64))
    [second] = [int(name) for name in fake.made[0].llm_engine.requests]
    assert len(set(first)) == 2 and min(first) >= 10**9 and second not in first


def test_a_window_as_long_as_the_context_is_unsupported_and_one_token_less_is_not(fake: type[LLM]) -> None:
    engine = open_engine(demand=Demand(tokens=8))
    assert engine.logits(np.zeros(7, np.int64)).shape == (7, VOCABULARY)
    with pytest.raises(CellFailure, match="a window of 8 tokens leaves no room for it in 8") as failure:
        engine.logits(np.zeros(8, np.int64))
    assert failure.value.kind == "unsupported"


def test_a_window_whose_lists_do_not_fit_is_refused(fake: type[LLM], monkeypatch: pytest.MonkeyPatch) -> None:
    """143.9 bytes of memory for each log-probability were measured, so 144 are too few."""
    monkeypatch.setattr(_logits, "available_bytes", lambda: 5 * VOCABULARY * 144)
    with pytest.raises(CellFailure, match="use shorter windows"):
        open_engine().logits(np.zeros(5, np.int64))
    monkeypatch.setattr(_logits, "available_bytes", lambda: 5 * VOCABULARY * 160)
    assert len(open_engine().logits(np.zeros(5, np.int64))) == 5


def test_gpu_row_15_answers_come_from_the_tokens_that_lm_evals_model_reads(
    fake: type[LLM],
) -> None:
    """vLLM itself would put a second start token before a chat template's own; long prompts lose their
    beginning, as in the other engines."""
    engine = open_engine(demand=Demand(tokens=12))  # two of which vLLM needs itself
    assert engine.generate(["one", "one two three"], 4) == [[7, 8], [7, 8]]
    [(prompts, params)] = fake.made[0].asked
    assert prompts == [{"prompt_token_ids": [1, 4, 5]}, {"prompt_token_ids": [4, 5, 4, 5, 4, 5]}]
    assert (params.temperature, params.max_tokens) == (0, 4)
    with pytest.raises(CellFailure, match="the model's context has 10"):
        engine.generate(["one"], 10)


def test_gpu_row_15_answers_of_every_engine_are_read_by_its_own_methods(
    fake: type[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantlab.evaluation.generation import answer

    monkeypatch.setattr(fake, "generation_config", {"eos_token_id": [8, 9]})
    engine = open_engine()
    tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: " ".join(map(str, ids)))
    [made] = answer(engine, tokenizer, ["one"], 4)
    assert made == ("7", (7,), True)


def test_closing_shuts_the_engine_down_so_that_its_memory_is_free_for_the_next(fake: type[LLM]) -> None:
    engine = open_engine()
    engine.prefill(np.zeros((1, 8), np.int64))
    engine.close()
    assert fake.made[0].events == ["shutdown"] and not fake.made[0].llm_engine.requests
