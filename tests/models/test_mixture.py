"""Calibration windows from several texts with their shares, kept apart from the evaluation text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantlab.errors import QuantlabError
from quantlab.models.mixture import calibration_windows, interleaved, require_apart
from quantlab.models.text import windows
from quantlab.recipe import CalibrationSpec, TextSpec

WORDS = [f"w{n}" for n in range(4000)]


class Tokenizer:
    """One id per word, and a chat template that says who speaks."""

    bos_token_id = None
    chat_template = "there"

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [int(word.removeprefix("w")) for word in text.split() if word != "a"]

    def apply_chat_template(self, talk: list[dict[str, str]], tokenize: bool) -> str:
        roles = {"user": "w3998", "assistant": "w3999"}
        return " ".join(f"{roles[m['role']]} {m['content']} " for m in talk)


class WithoutTemplate(Tokenizer):
    chat_template = None  # type: ignore[assignment]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.txt", "b.txt", "c.txt")):
        (tmp_path / name).write_text(" ".join(WORDS[number * 1000 : number * 1000 + 1000]))
    talk = [
        {"role": "user", "content": "w1 w2"},
        {"role": "assistant", "content": " ".join(WORDS[3000:3060])},
    ]
    (tmp_path / "talks.jsonl").write_text(json.dumps({"messages": talk}) + "\n\n")
    return tmp_path


def spec(count: int = 10, **said: Any) -> CalibrationSpec:
    return CalibrationSpec.model_validate({"windows": count, "length": 20} | said)


def test_every_text_has_its_share_and_so_has_every_beginning(texts: Path) -> None:
    mix = [{"text": "a.txt", "share": 0.7}, {"text": "b.txt", "share": 0.3}]
    mixed = interleaved(calibration_windows(spec(mix=mix), Tokenizer(), texts))
    assert mixed.token_ids.shape == (10, 20)
    of_b = mixed.token_ids[:, 0] >= 1000
    assert of_b.sum() == 3 and of_b[:5].sum() in (1, 2)
    assert mixed.provenance.startswith("7 of 10 windows: a.txt, sha256 ")


def test_one_text_alone_gives_the_windows_that_it_gave(texts: Path) -> None:
    found = interleaved(calibration_windows(spec(text="a.txt"), Tokenizer(), texts))
    assert np.array_equal(found.token_ids, np.arange(200).reshape(10, 20))
    before = windows(TextSpec(text="a.txt", windows=10, length=20), "calibration", Tokenizer(), texts)
    assert np.array_equal(found.token_ids, before.token_ids) and found.provenance == before.provenance


def test_messages_go_through_the_chat_template(texts: Path) -> None:
    (found,) = calibration_windows(spec(3, text="talks.jsonl", chat_template=True), Tokenizer(), texts)
    assert found.token_ids[0, :6].tolist() == [3998, 1, 2, 3999, 3000, 3001]
    assert found.provenance == "talks.jsonl, through the chat template"


def test_passages_of_a_text_are_what_a_user_says(texts: Path) -> None:
    (texts / "d.txt").write_text("\n\n".join(f"w{n} w{n + 1}" for n in range(100)))
    (found,) = calibration_windows(spec(2, text="d.txt", chat_template=True), Tokenizer(), texts)
    assert found.token_ids[0, :6].tolist() == [3998, 0, 1, 3998, 1, 2]


def test_a_template_that_is_not_there_is_refused(texts: Path) -> None:
    with pytest.raises(QuantlabError, match="no chat template"):
        calibration_windows(spec(text="a.txt", chat_template=True), WithoutTemplate(), texts)


def test_a_line_that_is_no_talk_is_named(texts: Path) -> None:
    (texts / "talks.jsonl").write_text('{"text": "w1"}\n{"prompt": "w2"}\n')
    with pytest.raises(QuantlabError, match=r"talks\.jsonl, line 2: write a JSON object with `text`"):
        calibration_windows(spec(text="talks.jsonl"), Tokenizer(), texts)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"mix": [{"share": 0.5}, {"text": "a.txt", "share": 0.4}]}, r"sum up to 0\.9: make it 1"),
        ({"text": "a.txt", "mix": [{"share": 1}]}, "mix names texts"),
        ({"mix": [{"share": 0}]}, "greater than 0"),
    ],
    ids=["shares", "both", "nothing"],
)
def test_a_mixture_that_is_not_one_is_refused(said: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        spec(**said)


def test_a_share_below_one_window_is_refused(texts: Path) -> None:
    mix = [{"text": "a.txt", "share": 0.99}, {"text": "b.txt", "share": 0.01}]
    with pytest.raises(QuantlabError, match=r"a share of 0\.01 of 10 windows is less than one"):
        calibration_windows(spec(mix=mix), Tokenizer(), texts)


def test_a_text_that_is_evaluated_on_is_refused_by_its_name(texts: Path) -> None:
    """Whole, or a part of it, wherever it stands in the windows; the text that is apart is not blamed."""
    tokenizer = Tokenizer()
    (texts / "e.txt").write_text(" ".join([*WORDS[2000:2300], *WORDS[1003:1063]]))
    evaluation = windows(TextSpec(text="e.txt", windows=18, length=20), "evaluation", tokenizer, texts)
    mix = [{"text": "a.txt", "share": 0.5}, {"text": "b.txt", "share": 0.5}]
    with pytest.raises(QuantlabError, match=r"of the evaluation text's runs of 16 tokens.*b\.txt"):
        require_apart(calibration_windows(spec(mix=mix), tokenizer, texts), evaluation)
    require_apart(calibration_windows(spec(text="a.txt"), tokenizer, texts), evaluation)
