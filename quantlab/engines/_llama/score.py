"""Score continuations with llama.cpp, computing common beginnings of questions once.

Within a pass a token belongs to every sequence that begins with it, so that questions and their choices form
a tree. From pass to pass the last question's context stays in the cache for what the next ones share with it:
the examples of a few-shot task are computed once, not once a question. Not where llama.cpp cannot take a
state back to an earlier token: recurrent models share nothing, and with sliding-window attention nothing
stays from pass to pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from quantlab.engines._llama.library import Batch, Context
from quantlab.errors import CellFailure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_CHOICES = 255
"""llama.cpp's LLAMA_MAX_SEQ of 256, less the sequence that holds the last context."""
_HELD = 0


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
    """The log-probability in nats of one request's continuation, and whether greedy decoding would give
    it."""

    request: int
    log_probability: float
    greedy: bool


def questions(
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]], max_length: int, share: bool
) -> list[Question]:
    """Group (context, continuation) token ids by context, in the order of the contexts' tokens: neighbours
    share most.

    Cut from the left to `max_length` inputs as lm-eval's HFLM does: the last token is a target only. `share`
    False keeps each request on its own, for models whose state cannot belong to two sequences. Raises
    CellFailure for a continuation that does not fit at all."""
    questions: dict[tuple[tuple[int, ...], int], Question] = {}
    for index, (context, continuation) in enumerate(pairs):
        if not 0 < len(continuation) <= max_length or not context:
            raise CellFailure(
                "unsupported",
                f"request {index + 1} has {len(context)} tokens of context and {len(continuation)} of"
                " continuation: one of each at the least, and a continuation that fits the model's"
                f" {max_length}, can be scored",
            )
        inputs = [*context, *continuation][-(max_length + 1) :][:-1]
        shared = tuple(inputs[: len(inputs) - len(continuation) + 1])
        place = questions.setdefault((shared, 0 if share else index), Question(shared, []))
        place.choices.append(Choice(index, inputs[len(shared) :], list(continuation)))
    return sorted(questions.values(), key=lambda question: question.context)


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def packs(
    todo: Iterable[Question], tokens: int, sequences: int, share: bool = True
) -> Iterator[list[Question]]:
    """Questions for one pass: as many as fit into so many new tokens and sequences, one at least.

    `share` says that tokens which a question has in common with the one before it in its pack are not new.
    """
    pack: list[Question] = []
    used = choices = 0
    for question in todo:
        new = question.tokens - (common(pack[-1].context, question.context) if pack and share else 0)
        if pack and (used + new > tokens or choices + len(question.choices) > sequences):
            yield pack
            pack, used, choices, new = [], 0, 0, question.tokens
        pack.append(question)
        used, choices = used + new, choices + len(question.choices)
    if pack:
        yield pack


class Tree(NamedTuple):
    """A pack's new tokens, each once, parents first: what `Batch` wants, and the (request, target)s of each
    token."""

    tokens: list[int]
    positions: list[int]
    owners: list[list[int]]
    targets: list[list[tuple[int, int]]]

    def add(self, token: int, position: int, own: Sequence[int]) -> int:
        """A new token's index."""
        self.tokens.append(token)
        self.positions.append(position)
        self.owners.append(list(own))
        self.targets.append([])
        return len(self.tokens) - 1


def kept(question: Question, held: Sequence[int]) -> int:
    """How many tokens of the cache's sequence a question begins with; its last token is always new, for its
    logits."""
    return min(common(held, question.context), len(question.context) - 1)


def tree(pack: Sequence[Question], held: Sequence[int], share: bool) -> Tree:
    """Lay a pack out. Its choices are the sequences from `_HELD` + 1 on, in order."""
    made = Tree([], [], [], [])
    path: list[int] = []  # of the last question: the indices of its context's tokens that are not held
    before: tuple[int, ...] = ()
    sequence = _HELD + 1
    for question in pack:
        own = range(sequence, sequence + len(question.choices))
        sequence += len(question.choices)
        start = kept(question, held)
        path = path[: max(0, common(before, question.context) - start)] if share else []
        for node in path:
            made.owners[node] += own
        path += [
            made.add(question.context[i], i, own) for i in range(start + len(path), len(question.context))
        ]
        before = question.context
        made.targets[path[-1]] += [(choice.request, choice.targets[0]) for choice in question.choices]
        for owner, choice in zip(own, question.choices, strict=True):
            for i, (token, target) in enumerate(zip(choice.inputs, choice.targets[1:], strict=True)):
                made.targets[made.add(token, len(question.context) + i, [owner])].append(
                    (choice.request, target)
                )
    return made


class Scorer:
    """Scores packs in one context, whose cache is unified and holds the longest context beside a pack."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.shares = not context.model.recurrent
        self._keeps = self.shares and not context.model.sliding_window
        self._held: tuple[int, ...] = ()

    def score(self, pack: Sequence[Question]) -> list[Score]:
        """Every choice's score. Raises CellFailure where llama.cpp fails."""
        held, self._held = self._held, ()
        if not held:
            self.context.clear()
        made = tree(pack, held, self.shares)
        last = self._begin(pack, held)
        scores = self._run(made, [choice.request for question in pack for choice in question.choices])
        if self._keeps:
            self._hold(pack[-1], last)
        return scores

    def _begin(self, pack: Sequence[Question], held: Sequence[int]) -> int:
        """Let each choice's sequence begin with what the cache holds of it; the last question's first
        sequence."""
        first = sequence = _HELD + 1
        for question in pack:
            first = sequence
            for _ in question.choices:
                if held:
                    self.context.copy(_HELD, sequence, kept(question, held))
                sequence += 1
        if held:
            self.context.forget(_HELD)
        return first

    def _hold(self, question: Question, sequence: int) -> None:
        """Keep a context's tokens and nothing else."""
        self.context.copy(sequence, _HELD, len(question.context))
        for other in range(_HELD + 1, sequence + len(question.choices)):
            self.context.forget(other)
        self._held = question.context

    def _run(self, made: Tree, requests: Sequence[int]) -> list[Score]:
        import numpy as np

        sums, greedy = dict.fromkeys(requests, 0.0), dict.fromkeys(requests, True)
        size = self.context.batch
        for part in (slice(i, i + size) for i in range(0, len(made.tokens), size)):
            goals = made.targets[part]
            rows = self.context.run(
                Batch(made.tokens[part], made.positions[part], made.owners[part], [bool(g) for g in goals])
            )
            for row, wanted in zip(_with_normalizers(rows), filter(None, goals), strict=True):
                best = int(np.argmax(row.logits))
                for request, target in wanted:
                    sums[request] += float(row.logits[target]) - row.normalizer
                    greedy[request] &= best == target
        return [Score(request, sums[request], greedy[request]) for request in requests]


class _Row(NamedTuple):
    logits: NDArray[np.float32]
    normalizer: float


def _with_normalizers(rows: NDArray[np.float32]) -> Iterator[_Row]:
    """Each row with the logarithm of the sum of its exponentials, summed in float64."""
    import numpy as np

    for row in rows:
        top = float(row.max())
        yield _Row(row, top + float(np.log(np.exp(row - top).sum(dtype=np.float64))))
