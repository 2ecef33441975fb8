"""Ask vLLM for the log-probabilities of every position of a window over the whole vocabulary.

vLLM gives them as lists of numbers, which is slow and takes much memory; they are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.errors import CellFailure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def window_logits(llm: Any, token_ids: NDArray[np.int64], vocabulary: int) -> NDArray[np.float32]:
    """Log-probabilities (length, vocabulary) of one window. Raises CellFailure where they cannot be had."""
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
    [output] = llm.generate([{"prompt_token_ids": token_ids.tolist()}], wanted, use_tqdm=False)
    rows = np.zeros((len(token_ids), vocabulary), np.float32)
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
