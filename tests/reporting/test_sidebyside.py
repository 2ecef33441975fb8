"""Two variants' answers as a page and in a terminal: what is the same, from where on they differ, who talks
longer."""

from __future__ import annotations

import pytest
from spoken import compared, four, said

from quantlab.comparison.answers import SideBySide
from quantlab.reporting.sidebyside import as_json, markdown, summary, terminal


@pytest.fixture(name="four")
def four_pairs() -> SideBySide:
    return four()


def test_the_summary_says_which_is_longer_and_how_many_reached_the_limit(four: SideBySide) -> None:
    same, parted, lengths, longer = summary(four)
    assert same == "1 of 4 answers are identical, token by token (greedy decoding)."
    assert parted == "Where they differ, the first other token is number 2 (median; 2 to 2)."
    assert "gguf-16 2.2, gguf-2 3.2" in lengths and "cut off 1 of gguf-16 and 2 of gguf-2" in lengths
    assert longer.startswith(
        "gguf-2 gives the longer answer on 2 of the 3 prompts where it can be told, the other on 0 (sign test, p = 0.5, "
    )
    assert longer.endswith("On 1 both were cut off.")


def test_the_summary_of_equal_answers_names_no_talker() -> None:
    same, lengths, longer = summary(compared([said("a", 1)], [said("a", 1)]))
    assert (
        same.startswith("1 of 1")
        and "cut off no answer" in lengths
        and longer.startswith("Neither gives longer answers")
    )
    cut = [said("a", 1, ended=False)]
    assert summary(compared(cut, cut))[-1].startswith("Unknown which gives longer answers")


def test_the_page_marks_words_and_takes_their_signs_literally(four: SideBySide) -> None:
    text = markdown(four)
    assert all(f"- {line}" in text for line in summary(four))
    assert "differ from token 2 on, 2 and 3 tokens" in text and "1 and 4 (cut off) tokens" in text
    assert "~~\\*b\\*~~" in text and "**c d**" in text and "## q \\<b\\>" in text


def test_the_terminal_says_the_same_in_colours(
    four: SideBySide, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    terminal(four)
    plain = capsys.readouterr().out
    assert all(line in plain for line in summary(four)) and "a *b*c d" in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal(four)
    assert "\x1b[9;31m*b*" in capsys.readouterr().out  # red and struck out is what only the first says


def test_the_json_has_each_answers_tokens_and_end(four: SideBySide) -> None:
    about = as_json(four)
    assert (about["limit_tokens"], about["cut_off"], about["longer"]["unknown"]) == (4, [1, 2], 1)
    assert about["answers"][2] == {
        "prompt": "r",
        "first": "x",
        "second": "x y z w",
        "tokens": [1, 4],
        "ended": [True, False],
        "first_divergent_token": 1,
    }
