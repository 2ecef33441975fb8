"""Bytes of all files of a checkpoint: the example's real ones, and a tokenizer as the gguf package itself
writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest

from quantlab import methods
from quantlab.architecture.counts import count
from quantlab.catalogue.config import known_config
from quantlab.names import parse_variant
from quantlab.planning.files import checkpoint_bytes, tokenizer_bytes
from quantlab.planning.fit import plan_model
from quantlab.planning.weights import weight_bytes
from quantlab.recipe import read_recipe
from quantlab.records import QuantizeRecord

ROOT = Path(__file__).parents[2]
EXAMPLE = sorted((ROOT / "reports" / "examples" / "smollm2" / "data").glob("*/quantize.json"))


@pytest.mark.parametrize("path", EXAMPLE, ids=lambda path: path.parent.name)
def test_the_examples_checkpoints_have_the_planned_files(path: Path) -> None:
    record = QuantizeRecord.model_validate_json(path.read_text())
    variant, known = parse_variant(record.variant), known_config("smollm2")
    assert known and record.disk_bytes and record.stored_bytes
    settings = methods.settings_in(read_recipe(ROOT / "recipes/smollm2.yaml"), variant)
    weights = weight_bytes(count(known.config), variant.method, variant.bits, settings)
    assert weights
    found = checkpoint_bytes(weights.bytes_total, variant.method, tokenizer_bytes(known.config["vocab_size"]))
    assert found == pytest.approx(record.disk_bytes, rel=0.002)


def _header_bytes(
    path: Path, tokens: list[str], types: list[int], merges: list[str], scores: list[float]
) -> int:
    """What the gguf package writes for a tokenizer."""
    writer = gguf.GGUFWriter(path, "llama")
    for add, values in (
        (writer.add_token_list, tokens),
        (writer.add_token_types, types),
        (writer.add_token_merges, merges),
        (writer.add_token_scores, scores),
    ):
        if values:
            add(values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path.stat().st_size


@pytest.mark.parametrize("kind", ["merges as pairs", "merges as text", "unigram", "byte fallback"])
def test_a_tokenizer_is_counted_as_gguf_writes_it(tmp_path: Path, kind: str) -> None:
    pieces, merges = ["a", "b", "ab", "Ġü", "▁日本"], [["a", "b"], ["Ġ", "ü"]]
    model: dict[str, Any] = {
        "type": "BPE",
        "vocab": {piece: i for i, piece in enumerate(pieces)},
        "merges": merges,
    }
    if kind == "merges as text":
        model["merges"] = [" ".join(merge) for merge in merges]
    if kind == "unigram":
        model = {"type": "Unigram", "vocab": [[piece, -1.5] for piece in pieces]}
    if kind == "byte fallback":
        model["byte_fallback"] = True
    about = {"model": model, "added_tokens": [{"content": "<s>"}, {"content": "ab"}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
    found = tokenizer_bytes(8, tmp_path)

    words = [*pieces, "<s>", "[PAD6]", "[PAD7]"]
    told = [" ".join(merge) for merge in merges] if "merges" in kind else []
    scores = [] if told else [0.0] * len(words)
    size = _header_bytes(tmp_path / "with.gguf", words, [1] * len(words), told, scores)
    # of one entry each, so that the keys and the arrays' own heads are in both
    one = _header_bytes(tmp_path / "one.gguf", ["x"], [1], ["x"] if told else [], scores[:1])
    assert found.counted and found.beside == (tmp_path / "tokenizer.json").stat().st_size
    assert found.in_gguf == size - one + (8 + 1 + 4) + ((8 + 1) if told else 4)


def test_without_a_readable_tokenizer_the_size_is_estimated(tmp_path: Path) -> None:
    estimated = tokenizer_bytes(1000)
    assert not estimated.counted and 0 < estimated.in_gguf < estimated.beside
    assert tokenizer_bytes(2000).beside == 2 * estimated.beside and tokenizer_bytes(0).beside == 0
    for text in ("", "[]", '{"model": {"vocab": 5}}', '{"model": null}'):
        (tmp_path / "tokenizer.json").write_text(text)
        assert tokenizer_bytes(1000, tmp_path) == estimated


def test_a_plan_has_the_files_of_every_variant() -> None:
    known = known_config("smollm2")
    assert known
    plan = plan_model(
        known.config, name="s", methods=["gguf-4", "gptq-4", "bitsandbytes-4", "awq-2"], place_gpus=False
    )
    beside = [
        v.checkpoint_bytes - v.weight_bytes if v.checkpoint_bytes and v.weight_bytes else None
        for v in plan.variants
    ]
    tokenizer = tokenizer_bytes(known.config["vocab_size"])
    assert beside == [tokenizer.in_gguf, tokenizer.beside, 0, None] and not plan.tokenizer_counted
