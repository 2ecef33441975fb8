"""How requests become questions and packs: no model."""

from __future__ import annotations

from quantlab.engines._llama_score import Question, packs, questions


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


def test_packs_hold_what_fits_longest_first_and_every_question_once() -> None:
    todo = questions([(list(range(n)), [7]) for n in (3, 9, 5, 2)], max_length=100, share=True)
    assert [q.tokens for q in todo] == [9, 5, 3, 2]
    found = list(packs(todo, tokens=10, sequences=8))
    assert [[q.tokens for q in pack] for pack in found] == [[9], [5, 3, 2]]
    assert [len(pack) for pack in packs(todo, tokens=100, sequences=2)] == [2, 2]
    assert list(packs([Question((1,) * 50, [])], tokens=10, sequences=1)) == [[Question((1,) * 50, [])]]
