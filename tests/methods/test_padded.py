"""An embedding that is padded beyond the tokenizer gets tokens for its rows, so that llama.cpp loads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hand_made_gguf import TOKENS, tensors, write_tiny_gguf

from quantlab.methods._gguf import converter
from quantlab.methods._gguf._child import Ended
from quantlab.methods._gguf.padded import rows_without_token

PADDING = 24


def test_rows_without_a_token_are_counted(tmp_path: Path) -> None:
    assert not rows_without_token(write_tiny_gguf(tmp_path / "whole.gguf", tensors()))
    weights = tensors()
    weights["token_embd.weight"] = np.pad(weights["token_embd.weight"], ((0, PADDING), (0, 0)))
    rows = rows_without_token(write_tiny_gguf(tmp_path / "padded.gguf", weights))
    assert rows == range(len(TOKENS), len(TOKENS) + PADDING)


@pytest.mark.parametrize("padding", [0, PADDING])
def test_the_converter_runs_again_with_a_token_for_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding: int
) -> None:
    """The converter writes as many tokens as the folder's tokenizer.json has."""
    source = tmp_path / "model"
    source.mkdir()
    (source / "tokenizer.json").write_text(json.dumps({"added_tokens": []}))
    (source / "config.json").write_text("{}")
    seen: list[list[int]] = []

    def run(scripts: Path, given: Path, target: Path, log: Path, outtype: str, more: list[str]) -> Ended:
        added = json.loads((given / "tokenizer.json").read_text())["added_tokens"]
        seen.append([token["id"] for token in added])
        weights = tensors()
        extra = padding - len(added)
        weights["token_embd.weight"] = np.pad(weights["token_embd.weight"], ((0, extra), (0, 0)))
        write_tiny_gguf(target, weights)
        return Ended(0, "")

    monkeypatch.setattr(converter, "llama_cpp_source", lambda: tmp_path)
    monkeypatch.setattr(converter, "_run", run)
    converter.convert(source, tmp_path / "made.gguf", tmp_path / "log")
    wanted = list(range(len(TOKENS), len(TOKENS) + padding))
    assert seen == ([[], wanted] if padding else [[]])
    assert json.loads((source / "tokenizer.json").read_text()) == {"added_tokens": []}
