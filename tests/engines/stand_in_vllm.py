"""A stand-in for vLLM that records what it is asked, in this process instead of a worker's.

It keeps to vLLM 0.32.0 and 0.33.0: `LLM(**EngineArgs)`, `LLM.generate`, `LLM.collective_rpc` with a callable, and
`LLMEngine.add_request`, `step`, `abort_request`, whose outputs are cumulative. It schedules `budget` prompts a
step."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quantlab.apart.vllm_engine import Commands
from quantlab.apart.vllm_inside import WorkerState
from quantlab.engines import ANYTHING, Demand
from quantlab.engines._vllm import load
from quantlab.engines._vllm.engine import VllmEngine
from quantlab.environments.worker import Reply
from quantlab.models import loading

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
            try_get_generation_config=lambda: llm.generation_config,
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
    generation_config: dict[str, Any] = {}
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
        if function.__name__ == "watch_logits":
            return [False] * workers  # its models show nothing of themselves
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
            outputs=[SimpleNamespace(logprobs=sampled, token_ids=[7, 8], finish_reason="stop")],
        )


class Tokenizer:
    """Each word is two tokens, after a start token."""

    eos_token_id, bos_token_id = 2, 1
    name_or_path = "stand-in"

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [1] * add_special_tokens + [number for _ in text.split() for number in (4, 5)]

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        return " ".join(map(str, ids if isinstance(ids, list | tuple) else [ids]))


class InProcess:
    """The worker's commands, obeyed in this process."""

    def __init__(self) -> None:
        self.commands, self.closed = Commands(), False

    def ask(self, do: str, arrays: Any = None, **values: Any) -> Reply:
        made = getattr(self.commands, do)(**(arrays or {}), **values)
        told, given = made if isinstance(made, tuple) else (made, {})
        return Reply(told or {}, given)

    def resident(self) -> tuple[int, int]:
        return 500, 600

    def close(self) -> None:
        self.closed = True


def install(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    """Put the stand-in where `import vllm` finds it."""
    module = ModuleType("vllm")
    module.LLM = LLM  # type: ignore[attr-defined]
    module.SamplingParams = lambda **given: SimpleNamespace(**given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(loading, "load_tokenizer", lambda *_: Tokenizer())
    monkeypatch.setattr(LLM, "made", [])
    return LLM


def open_engine(
    device: str = "cuda:0", cache: str | None = None, demand: Demand = ANYTHING, weights: str = "weights"
) -> VllmEngine:
    places = load.places_of(device)
    given = load.arguments(Path(weights), Path("tokenizer"), places, False, cache, "auto", demand)
    return VllmEngine(InProcess(), given, places, device)
