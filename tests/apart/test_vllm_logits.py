"""Logits that are taken where vLLM computes them: in parts, held against what vLLM says, else its lists."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from quantlab.apart import vllm_logits
from quantlab.errors import CellFailure

WORDS = 7
IDS = np.array([3, 1, 4, 1, 5, 2, 6, 5], np.int64)
ENOUGH = 10**9


class Model:
    """Its hidden states are numbers of rows."""

    def __init__(self) -> None:
        self.rows = torch.randn(64, WORDS + 1, generator=torch.Generator().manual_seed(0))  # padded by one

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.rows[hidden]


class Engine:
    """Reads so many tokens a step; of each step the row that is sampled from comes first, as in vLLM."""

    def __init__(self, llm: Llm) -> None:
        self.llm, self.read, self.name = llm, 0, ""

    def add_request(self, name: str, prompt: Any, params: Any) -> None:
        self.name, self.ids, self.read = name, prompt["prompt_token_ids"], 0

    def has_unfinished_requests(self) -> bool:
        return self.read < len(self.ids)

    def step(self) -> list[Any]:
        begin, self.read = self.read, min(self.read + self.llm.budget, len(self.ids))
        self.llm.model.compute_logits(torch.tensor([self.read - 1]))
        prompt = list(range(begin, min(self.read, len(self.ids) - 1)))
        if prompt:
            self.llm.model.compute_logits(torch.tensor(prompt))
        if self.has_unfinished_requests():
            return []
        return [SimpleNamespace(request_id=self.name, prompt_logprobs=self.llm.told(self.ids))]


class Llm:
    """vllm.LLM with one worker."""

    def __init__(self, budget: int, wrong: float = 0.0) -> None:
        self.model, self.budget, self.wrong, self.listed = Model(), budget, wrong, 0
        self.llm_engine = Engine(self)

    def collective_rpc(self, function: Any) -> list[Any]:
        return [function(SimpleNamespace(get_model=lambda: self.model))]

    def told(self, ids: list[int]) -> Any:
        said = torch.log_softmax(self.model.rows[:, :WORDS].double(), -1)
        values = [float(said[i - 1, token]) + self.wrong for i, token in enumerate(ids) if i]
        starts = [0, *range(len(values))]
        return SimpleNamespace(
            start_indices=starts,
            end_indices=[0, *(i + 1 for i in starts[1:])],
            token_ids=ids[1:],
            logprobs=values,
        )

    def generate(self, prompts: Any, params: Any, use_tqdm: bool) -> list[Any]:
        self.listed += 1
        said = torch.log_softmax(self.model.rows[:, :WORDS].double(), -1).numpy()
        [prompt] = prompts
        count = len(prompt["prompt_token_ids"])
        sampled = SimpleNamespace(logprobs=_flat(said[count - 1 : count]))
        return [SimpleNamespace(prompt_logprobs=_flat(said[: count - 1], none_first=True), outputs=[sampled])]


def _flat(rows: np.ndarray, none_first: bool = False) -> Any:
    starts = [0] * none_first + [i * WORDS for i in range(len(rows))]
    ends = [0] * none_first + [(i + 1) * WORDS for i in range(len(rows))]
    ids = list(range(WORDS)) * len(rows)
    return SimpleNamespace(
        start_indices=starts, end_indices=ends, token_ids=ids, logprobs=rows.ravel().tolist()
    )


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.SamplingParams = lambda **given: SimpleNamespace(**given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.mark.parametrize("budget", [1, 3, 7, 8, 100])
def test_a_window_that_is_read_in_steps_gives_every_row_in_its_order(budget: int) -> None:
    llm = Llm(budget)
    rows = vllm_logits.window_logits(llm, IDS, WORDS, 0)
    assert rows.dtype == np.float32 and np.array_equal(rows, llm.model.rows[: len(IDS), :WORDS].numpy())
    assert llm.listed == 0


def test_logits_that_are_not_vllms_own_are_not_taken() -> None:
    llm = Llm(3, wrong=0.02)
    rows = vllm_logits.window_logits(llm, IDS, WORDS, ENOUGH)
    said = torch.log_softmax(llm.model.rows[: len(IDS), :WORDS].double(), -1).numpy()
    assert llm.listed == 1 and np.allclose(rows, said, atol=1e-6)


def test_the_lists_are_refused_where_they_do_not_fit() -> None:
    with pytest.raises(CellFailure, match="use shorter windows") as failure:
        vllm_logits.window_logits(Llm(3, wrong=0.02), IDS, WORDS, len(IDS) * WORDS * 159)
    assert failure.value.kind == "does_not_fit"


def test_nothing_is_noted_when_nobody_asks() -> None:
    llm = Llm(100)
    for _ in range(2):
        vllm_logits.window_logits(llm, IDS, WORDS, 0)
    llm.model.compute_logits(torch.tensor([1, 2]))
    assert llm.model.quantlab_noted == []  # type: ignore[attr-defined]
