"""Several devices in one report: side by side, each compared within itself alone; and cache types."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from madeup import DEVICE, MODEL, NUMBERS, write_cell
from madeup_hardware import (
    CACHE_PER_TOKEN,
    FASTER_ON_GPU,
    GPU,
    change,
    measured,
    point,
    write_elsewhere,
    write_grid,
)

from quantlab.cli import main
from quantlab.comparison.compare import compare
from quantlab.comparison.load import ModelRecords, load_model
from quantlab.records import DivergenceRecord, Estimate
from quantlab.reporting.cachetypes import cache_table
from quantlab.reporting.devices import across_table, other_devices
from quantlab.reporting.memory import memory_table
from quantlab.reporting.speed import speed_table
from quantlab.reporting.table import Row
from quantlab.stages.report import run
from quantlab.workspace.merge import merge
from quantlab.workspace.results import write_record

SLUGS = ("gguf-16", "gguf-8", "gguf-4")


def devices(root: Path) -> tuple[ModelRecords, ...]:
    records = load_model(root, MODEL)
    return (records, *other_devices(root, records))


def across(root: Path) -> dict[tuple[object, object], Row]:
    return {
        (row.values["variant"], row.values["device"]): row
        for row in across_table(*map(compare, devices(root))).rows
    }


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A workspace with three variants, two of which were measured on a GPU as well: all but the 16-bit
    one."""
    write_grid(tmp_path / "here", *SLUGS)
    merge(tmp_path / "here", write_elsewhere(tmp_path / "there", "gguf-8", "gguf-4"), MODEL)
    return tmp_path / "here"


def test_each_device_has_its_own_rows(two: Path) -> None:
    found = across(two)
    assert set(found) == {*((slug, DEVICE) for slug in SLUGS), ("gguf-8", GPU), ("gguf-4", GPU)}
    for slug in ("gguf-8", "gguf-4"):
        here, there = (found[slug, device].values["decode_tokens_per_second"] for device in (DEVICE, GPU))
        assert here == pytest.approx(NUMBERS[slug][4])
        assert there == pytest.approx(FASTER_ON_GPU * NUMBERS[slug][4])
    assert found["gguf-4", GPU].values["peak_memory_kind"] == "process_vram_bytes"
    assert found["gguf-4", DEVICE].values["peak_memory_kind"] == "peak_process_rss_bytes"


def test_nothing_is_divided_across_devices(two: Path) -> None:
    """The GPU has no 16-bit record here: its memory has nothing to be compared with, though the CPU has."""
    row = across(two)["gguf-4", GPU]
    assert row.values["peak_memory_saving"] is None
    assert row.missing["peak_memory_saving"].startswith("not compared: gguf-16")
    assert across(two)["gguf-4", DEVICE].values["peak_memory_saving"] is not None
    # The ratio is the other machine's own pairs.
    assert row.values["decode_ratio"] == pytest.approx(NUMBERS["gguf-4"][4] / NUMBERS["gguf-16"][4])
    unpaired = {
        "decode_ratio": None,
        "prefill_ratio": None,
        "baseline_decode_seconds": (),
        "baseline_prefill_seconds": (),
    }
    speed = measured("gguf-4", GPU).speed
    assert speed is not None
    lone = measured(
        "gguf-4",
        GPU,
        speed=speed.model_copy(update={"points": (point("gguf-4", 1, 0, FASTER_ON_GPU, **unpaired),)}),
    )
    other = two.parent / "again"
    write_record(other, lone)
    merge(two, other / "reports" / MODEL, MODEL)
    assert across(two)["gguf-4", GPU].values["decode_ratio"] is None


def test_memory_and_speed_have_a_table_per_device(two: Path) -> None:
    path = run(two, MODEL)
    text = path.read_text(encoding="utf-8")
    for heading in (
        f"### Memory on {DEVICE}",
        f"### Memory on {GPU}",
        f"### Speed on {DEVICE}",
        f"### Speed on {GPU}",
        "## Across devices",
    ):
        assert heading in text
    on_cpu = text[text.index(f"### Memory on {DEVICE}") : text.index(f"### Memory on {GPU}")]
    assert "(CUDA)" not in on_cpu and "peak allocated (CUDA)" in text
    assert (path.parent / "plots" / "devices.svg").is_file()
    assert (path.parent / "tables" / "devices.csv").is_file()
    assert {row.values["device"] for row in memory_table(*map(compare, devices(two))).rows} == {DEVICE, GPU}


def test_the_summary_is_this_workspaces(two: Path) -> None:
    before = (run(two, MODEL).parent / "metrics.json").read_text(encoding="utf-8")
    merge(two, write_elsewhere(two.parent / "third", *SLUGS, device="Other GPU", times=50.0), MODEL)
    assert (run(two, MODEL).parent / "metrics.json").read_text(encoding="utf-8") == before


