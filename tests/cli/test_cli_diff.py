"""quantlab diff: its files, its JSON, what it refuses; the answers themselves are tests/gguf's and
tests/engines' business."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantlab.evaluation.generation import GeneratedAnswer
from quantlab.workspace.checkpoint import Manifest, list_files, write_manifest


@pytest.fixture
def checkpoints(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two variants of the workspace's model, and what they say to any prompt."""
    for slug, method, bits in (("gguf-16", "gguf", 16), ("gguf-2", "gguf", 2)):
        folder = workspace / "checkpoints" / "tiny" / slug
        folder.mkdir(parents=True)
        (folder / "model.gguf").write_bytes(slug.encode())
        write_manifest(
            folder,
            Manifest(
                model="tiny", variant=slug, method=method, bits=bits, format="gguf", files=list_files(folder)
            ),
        )

    def generate(
        cell: Any, device: Any, prompts: list[str], tokens: int, progress: Any
    ) -> list[GeneratedAnswer]:
        worse = cell.variant.bits == 2
        return [
            GeneratedAnswer(
                f"the {'dog' if worse else 'cat'}", (1, 3, *range(tokens - 2)) if worse else (1, 2), not worse
            )
            for _ in prompts
        ]

    monkeypatch.setattr("quantlab.evaluation.generation.generate", generate)
    return workspace


def test_a_page_is_written_and_the_terminal_says_the_same(
    checkpoints: Path, quantlab: Callable[..., Any]
) -> None:
    result = quantlab("diff", "tiny", "gguf-16", "gguf-2", "--tokens", "8", "--device", "cpu")
    assert result.exit_code == 0, result.output
    page = checkpoints / "reports" / "tiny" / "diff" / "gguf-16--gguf-2.md"
    text = page.read_text()
    assert (
        text.startswith("# tiny: gguf-16 against gguf-2")
        and "~~cat~~**dog**" in text
        and "2 and 8 (cut off) tokens" in text
    )
    flat = " ".join(result.output.split())
    assert (
        "gguf-2 gives the longer answer" in flat
        and "gguf-2 gives the longer answer" in text
        and result.output.rstrip().endswith(str(page))
    )


def test_the_json_is_what_the_help_says(checkpoints: Path, quantlab: Callable[..., Any]) -> None:
    (checkpoints / "mine.jsonl").write_text('{"prompt": "why?"}\n')
    result = quantlab(
        "diff",
        "tiny",
        "gguf-16",
        "gguf-2",
        "--prompts",
        "mine.jsonl",
        "--tokens",
        "5",
        "--device",
        "cpu",
        "--json",
    )
    found = json.loads(result.stdout)
    keys = [
        "model",
        "first",
        "second",
        "limit_tokens",
        "identical",
        "mean_tokens",
        "cut_off",
        "longer",
        "answers",
        "report",
    ]
    assert list(found) == keys and found["mean_tokens"] == [2, 5] and found["cut_off"] == [0, 1]
    assert [(a["prompt"], a["first_divergent_token"]) for a in found["answers"]] == [("why?", 1)]
    said = quantlab("diff", "--help").output
    assert all(f'"{key}"' in said for key in keys)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("tiny", "gguf-16", "gguf-3"), "gguf-3"),
        (("tiny", "gguf-16", "gguf-2", "--prompts", "empty.txt"), "is empty"),
        (
            ("tiny", "gguf-16", "gguf-2", "--prompts", "broken.jsonl"),
            "broken.jsonl, line 1, line 1: it is not JSON",
        ),
        (("tinny", "gguf-16", "gguf-2"), "tinny"),
    ],
)
def test_misuse_is_one_line(
    arguments: tuple[str, ...], reason: str, checkpoints: Path, refused: Callable[..., str]
) -> None:
    (checkpoints / "empty.txt").write_text("\n")
    (checkpoints / "broken.jsonl").write_text("why?\n")
    assert reason in refused("diff", *arguments, "--device", "cpu")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("deep.jsonl", b"[" * 100_000 + b"]" * 100_000, "more than 64 deep"),
        ("deep.jsonl", b'{"prompt": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "more than 64 deep"),
        ("list.jsonl", b'["why?"]', "holds no JSON object"),
        ("number.jsonl", b'{"prompt": "why?"}\n{"prompt": 5}', "line 2 has no prompt, but 5"),
        ("null.jsonl", b'{"prompt": null}', "has no prompt, but None"),
        ("none.jsonl", b'{"text": "why?"}', "has no prompt"),
        ("blank.jsonl", b'{"prompt": " "}', "has no prompt"),
        ("digits.jsonl", b'{"prompt": ' + b"9" * 5000 + b"}", "is too large"),
        ("half.jsonl", b'{"prompt": "\\ud800"}', "half of a surrogate pair"),
        ("binary.txt", b"\xff\xfe\x00", "is not UTF-8"),
        ("nul.txt", b"why\x00?", "NUL"),
        ("large.txt", b"why?\n" * (4 * 2**20), "is too large"),
    ],
)
def test_a_file_of_prompts_that_is_none_is_one_line(
    name: str, content: bytes, reason: str, checkpoints: Path, refused: Callable[..., str]
) -> None:
    (checkpoints / name).write_bytes(content)
    assert reason in refused("diff", "tiny", "gguf-16", "gguf-2", "--prompts", name, "--device", "cpu")
