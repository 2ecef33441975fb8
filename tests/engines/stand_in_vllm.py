"""A stand-in for vLLM that records what it is asked, because there are no GPU and no vLLM here.

It keeps to vLLM 0.33.0: `LLM(**EngineArgs)`, `LLM.generate`, `LLM.collective_rpc` with a callable, and
`LLMEngine.add_request`, `step`, `abort_request`, whose outputs are cumulative. It schedules `budget` prompts a
step."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quantlab.engines import ANYTHING, Demand
from quantlab.engines._vllm.worker import WorkerState
from quantlab.engines.vllm import VllmEngine

VOCABULARY = 11


class Flat(SimpleNamespace):
    """vLLM's FlatLogprobs."""


def flat(rows: list[np.ndarray | None]) -> Flat:
    """Rows in the order that vLLM has: the most likely first, and the prompt's own token once more before
    them."""
    made = Flat(start_indices=[], end_indices=[], token_ids=[], logprobs=[])
    for row in rows:
        made.start_indices.append(len(made.logprobs))
        order = [] if row is None else [3, *np.argsort(-row).tolist()]
        made.token_ids += order
        made.logprobs += [] if row is None else [float(row[i]) for i in order]
        made.end_indices.append(len(made.logprobs))
    return made


class Core:
    """LLMEngine."""

    def __init__(self, llm: Any) -> None:
        self.llm, self.requests, self.aborted = llm, dict[str, Any](), list[str]()
        model = SimpleNamespace(
            dtype="torch.bfloat16",
            max_model_len=llm.longest,
            get_vocab_size=lambda: VOCABULARY,
            hf_text_config=SimpleNamespace(num_local_experts=8, num_experts_per_tok=2),
        )
        cache = SimpleNamespace(cache_dtype="auto", block_size=16, kv_cache_size_tokens=1600)
        self.vllm_config = SimpleNamespace(model_config=model, cache_config=cache)
        self.engine_core = SimpleNamespace(shutdown=lambda: llm.events.append("shutdown"))

    def add_request(self, name: str, prompt: Any, params: Any) -> None:
        if len(prompt["prompt_token_ids"]) >= self.llm.longest:
            raise VLLMValidationError("the prompt is longer than the maximum model length")
        self.requests[name] = SimpleNamespace(prompt=prompt, params=params, made=0, read=False)

    def has_unfinished_requests(self) -> bool:
        return any(r.made < r.params.max_tokens for r in self.requests.values())

    def step(self) -> list[Any]:
        self.llm.steps += 1
        waiting = [r for r in self.requests.values() if not r.read][: self.llm.budget]
        for request in waiting:
            request.read = True
        running = [(n, r) for n, r in self.requests.items() if r.read and r.made < r.params.max_tokens]
        for _, request in running:
            request.made += 1
        return [
            SimpleNamespace(request_id=n, outputs=[SimpleNamespace(token_ids=[5] * r.made)])
            for n, r in running
        ]

    def abort_request(self, names: list[str]) -> None:
        self.aborted += names
        for name in names:
            del self.requests[name]


class VLLMValidationError(Exception):
    """vllm.exceptions.VLLMValidationError, which is no ValueError."""


class LLM:
    """vllm.LLM."""

    made: list[LLM] = []
    budget = 100
    positions = 64
    refusal: Exception | None = None

    def __init__(self, **arguments: Any) -> None:
        if self.refusal:
            raise self.refusal
        asked = arguments.get("max_model_len")
        self.longest = self.positions if asked in (None, -1) else int(asked)
        if self.longest > self.positions:
            raise ValueError(
                f"User-specified max_model_len ({asked}) is greater than the derived max_model_len"
            )
        self.arguments, self.steps, self.asked, self.events = arguments, 0, list[Any](), list[str]()
        self.llm_engine = Core(self)
        self.rows = np.log(np.random.default_rng(0).dirichlet(np.ones(VOCABULARY), 64)).astype(np.float32)
        LLM.made.append(self)

    def collective_rpc(self, function: Any) -> list[Any]:
        workers = self.arguments["tensor_parallel_size"]
        return [
            {"LinearMethod": 4} if function.__name__ == "kernels" else WorkerState(1000, 3200, 900, 80)
        ] * workers

    def generate(self, prompts: Any, params: Any, use_tqdm: bool) -> list[Any]:
        """As vLLM does, run whatever is left in the engine to its end, and sort by the names as numbers."""
        left = [SimpleNamespace(request_id=name, outputs=[]) for name in self.llm_engine.requests]
        while self.llm_engine.has_unfinished_requests():
            self.llm_engine.step()
        if any(len(prompt["prompt_token_ids"]) >= self.longest for prompt in prompts):
            raise VLLMValidationError("the prompt is longer than the maximum model length")
        self.asked.append((prompts, params))
        mine = [self._output(str(n), prompt["prompt_token_ids"]) for n, prompt in enumerate(prompts)]
        return sorted([*mine, *left], key=lambda output: int(output.request_id))

    def _output(self, name: str, ids: list[int]) -> Any:
        prompt = flat([None, *self.rows[: len(ids) - 1]])
        sampled = flat([self.rows[len(ids) - 1]])
        return SimpleNamespace(
            request_id=name,
            prompt_logprobs=prompt,
            outputs=[SimpleNamespace(logprobs=sampled, token_ids=[7, 8])],
        )

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(eos_token_id=2)


def install(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    """Put the stand-in where `import vllm` finds it."""
    module = ModuleType("vllm")
    module.LLM = LLM  # type: ignore[attr-defined]
    module.SamplingParams = lambda **given: SimpleNamespace(**given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    for name in ("CUDA_VISIBLE_DEVICES", "VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_NO_USAGE_STATS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(LLM, "made", [])
    return LLM


def open_engine(
    device: str = "cuda:0", cache: str | None = None, demand: Demand = ANYTHING, weights: str = "weights"
) -> VllmEngine:
    return VllmEngine(Path(weights), Path("tokenizer"), device, cache=cache, demand=demand)