def test_a_record_of_a_checkpoint_that_was_made_anew_since_the_merge_is_left_out_with_a_reason(
    two: Path,
) -> None:
    assert "is of another checkpoint" not in run(two, MODEL).read_text(encoding="utf-8")
    change(two, "gguf-4", checkpoint_sha256="ef" * 32)
    found = across(two)
    row = found["gguf-4", GPU]
    assert row.values["decode_tokens_per_second"] is None and row.values["peak_memory_bytes"] is None
    assert "is of another checkpoint" in row.missing["decode_tokens_per_second"]
    assert found["gguf-8", GPU].values["decode_tokens_per_second"] is not None
    assert found["gguf-4", DEVICE].values["decode_tokens_per_second"] is not None
    text = run(two, MODEL).read_text(encoding="utf-8")
    assert (
        "the measure record of gguf-4 is of another checkpoint" in text
        and "(efefefefefef): measure the same files" in text
    )


def test_a_damaged_import_is_a_warning_and_the_report_is_written(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(two, write_elsewhere(two.parent / "third", "gguf-4", device="Third GPU"), MODEL)
    damaged = two / "imported" / "third-gpu" / MODEL / "data" / "gguf-4" / "measure.json"
    damaged.write_text('{"memory": {"disk_bytes": 1' + "0" * 400 + "}}")
    monkeypatch.chdir(two)
    done = CliRunner().invoke(main, ["report", "--model", MODEL])
    said = f"What was merged into imported/third-gpu/{MODEL} is left out: "
    assert (
        done.exit_code == 0 and done.stderr.startswith(f"quantlab: {said}") and done.stderr.count("\n") == 1
    )
    text = (two / "reports" / MODEL / "report.md").read_text(encoding="utf-8")
    assert f"- {said}" in text and f"### Speed on {GPU}" in text and "Third GPU" not in text


def test_one_device_has_no_such_section(tmp_path: Path) -> None:
    write_grid(tmp_path, *SLUGS)
    path = run(tmp_path, MODEL)
    text = path.read_text(encoding="utf-8")
    assert (
        "Across devices" not in text and "### Memory on" not in text and "Key-value cache types" not in text
    )
    assert not (path.parent / "tables" / "devices.csv").exists()
    assert across_table(*map(compare, devices(tmp_path))).rows == ()


def test_the_name_given_at_the_merge_is_shown(tmp_path: Path) -> None:
    write_grid(tmp_path / "here", *SLUGS)
    merge(tmp_path / "here", write_elsewhere(tmp_path / "there", "gguf-4"), MODEL, "4090 at 300 W")
    assert {row.values["device"] for row in speed_table(*map(compare, devices(tmp_path / "here"))).rows} == {
        DEVICE,
        "4090 at 300 W",
    }


def test_cache_types_are_compared_with_the_same_variant_and_the_usual_cache(tmp_path: Path) -> None:
    write_grid(
        tmp_path,
        "gguf-16",
        "gguf-8",
        "gguf-4",
        variants={"gguf-4": {}, "gguf-8": {}, "gguf-4-kv8": {"cache": "q8_0"}},
    )
    NUMBERS["gguf-4-kv8"] = NUMBERS["gguf-4"]
    try:
        write_cell(tmp_path, "gguf-4-kv8")
        record = measured("gguf-4-kv8")
    finally:
        del NUMBERS["gguf-4-kv8"]
    assert record.memory is not None and record.speed is not None
    smaller = tuple(
        p.model_copy(
            update={
                "kv_cache_bytes": p.kv_cache_bytes * 17 // 32 if p.kv_cache_bytes else None,
                "kv_cache_formula_bytes": None,
                "decode_seconds": tuple(1.25 * s for s in p.decode_seconds),
            }
        )
        for p in record.speed.points
    )
    memory = record.memory.model_copy(update={"cache_dtype": "q8_0"})
    write_record(
        tmp_path,
        record.model_copy(
            update={"memory": memory, "speed": record.speed.model_copy(update={"points": smaller})}
        ),
    )
    kl = Estimate(value=0.04, standard_error=0.001, n=32)
    write_record(
        tmp_path,
        DivergenceRecord(model=MODEL, variant="gguf-4-kv8", engine="llama_cpp", kl_divergence_nats=kl),
    )
    (row,) = cache_table(*map(compare, devices(tmp_path))).rows
    assert (row.values["variant"], row.values["usual_cache_variant"], row.values["cache_dtype"]) == (
        "gguf-4-kv8",
        "gguf-4",
        "q8_0",
    )
    assert row.values["cache_bytes_per_token"] == CACHE_PER_TOKEN * 17 // 32
    assert row.values["usual_cache_bytes_per_token"] == CACHE_PER_TOKEN
    assert row.values["decode_ratio"] == pytest.approx(0.8)
    assert row.values["context_tokens"] == 4096
    assert row.values["usual_kl_divergence_nats"] == NUMBERS["gguf-4"][1]
    text = run(tmp_path, MODEL).read_text(encoding="utf-8")
    assert "0.0400 ± 0.0010 (usual 0.0368 ± 0.0022; +0.00320)" in text
    assert "24,480 (usual 46,080)" in text


def test_a_cache_type_without_its_counterpart_says_so(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4", variants={"gguf-4": {"cache": "q8_0"}})
    change(tmp_path, "gguf-4")
    (row,) = cache_table(*map(compare, devices(tmp_path))).rows
    assert row.values["usual_cache_variant"] is None
    assert (
        "usual cache" in row.missing["usual_cache_variant"] and "usual cache" in row.missing["decode_ratio"]
    )
