"""Scoring continuations with llama.cpp: the choices of one question share the tokens of their context."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from quantlab.gguf.library import Batch, Context

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_SEQUENCES = 256
"""llama.cpp's LLAMA_MAX_SEQ."""


class Choice(NamedTuple):
    """One continuation."""

    request: int
    """Index of the request."""
    inputs: list[int]
    """Its own input tokens: the continuation without its last token."""
    targets: list[int]


class Question(NamedTuple):
    """A context and the continuations that follow it."""

    context: tuple[int, ...]
    choices: list[Choice]

    @property
    def tokens(self) -> int:
        return len(self.context) + sum(len(choice.inputs) for choice in self.choices)


class Score(NamedTuple):
    """The log-probability in nats of one request's continuation, and whether greedy decoding would give it."""

    request: int
    log_probability: float
    greedy: bool


def questions(pairs: Iterable[tuple[Sequence[int], Sequence[int]]], max_length: int, share: bool) -> list[Question]:
    """Group (context, continuation) token ids by context, longest first.

    Cut from the left to `max_length` inputs as lm-eval's HFLM does: the last token is a target only. `share` False
    keeps each request on its own, for models whose state cannot belong to two sequences.
    """
    found: dict[tuple[tuple[int, ...], int], Question] = {}
    for index, (context, continuation) in enumerate(pairs):
        assert 0 < len(continuation) <= max_length and context, "a request has a context and a continuation that fits the model"
        inputs = [*context, *continuation][-(max_length + 1) :][:-1]
        shared = tuple(inputs[: len(inputs) - len(continuation) + 1])
        place = found.setdefault((shared, 0 if share else index), Question(shared, []))
        place.choices.append(Choice(index, inputs[len(shared) :], list(continuation)))
    return sorted(found.values(), key=lambda question: -question.tokens)


def packs(todo: Iterable[Question], tokens: int, sequences: int) -> Iterator[list[Question]]:
    """Questions for one pass: as many as fit into so many tokens and sequences, one at least."""
    pack: list[Question] = []
    for question in todo:
        full = (
            sum(q.tokens for q in pack) + question.tokens > tokens or sum(len(q.choices) for q in pack) + len(question.choices) > sequences
        )
        if pack and full:
            yield pack
            pack = []
        pack.append(question)
    if pack:
        yield pack


def score(context: Context, pack: Sequence[Question]) -> Iterator[Score]:
    """Score one pack from an empty cache. The context's cache is unified and holds the pack."""
    import numpy as np

    tokens: list[int] = []
    positions: list[int] = []
    owners: list[tuple[int, ...]] = []
    targets: list[list[tuple[int, int]]] = []  # of each token: (request, target)
    first = 0
    for question in pack:
        own = tuple(range(first, first + len(question.choices)))
        first += len(own)
        tokens += question.context
        positions += range(len(question.context))
        owners += [own] * len(question.context)
        targets += [[] for _ in question.context[1:]] + [[(c.request, c.targets[0]) for c in question.choices]]
        for sequence, choice in zip(own, question.choices, strict=True):
            tokens += choice.inputs
            positions += range(len(question.context), len(question.context) + len(choice.inputs))
            owners += [(sequence,)] * len(choice.inputs)
            targets += [[(choice.request, target)] for target in choice.targets[1:]]
    sums = {choice.request: 0.0 for question in pack for choice in question.choices}
    greedy = dict.fromkeys(sums, True)
    context.clear()
    for part in (slice(i, i + context.batch) for i in range(0, len(tokens), context.batch)):
        wanted = [bool(t) for t in targets[part]]
        rows = context.run(Batch(tokens[part], positions[part], owners[part], wanted))
        for row, goals in zip(_with_normalizers(rows), filter(None, targets[part]), strict=True):
            for index, target in goals:
                sums[index] += float(row.logits[target]) - row.normalizer
                greedy[index] &= int(np.argmax(row.logits)) == target
    for index, total in sums.items():
        yield Score(index, total, greedy[index])


class _Row(NamedTuple):
    logits: NDArray[np.float32]
    normalizer: float


def _with_normalizers(rows: NDArray[np.float32]) -> Iterator[_Row]:
    """Each row with the logarithm of the sum of its exponentials, summed in float64."""
    import numpy as np

    for row in rows:
        top = float(row.max())
        yield _Row(row, top + float(np.log(np.exp(row - top).sum(dtype=np.float64))))
