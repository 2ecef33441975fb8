"""Where two texts part, by hand."""

from __future__ import annotations

from quantlab.analysis.textdiff import first_divergence, word_diff
from quantlab.generation import Answer
from quantlab.reporting.sidebyside import compare, markdown


def test_first_divergence() -> None:
    assert first_divergence([1, 2, 3], [1, 2, 3]) is None
    assert first_divergence([1, 2, 3], [1, 9, 3]) == 1
    assert first_divergence([1, 2], [1, 2, 3]) == 2 and first_divergence([], [1]) == 0


def test_both_texts_come_back_from_the_spans() -> None:
    first, second = "the cat sat on  the mat", "the dog sat on  the red mat\nnow"
    spans = word_diff(first, second)
    assert "".join(s.text for s in spans if s.kind != "second") == first
    assert "".join(s.text for s in spans if s.kind != "first") == second
    assert next(s.text for s in spans if s.kind == "first") == "cat "


def test_the_page_says_what_is_the_same_and_who_talks_longer() -> None:
    answers = [Answer("one two", (1, 2)), Answer("a *b*", (3, 4))], [Answer("one two", (1, 2)), Answer("a c d", (3, 5, 6))]
    found = compare("m", ("gguf-16", "gguf-2"), ["p", "q <b>"], *answers)
    assert found.identical == 0.5 and found.mean_tokens == (2.0, 2.5)
    text = markdown(found)
    assert "1 of 2 answers are identical" in text and "differ from token 2 on" in text
    assert "~~\\*b\\*~~" in text and "**c d**" in text and "q \\<b\\>" in text
    assert found.as_json()["answers"][1]["first_divergent_token"] == 1
