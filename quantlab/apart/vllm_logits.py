"""Get the logits of every position of a window over the whole vocabulary out of vLLM.

vLLM computes them where a request asks for the log-probabilities of its prompt, and they are taken there
(`vllm_inside.watch_logits`), step by step. They count only where they give the log-probabilities that vLLM
itself tells of the window's tokens. Otherwise vLLM is asked for the log-probabilities of the whole
vocabulary, which it gives as lists of numbers: exact too, but slow, and 40 times as large."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from quantlab.apart import vllm_inside
from quantlab.errors import CellFailure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BYTES_PER_LOGPROB = 160
"""Of vLLM's lists, at their peak: 143.9 measured with vLLM 0.32 on a CPU, and a tenth more."""
_NAMES = itertools.count(2 * 10**9)
"""vLLM reads the names of requests as numbers; those of `vllm_engine` are lower."""
_APART_NATS = 0.01
"""By which a log-probability may differ from vLLM's: some GPUs sum in another order."""


def window_logits(
    llm: Any, token_ids: NDArray[np.int64], vocabulary: int, free_bytes: int
) -> NDArray[np.float32]:
    """Logits, or log-probabilities, (length, vocabulary) of one window. Raises CellFailure where they cannot
    be had in so much memory."""
    ids = token_ids.tolist()
    if all(llm.collective_rpc(vllm_inside.watch_logits)):
        rows = _watched(llm, ids, vocabulary)
        llm.collective_rpc(vllm_inside.leave_logits)
        if rows is not None:
            return rows
    needed = len(ids) * vocabulary * BYTES_PER_LOGPROB
    if needed > free_bytes:
        raise CellFailure(
            "does_not_fit",
            f"vLLM gives the log-probabilities of {len(ids)} tokens over {vocabulary:,} words"
            f" in about {needed / 2**30:.0f} GiB of lists, {free_bytes / 2**30:.0f} GiB are free: use shorter"
            " windows or the transformers engine",
        )
    return _listed(llm, ids, vocabulary)


def _watched(llm: Any, ids: list[int], vocabulary: int) -> NDArray[np.float32] | None:
    """What the model gave for each position; None where that is not what vLLM says of the tokens."""
    import numpy as np
    from vllm import SamplingParams

    wanted = SamplingParams(
        temperature=0, max_tokens=1, ignore_eos=True, detokenize=False, prompt_logprobs=0, flat_logprobs=True
    )
    name = str(next(_NAMES))
    llm.llm_engine.add_request(name, {"prompt_token_ids": ids}, wanted)
    llm.collective_rpc(vllm_inside.take_logits)
    parts: list[NDArray[np.float32]] = []
    last: list[NDArray[np.float32]] = []
    told: Any = None
    while llm.llm_engine.has_unfinished_requests():
        made = llm.llm_engine.step()
        told = next((output.prompt_logprobs for output in made if output.request_id == name), told)
        # of a step the row that is sampled from comes first, then the rows of the prompt
        seen = llm.collective_rpc(vllm_inside.take_logits)[0]
        parts, last = parts + seen[1:], seen[:1] or last
    rows = np.concatenate([*parts, *last]) if last else np.zeros((0, 0), np.float32)
    if len(rows) != len(ids) or rows.shape[1] < vocabulary or told is None:
        return None
    rows = rows[:, :vocabulary]
    return rows if _agree(rows, ids, told) else None


def _agree(rows: NDArray[np.float32], ids: list[int], told: Any) -> bool:
    """Whether rows give each token but the first the log-probability that vLLM gave it."""
    import numpy as np

    for place in range(1, len(ids)):
        row = rows[place - 1].astype(np.float64)
        mine = row[ids[place]] - row.max() - np.log(np.exp(row - row.max()).sum())
        start, stop = told.start_indices[place], told.end_indices[place]
        theirs = dict(zip(told.token_ids[start:stop], told.logprobs[start:stop], strict=True))
        if not abs(mine - theirs.get(ids[place], np.inf)) < _APART_NATS:
            return False
    return True


def _listed(llm: Any, ids: list[int], vocabulary: int) -> NDArray[np.float32]:
    """vLLM's own log-probabilities of every word."""
    import numpy as np
    from vllm import SamplingParams

    wanted = SamplingParams(
        temperature=0,
        max_tokens=1,
        ignore_eos=True,
        detokenize=False,
        prompt_logprobs=-1,
        logprobs=-1,
        flat_logprobs=True,
    )
    [output] = llm.generate([{"prompt_token_ids": ids}], wanted, use_tqdm=False)
    rows = np.zeros((len(ids), vocabulary), np.float32)
    there = np.zeros(rows.shape, np.bool_)
    # entry i is of token i, so of the row before it
    _scatter(rows[:-1], there[:-1], output.prompt_logprobs, first=1)
    _scatter(rows[-1:], there[-1:], output.outputs[0].logprobs, first=0)
    if not there.all():
        raise CellFailure("unsupported", "vLLM left words of the vocabulary out of its log-probabilities")
    return rows


def _scatter(rows: NDArray[np.float32], there: NDArray[np.bool_], flat: Any, first: int) -> None:
    """Fill rows (positions, vocabulary) from vLLM's FlatLogprobs, whose entries from `first` on are the
    positions, and mark in `there` what was filled."""
    import numpy as np

    for row, (start, stop) in enumerate(
        zip(flat.start_indices[first:], flat.end_indices[first:], strict=True)
    ):
        words = np.asarray(flat.token_ids[start:stop])
        rows[row, words], there[row, words] = flat.logprobs[start:stop], True
