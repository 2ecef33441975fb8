"""Warnings: what they find, and that they keep quiet otherwise."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from madeup import MODEL, NUMBERS, write_cell, write_workspace

from quantlab.comparison.compare import compare
from quantlab.comparison.load import load_model
from quantlab.records import DivergenceRecord, MeasureRecord
from quantlab.reporting.cautions import cautions
from quantlab.reporting.divergences import divergence_table
from quantlab.workspace.results import read_record, record_path, write_record


def found(root: Path) -> list[str]:
    return cautions(compare(load_model(root, MODEL)))


def test_only_the_hidden_variant_is_named(workspace: Path) -> None:
    texts = found(workspace)
    assert [text.split("'")[0] for text in texts[:-1]] == ["gptq-8"] and "cannot be told from" in texts[0]
    assert (
        texts[-1].startswith("Undecided over all tasks at 1 point: ")
        and "gguf-8" in texts[-1]
        and "gptq-2" not in texts[-1]
    )


@pytest.mark.parametrize(("slug", "nats"), [("gguf-16", 0.02), ("baseline-16", 0.02), ("gguf-8", 0.09)])
def test_sixteen_and_eight_bits_that_are_far_point_at_the_harness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slug: str, nats: float
) -> None:
    write_workspace(tmp_path)
    size, _, perplexity, wrong, speed = NUMBERS[slug]
    monkeypatch.setitem(NUMBERS, slug, (size, nats, perplexity, wrong, speed))
    write_cell(tmp_path, slug)
    assert any(text.startswith(f"{slug} diverges by {nats:.4f} nats: more than") for text in found(tmp_path))


def test_a_far_variant_that_answers_better_is_doubted(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    path = record_path(tmp_path, MODEL, "gptq-3", "evaluate").with_name("samples.parquet")
    samples = pd.read_parquet(path)
    samples.loc[samples["metric"] == "acc_norm", "value"] = 1.0
    samples.to_parquet(path)
    text = next(text for text in found(tmp_path) if text.startswith("gptq-3 answers significantly better"))
    assert "piqa, arc_easy and all tasks together" in text


def test_another_reference_is_named_and_not_ranked(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    for slug in NUMBERS:
        record = read_record(record_path(tmp_path, MODEL, slug, "diverge"), DivergenceRecord)
        assert record is not None
        sha256, dtype = ("b" * 64, "bfloat16") if slug == "gguf-4" else ("a" * 64, "float32")
        write_record(
            tmp_path, record.model_copy(update={"reference_sha256": sha256, "reference_dtype": dtype})
        )
    records = load_model(tmp_path, MODEL)
    assert (
        next(text for text in cautions(compare(records)) if text.startswith("gguf-4 is not compared")).count(
            "`"
        )
        == 4
    )
    places = compare(records).ranking
    assert "gguf-4" not in [slug for place in places for slug in place.variants] and len(places) > 2
    row = next(row for row in divergence_table(compare(records)).rows if row.values["variant"] == "gguf-4")
    assert "in bfloat16, not `aaaaaaaaaaaa` in float32" in row.notes[0]


def test_eight_bits_that_lose_much_point_at_the_harness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_workspace(tmp_path)
    size, kl, perplexity, _, speed = NUMBERS["gguf-8"]
    monkeypatch.setitem(NUMBERS, "gguf-8", (size, kl, perplexity, 40, speed))
    write_cell(tmp_path, "gguf-8")
    assert any("gguf-8 loses" in text and "Suspect the evaluation" in text for text in found(tmp_path))


def test_different_devices_are_named(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    record = read_record(record_path(tmp_path, MODEL, "gguf-4", "measure"), MeasureRecord)
    assert record is not None
    write_record(tmp_path, record.model_copy(update={"device": "ANOTHER GPU", "checkpoint_sha256": "0" * 64}))
    texts = found(tmp_path)
    assert any("different devices" in text and "ANOTHER GPU: gguf-4" in text for text in texts)
    assert any("gguf-4 are of different checkpoints" in text for text in texts)


def test_items_that_are_not_the_scores_are_named(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    path = record_path(tmp_path, MODEL, "gguf-4", "evaluate").with_name("samples.parquet")
    samples = pd.read_parquet(path)
    first = samples.index[samples["metric"] == "acc_norm"][0]
    samples.loc[first, "value"] = 1.0 - samples.loc[first, "value"]
    samples.to_parquet(path)
    assert any(text.startswith("gguf-4: the mean of the items of piqa") for text in found(tmp_path))


def test_fewer_bits_that_are_closer_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_workspace(tmp_path)
    size, _, perplexity, wrong, speed = NUMBERS["gguf-2"]
    monkeypatch.setitem(NUMBERS, "gguf-2", (size, 0.01, perplexity, wrong, speed))
    write_cell(tmp_path, "gguf-2")
    assert any("gguf-2 diverges less than gguf-3" in text for text in found(tmp_path))
