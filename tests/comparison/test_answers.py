"""Two variants' answers: what is the same, from where on they differ, which is longer."""

from __future__ import annotations

import pytest
from spoken import compared, four, said

from quantlab.comparison.answers import SideBySide


@pytest.fixture(name="four")
def four_pairs() -> SideBySide:
    return four()


def test_the_generated_tokens_say_what_is_the_same_and_where_it_differs(four: SideBySide) -> None:
    assert four.identical == 0.25 and [pair.divergent for pair in four.pairs] == [None, 1, 1, 1]
    retokenized = compared(
        [said("no", 1, 2)], [said("no", 3)]
    )  # the same text by other tokens is no identical answer
    assert retokenized.identical == 0 and retokenized.pairs[0].divergent == 0


def test_a_cut_off_answer_is_longer_than_one_that_ended_and_two_cannot_be_told_apart(
    four: SideBySide,
) -> None:
    assert [pair.longer for pair in four.pairs] == ["same", "second", "second", "unknown"]
    assert four.cut == (1, 2) and four.mean_tokens == (2.25, 3.25)
    assert four.longer == {"first": 0, "second": 2, "same": 1, "unknown": 1}
