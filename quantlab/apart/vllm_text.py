"""Score and continue texts in vLLM; texts come and go as token ids, several in one array."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.errors import CellFailure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Scores(NamedTuple):
    """Of the scored end of each text."""

    sums: NDArray[np.float64]
    """Log-probabilities, added up, in nats."""
    greedy: NDArray[np.bool_]
    """Whether every scored token was the likeliest."""


class Answers(NamedTuple):
    """Of each prompt."""

    ids: NDArray[np.int64]
    """All answers, one after the other."""
    lengths: NDArray[np.int64]
    cut: NDArray[np.bool_]
    """Whether the limit on tokens ended it."""


def score(llm: Any, texts: list[list[int]], scored: list[int]) -> Scores:
    """Score the last `scored` tokens of each text, given those before."""
    import numpy as np
    from vllm import SamplingParams

    wanted = SamplingParams(
        temperature=0,
        max_tokens=1,
        ignore_eos=True,
        detokenize=False,
        prompt_logprobs=1,
        flat_logprobs=True,
    )
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in texts], wanted, use_tqdm=False)
    sums, greedy = [], []
    for output, ids, count in zip(outputs, texts, scored, strict=True):
        flat, total, likeliest = output.prompt_logprobs, 0.0, True
        for place in range(len(ids) - count, len(ids)):
            start, stop = flat.start_indices[place], flat.end_indices[place]
            values = dict(zip(flat.token_ids[start:stop], flat.logprobs[start:stop], strict=True))
            total += values[ids[place]]
            likeliest = likeliest and values[ids[place]] >= max(values.values())
        sums.append(total)
        greedy.append(likeliest)
    return Scores(np.array(sums, np.float64), np.array(greedy, np.bool_))


def answer(llm: Any, prompts: list[list[int]], limit: int, stop: list[str]) -> Answers:
    """Continue each prompt greedily by at most `limit` tokens, an end token included; a stop string ends it,
    too."""
    import numpy as np
    from vllm import SamplingParams

    wanted = SamplingParams(
        temperature=0, max_tokens=limit, stop=stop or None, detokenize=bool(stop), logprobs=0
    )
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], wanted, use_tqdm=False)
    made = [output.outputs[0] for output in outputs]
    for one in made:
        require_finite(one)
    ids = [list(one.token_ids) for one in made]
    return Answers(
        np.array([token for answer in ids for token in answer], np.int64),
        np.array([len(answer) for answer in ids], np.int64),
        np.array([one.finish_reason == "length" for one in made], np.bool_),
    )


def require_finite(one: Any) -> None:
    """Raise CellFailure where the log-probability of an answer is no number: vLLM chooses a token all the
    same."""
    nats = getattr(one, "cumulative_logprob", None)
    if nats is not None and not math.isfinite(nats):
        raise CellFailure("broken_checkpoint", "the log-probability of an answer is not finite")


def split(ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[list[int]]:
    """Take one array of several texts apart."""
    ends = lengths.cumsum().tolist()
    return [ids[end - length : end].tolist() for end, length in zip(ends, lengths.tolist(), strict=True)]
