"""Generate greedily with llama.cpp, several prompts at a time, by the rules of transformers' `generate`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.engines._llama.library import Batch, Context, one_sequence
from quantlab.errors import CellFailure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Rules(NamedTuple):
    """What the model's own generation_config.json says that a greedy generation heeds."""

    end_ids: frozenset[int]
    repetition_penalty: float


def read_rules(folder: Path, eos_token_id: int | None) -> Rules:
    """From generation_config.json, else config.json, else the tokenizer's end token."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            said: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
            ends = said.get("eos_token_id")
            listed = ends if isinstance(ends, list) else [ends if ends is not None else eos_token_id]
            return Rules(
                frozenset(i for i in listed if i is not None), float(said.get("repetition_penalty") or 1.0)
            )
    return Rules(frozenset(() if eos_token_id is None else (eos_token_id,)), 1.0)


def generate(
    context: Context,
    prompts: Sequence[Sequence[int]],
    limit: int,
    rules: Rules,
    stopped: Callable[[list[int]], bool],
    names: Sequence[str],
) -> list[list[int]]:
    """Continue each prompt by at most `limit` tokens, an end token included.

    `stopped` looks at the tokens so far and says whether a stop string is in them. The context has a sequence
    with enough cells for each prompt. Raises CellFailure where a logit is not finite, with the prompt's
    `names` entry."""
    made: list[list[int]] = [[] for _ in prompts]
    seen = [set(prompt) for prompt in prompts]
    live: list[int] = []
    context.clear()

    def take(sequence: int, logits: NDArray[np.float32]) -> bool:
        """Add the next token; whether the sequence goes on."""
        _require_finite(logits, len(made[sequence]) + 1, names[sequence])
        token = _choose(logits, seen[sequence], rules.repetition_penalty)
        made[sequence].append(token)
        seen[sequence].add(token)
        return len(made[sequence]) < limit and token not in rules.end_ids and not stopped(made[sequence])

    for sequence, prompt in enumerate(prompts):
        for begin in range(0, len(prompt), context.batch):
            rows = context.run(one_sequence(prompt[begin : begin + context.batch], begin, sequence))
        if take(sequence, rows[-1]):
            live.append(sequence)
    while live:
        tokens = [made[s][-1] for s in live]
        positions = [len(prompts[s]) + len(made[s]) - 1 for s in live]
        rows = context.run(Batch(tokens, positions, [(s,) for s in live], [True] * len(live)))
        live = [s for s, row in zip(live, rows, strict=True) if take(s, row)]
    return made


def _require_finite(logits: NDArray[np.float32], number: int, name: str) -> None:
    """Raise CellFailure where a logit is not finite: argmax would take NaN for the best."""
    if not math.isfinite(float(logits.sum())):  # one that is not finite makes the sum so
        raise CellFailure(
            "broken_checkpoint", f"logits are not finite at token {number} of the answer to {name}"
        )


def _choose(logits: NDArray[np.float32], seen: set[int], penalty: float) -> int:
    import numpy as np

    if penalty != 1.0:
        logits = logits.copy()
        ids = np.fromiter(seen, np.int64)
        logits[ids] = np.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
    return int(logits.argmax())
