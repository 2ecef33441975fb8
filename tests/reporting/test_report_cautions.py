"""Warnings: what they find, and that they keep quiet otherwise."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from madeup import MODEL, NUMBERS, write_cell, write_workspace

from quantlab.records import MeasureRecord
from quantlab.reporting.cautions import cautions
from quantlab.reporting.load import load_model
from quantlab.results import read_record, record_path, write_record


def found(root: Path) -> list[str]:
    return cautions(load_model(root, MODEL))


def test_only_the_hidden_variant_is_named(workspace: Path) -> None:
    assert [text.split("'")[0] for text in found(workspace)] == ["gptq-8"]
    assert "not distinguishable" in found(workspace)[0]


def test_eight_bits_that_lose_much_point_at_the_harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    path = record_path(tmp_path, MODEL, "gguf-4", "tasks").with_name("samples.parquet")
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
