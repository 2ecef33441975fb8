"""Tokens computed once for several questions give what each question gives alone, whatever the architecture
attends to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_gguf

from quantlab.engines._llama.library import Batch, Context, Model
from quantlab.engines._llama.score import Scorer, packs, questions

pytestmark = pytest.mark.slow
Pairs = list[tuple[list[int], list[int]]]


@pytest.fixture(params=["llama", "cohere2", "mamba"])
def model(request: pytest.FixtureRequest, prepared: Path, tmp_path: Path) -> Any:
    file = prepared / "f16.gguf"
    found = Model(
        file if request.param == "llama" else tiny_gguf.write(file, tmp_path / "model.gguf", request.param)
    )
    assert (found.recurrent, found.sliding_window) == (
        request.param == "mamba",
        16 if request.param == "cohere2" else 0,
    )
    yield found
    found.close()


@pytest.fixture
def few_shot() -> Pairs:
    """Two subjects of questions after 70 common tokens each, two choices a question; some contexts begin
    others."""
    random = np.random.default_rng(1)

    def some(n: int) -> list[int]:
        return random.integers(3, 300, n).tolist()  # type: ignore[no-any-return]

    found: Pairs = []
    for _ in range(2):
        examples = some(70)
        for length in (5, 12, 30, 9, 1):
            context = examples + some(length)
            found += [(context, some(n)) for n in (1, 4)]
        found.append((examples, some(3)))
    return found


class Counted(Context):
    """Counts the tokens that are computed."""

    tokens = 0

    def run(self, batch: Batch) -> Any:
        self.tokens += len(batch.tokens)
        return super().run(batch)


def scores(context: Context, pairs: Pairs, together: int, sequences: int) -> list[tuple[float, bool]]:
    """So many requests per call; every call's packs through one scorer."""
    scorer, found = Scorer(context), []
    for begin in range(0, len(pairs), together):
        todo = questions(pairs[begin : begin + together], 256, scorer.shares)
        answers = {
            s.request: s for pack in packs(todo, 512, sequences, scorer.shares) for s in scorer.score(pack)
        }
        found += [(answers[i].log_probability, answers[i].greedy) for i in range(len(answers))]
    return found


@pytest.mark.parametrize(
    ("together", "sequences", "ubatch"), [(22, 8, 512), (22, 4, 512), (6, 4, 512), (22, 22, 32)]
)
def test_shared_tokens_change_no_score(
    model: Model, few_shot: Pairs, together: int, sequences: int, ubatch: int
) -> None:
    alone, shared = (Counted(model, 1024, ubatch, ubatch, 23, unified=True) for _ in range(2))
    expected = scores(alone, few_shot, 1, 1)
    found = scores(shared, few_shot, together, sequences)
    np.testing.assert_allclose([value for value, _ in found], [value for value, _ in expected], atol=2e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    whole = sum(len(context) + len(continuation) - 1 for context, continuation in few_shot)
    if model.recurrent:
        assert shared.tokens == whole
    elif model.sliding_window:
        assert shared.tokens < whole
    else:  # every common token once, in each call at the most
        assert shared.tokens < whole / 3
    for context in (alone, shared):
        context.close()


def test_the_next_call_goes_on_from_the_last_ones_examples(prepared: Path, few_shot: Pairs) -> None:
    model = Model(prepared / "f16.gguf")
    context = Counted(model, 1024, 512, 512, 9, unified=True)
    scores(context, few_shot[:4], 2, 8)
    assert context.tokens == 70 + (5 + 3) + (12 + 3)
    context.close()
    model.close()


def test_a_call_that_failed_leaves_nothing_to_go_on_from(
    prepared: Path, few_shot: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(prepared / "f16.gguf")
    context = Context(model, 1024, 512, 512, 9, unified=True)
    scorer, todo = Scorer(context), questions(few_shot[:2], 256, share=True)
    expected = scorer.score(todo)
    with monkeypatch.context() as broken:
        broken.setattr(context, "run", _fails)
        with pytest.raises(RuntimeError):
            scorer.score(todo)
    again = scorer.score(todo)
    np.testing.assert_allclose(
        [s.log_probability for s in again], [s.log_probability for s in expected], atol=2e-3
    )
    context.close()
    model.close()


def _fails(batch: Batch) -> None:
    raise RuntimeError
