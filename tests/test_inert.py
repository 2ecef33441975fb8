"""Texts of others do nothing in a terminal, in markdown and in a plot, and lose nothing of what they say."""

from __future__ import annotations

import json
import re

import pytest
from markdown_it import MarkdownIt

from quantlab.inert import console, drawn, literal, markdown, plain, plain_json

HARMLESS = [
    "hub `Qwen/Qwen3.5-4B`, revision `abc`, 4,022,468,096 parameters",
    "**gguf-4** (105.5 MB, 61.3 % less than baseline-16)",
    "-1.0 [-6.0, 3.9]",
    "C:\\models\\mine, 50 % [95 %] (of 3) * 2 + 1 _x_ ~ #1 ! a&b",
]
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![i](http://evil.example/i.png)",
    "\\![i](http://evil.example/i.png)",
    "\\\\![i](http://evil.example/i.png) \\\\[a](javascript:x) \\\\<b>",
    "[c](javascript:alert(1))",
    "![r][r]\n\n[r]: http://evil.example/i.png",
    "<http://evil.example>",
    "`a <b>` ``<i>`` `![x](y)` ` <u> `` ` <s>",
    "\\`<b>` x `<i>\\`",
    "`a\\`<b>`",
    "<!-- x",
    "a | b \\| c \\\\| d `e | f` `g \\| h`",
    "# heading",
    "> quote",
    "- item",
    "1. item",
    "```\ncode",
    "~~~ code",
    "---",
    "a\n===",
    "&lt;b&gt; &#60;i&#62; &amp;",
    "]", "!", "`", "\\", "<",
]  # fmt: skip


def _tokens(text: str) -> list[str]:
    flat = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text):
        flat += [token, *(token.children or [])]
    return [token.type for token in flat]


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays_byte_for_byte(text: str) -> None:
    assert markdown(text) == plain(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_it_acts_in_markdown(text: str) -> None:
    for made in (
        markdown(text),
        f"- **x**: {markdown(text)}",
        f"{markdown(text)} {markdown(text)}",
        literal(text).replace("\n", " "),
    ):
        found = _tokens(made)
        assert not {
            t
            for t in found
            if t.startswith(("html", "image", "link", "heading", "fence", "code_block", "hr"))
        }, made
        assert "<" not in made.replace("\\<", "")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_one_cell_and_says_what_the_text_says(text: str) -> None:
    table = (
        MarkdownIt("commonmark").enable("table").parse(f"| a | b |\n|---|---|\n| {markdown(text)} | last |\n")
    )
    cells = [token for token in table if token.type == "inline"]
    assert [cell.content for cell in (*cells[:2], cells[-1])] == ["a", "b", "last"] and len(cells) == 4
    said = "".join(child.content for child in cells[2].children or [])
    assert re.sub(r"[`\s]", "", said) == re.sub(r"[`\s]", "", text)


def test_what_a_terminal_would_act_on_is_shown() -> None:
    assert (
        plain("a\x1b[2Jb\x07\x9b\u202ec\ud800\r\nd\te\rf") == "a\\x1b[2Jb\\x07\\x9b\\u202ec\\ud800\nd\te\\rf"
    )
    assert plain("zażółć 👩\u200d🔬 中文 ± ×") == "zażółć 👩\u200d🔬 中文 ± ×"


def test_json_keeps_its_meaning() -> None:
    value = {"a": "\x1b \x7f \x9b \u202e \U000e0041 \ud800", "b": "中"}
    text = plain_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value and plain(text) == text and "中" in text


def test_rich_prints_neither_sequences_nor_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console(width=80).print("[link=http://evil.example]x[/link] \x1b]8;;http://evil.example")
    assert capsys.readouterr().out == "[link=http://evil.example]x[/link] \\x1b]8;;http://evil.example\n"


def test_a_plot_reads_no_mathematics() -> None:
    from matplotlib.cbook import is_math_text

    assert not is_math_text(drawn("$x^2$ \x1b")) and "\x1b" not in drawn("\x1b")
