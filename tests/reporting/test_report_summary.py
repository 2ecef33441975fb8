"""The summary against the records that it was made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import DEVICE, FAILED, MODEL, NUMBERS, PARAMETERS, write_cell, write_recipe, write_workspace

from quantlab.comparison.compare import compare
from quantlab.comparison.load import load_model
from quantlab.records import DivergenceRecord, MeasureRecord, QuantizeRecord, TaskRecord
from quantlab.reporting.summary import summary_table
from quantlab.reporting.table import Row
from quantlab.workspace.results import read_record, record_path, write_record


def rows(root: Path) -> dict[str, Row]:
    return {str(row.values["variant"]): row for row in summary_table(compare(load_model(root, MODEL))).rows}


@pytest.fixture(scope="module")
def summary(workspace: Path) -> dict[str, Row]:
    return rows(workspace)


def test_has_a_row_for_every_variant_with_records(summary: dict[str, Row]) -> None:
    assert set(summary) == {*NUMBERS, *FAILED}
    assert next(iter(summary)) == "baseline-16"


@pytest.mark.parametrize("slug", NUMBERS)
def test_every_number_is_the_records(summary: dict[str, Row], slug: str) -> None:
    megabytes, kl, perplexity, _, speed = NUMBERS[slug]
    values, base = summary[slug].values, "gguf-16" if slug.startswith("gguf") else "baseline-16"
    assert values["disk_bytes"] == int(megabytes * 1e6)
    assert values["bits_per_weight"] == pytest.approx(8 * megabytes * 1e6 / PARAMETERS)
    assert values["kl_divergence_nats"] == kl
    assert values["kl_divergence_standard_error"] == pytest.approx(0.06 * kl)
    assert values["perplexity"] == perplexity
    assert values["disk_saving"] == pytest.approx(1 - megabytes / NUMBERS["baseline-16"][0])
    assert values["decode_tokens_per_second"] == pytest.approx(speed)  # the median of the five repeats
    assert values["decode_ratio"] == pytest.approx(speed / NUMBERS[base][4])
    peaks = [650e6 + 2e6 * NUMBERS[name][0] for name in (slug, base)]
    assert values["peak_memory_bytes"] == peaks[0]
    assert values["peak_memory_saving"] == pytest.approx(1 - peaks[0] / peaks[1])


def test_drops_are_paired_with_the_baseline(summary: dict[str, Row]) -> None:
    # gptq-2: 24 and 25 of 100 answers go wrong, 12 come right
    values = summary["gptq-2"].values
    assert (values["drop_points_piqa"], values["drop_points_arc_easy"], values["mean_drop_points"]) == (
        12.0,
        13.0,
        12.5,
    )
    assert values["drop_standard_error_piqa"] == pytest.approx(100 * ((36 - 144 / 100) / 9900) ** 0.5)
    assert summary["baseline-16"].values["mean_drop_points"] is None


@pytest.mark.parametrize("slug", FAILED)
def test_failed_variant_has_its_reason_and_no_number(summary: dict[str, Row], slug: str) -> None:
    row = summary[slug]
    assert row.values["status"] == "failed"
    assert FAILED[slug] in str(row.values["reason"])
    assert [key for key, value in row.values.items() if isinstance(value, int | float)] == ["bits"]
    assert row.failed is not None
    assert set(row.missing.values()) == {row.failed.reason}


def test_collapsed_variant_keeps_its_numbers(summary: dict[str, Row]) -> None:
    assert summary["gptq-2"].values["status"] == "collapsed"
    assert summary["gptq-2"].values["perplexity"] == 5637.0


def test_divergence_near_the_floor_is_not_distinguishable(summary: dict[str, Row]) -> None:
    assert {slug for slug, row in summary.items() if row.values["distinguishable"] is False} == {"gptq-8"}
    assert summary["gptq-8"].values["noise_floor_nats"] == NUMBERS["baseline-16"][1]
    assert summary["gguf-8"].values["noise_floor_nats"] == NUMBERS["gguf-16"][1]


def test_without_a_baseline_nothing_is_compared_and_the_reason_is_given(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    for slug in ("gguf-4", "gptq-4"):
        write_cell(tmp_path, slug)
    for slug, row in rows(tmp_path).items():
        for key in (
            "disk_saving",
            "peak_memory_saving",
            "decode_ratio",
            "prefill_ratio",
            "noise_floor_nats",
            "mean_drop_points",
        ):
            assert row.values[key] is None
            assert "not measured" in row.missing[key], (slug, key)
        assert row.values["decode_tokens_per_second"] is not None
        assert row.values["kl_divergence_nats"] is not None


def test_ratio_needs_the_same_device(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    path = record_path(tmp_path, MODEL, "baseline-16", "measure")
    record = read_record(path, MeasureRecord)
    assert record is not None
    write_record(tmp_path, record.model_copy(update={"device": "ANOTHER GPU"}))
    found = rows(tmp_path)
    assert found["gptq-4"].values["decode_ratio"] is None
    assert "another device" in found["gptq-4"].missing["decode_ratio"]
    assert found["gguf-4"].values["decode_ratio"] is not None
    assert DEVICE != "ANOTHER GPU"


def test_floor_of_another_dtype_is_no_floor(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    record = read_record(record_path(tmp_path, MODEL, "gptq-8", "diverge"), DivergenceRecord)
    assert record is not None
    write_record(tmp_path, record.model_copy(update={"dtype": "float16"}))
    row = rows(tmp_path)["gptq-8"]
    assert row.values["distinguishable"] is None
    assert row.missing["distinguishable"] == "no noise floor in float16: baseline-16 ran in bfloat16"


def test_other_settings_of_the_task_are_not_compared(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    record = read_record(record_path(tmp_path, MODEL, "gptq-4", "evaluate"), TaskRecord)
    assert record is not None
    tasks = {name: result.model_copy(update={"fewshot": 5}) for name, result in record.tasks.items()}
    write_record(tmp_path, record.model_copy(update={"tasks": tasks}))
    row = rows(tmp_path)["gptq-4"]
    assert row.values["drop_points_piqa"] is None
    assert row.missing["mean_drop_points"].startswith("not comparable")


def test_stage_that_never_ran_says_so(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_record(
        tmp_path, QuantizeRecord(model=MODEL, variant="gptq-4", disk_bytes=5_000_000, bits_per_weight=4.5)
    )
    row = rows(tmp_path)["gptq-4"]
    assert row.values["status"] == "partly measured"
    assert row.missing["perplexity"] == "the diverge stage has left no record"
    assert row.values["disk_bytes"] == 5_000_000
