"""How requests become questions and packs: no model."""

from __future__ import annotations

import pytest

from quantlab.engines._llama.score import Question, packs, questions, tree
from quantlab.errors import CellFailure


def test_the_choices_of_a_context_share_it() -> None:
    (one,) = questions([([1, 2, 3], [4, 5]), ([1, 2, 3], [6])], max_length=10, share=True)
    assert one.context == (1, 2, 3) and one.tokens == 4
    assert [(c.request, c.inputs, c.targets) for c in one.choices] == [(0, [4], [4, 5]), (1, [], [6])]


def test_without_sharing_each_request_stands_alone() -> None:
    found = questions([([1, 2], [4]), ([1, 2], [5])], max_length=10, share=False)
    assert [len(q.choices) for q in found] == [1, 1] and sorted(q.choices[0].request for q in found) == [0, 1]


def test_a_long_request_is_cut_from_the_left_and_keeps_its_targets() -> None:
    (one,) = questions([([1, 2, 3, 4, 5], [6, 7])], max_length=4, share=True)
    assert one.context == (3, 4, 5) and one.choices[0].inputs == [6] and one.choices[0].targets == [6, 7]
    (whole,) = questions([([1], [2, 3, 4, 5])], max_length=4, share=True)
    assert whole.context == (1,) and whole.choices[0].inputs == [2, 3, 4]


def test_packs_hold_what_fits_in_the_order_of_their_tokens_and_every_question_once() -> None:
    todo = questions([([n, *range(8)], [7]) for n in (3, 9, 5, 2)], max_length=100, share=True)
    assert [q.context[0] for q in todo] == [2, 3, 5, 9]
    found = list(packs(todo, tokens=20, sequences=8))
    assert [[q.context[0] for q in pack] for pack in found] == [[2, 3], [5, 9]]
    assert [len(pack) for pack in packs(todo, tokens=100, sequences=3)] == [3, 1]
    assert list(packs([Question((1,) * 50, [])], tokens=10, sequences=1)) == [[Question((1,) * 50, [])]]


def test_common_tokens_take_room_once() -> None:
    todo = questions([([*range(50), n], [7]) for n in (90, 91, 92)], max_length=100, share=True)
    assert [len(pack) for pack in packs(todo, tokens=53, sequences=8)] == [3]
    assert [len(pack) for pack in packs(todo, tokens=53, sequences=8, share=False)] == [1, 1, 1]


def test_a_pack_is_a_tree_whose_tokens_belong_to_all_that_begin_with_them() -> None:
    todo = questions(
        [([1, 2, 3], [4, 5]), ([1, 2, 3], [6]), ([1, 2, 8], [9]), ([1], [7])], max_length=10, share=True
    )
    made = tree(todo, held=(), share=True)
    assert made.tokens == [1, 2, 3, 4, 8] and made.positions == [0, 1, 2, 3, 2]
    assert made.owners == [[1, 2, 3, 4], [2, 3, 4], [2, 3], [2], [4]]
    assert made.targets == [[(3, 7)], [], [(0, 4), (1, 6)], [(0, 5)], [(2, 9)]]


def test_what_the_cache_holds_is_not_computed_again_but_for_a_contexts_last_token() -> None:
    todo = questions([([1, 2, 3], [4]), ([1, 2, 8], [9]), ([6, 2], [5])], max_length=10, share=True)
    made = tree(todo, held=(1, 2, 3, 9), share=True)
    assert (
        made.tokens == [3, 8, 6, 2] and made.positions == [2, 2, 0, 1] and made.owners == [[1], [2], [3], [3]]
    )


def test_a_continuation_that_no_context_fits_is_named() -> None:
    with pytest.raises(
        CellFailure, match=r"request 2 has 1 tokens of context and 5 of continuation.* 4, can be scored"
    ) as raised:
        questions([([1], [2]), ([1], [2, 3, 4, 5, 6])], max_length=4, share=True)
    assert raised.value.kind == "unsupported"
