"""The memory table: every kind apart, saved shares against the right variant, and what a process that died
had held."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import MODEL, NUMBERS, write_cell, write_recipe
from madeup_hardware import (
    CACHE_PER_TOKEN,
    DECODE,
    GPU,
    PROMPT,
    WEIGHTS_ABOVE_DISK,
    change,
    killed,
    measured,
    point,
    write_grid,
)

from quantlab.comparison.compare import compare
from quantlab.comparison.load import load_model
from quantlab.records import Failure
from quantlab.reporting.memory import memory_table
from quantlab.reporting.table import Row, Table
from quantlab.workspace.results import write_record


def table(root: Path) -> Table:
    return memory_table(compare(load_model(root, MODEL)))


def rows(root: Path) -> dict[str, Row]:
    return {str(row.values["variant"]): row for row in table(root).rows}


def headers(found: Table) -> str:
    return " | ".join(column.header for column in found.columns)


def test_five_figures_stand_apart(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    size, base = (int(NUMBERS[slug][0] * 1e6) for slug in ("gguf-4", "gguf-16"))
    values = rows(tmp_path)["gguf-4"].values
    assert values["disk_bytes"] == size
    assert values["weights_bytes"] == size + WEIGHTS_ABOVE_DISK
    tokens = 8 * (4096 + PROMPT + DECODE)
    assert (values["kv_cache_bytes"], values["kv_cache_formula_bytes"]) == (
        CACHE_PER_TOKEN * tokens,
        CACHE_PER_TOKEN * tokens,
    )
    assert (values["kv_cache_batch"], values["kv_cache_tokens"]) == (8, 4096 + PROMPT + DECODE)
    assert values["peak_tree_pss_bytes"] == 500_000_000 + 2 * size
    assert values["tree_pss_above_empty_bytes"] == 2 * size
    assert values["tree_pss_above_empty_saving"] == pytest.approx(1 - size / base)
    assert values["peak_tree_pss_saving"] == pytest.approx(1 - (500e6 + 2 * size) / (500e6 + 2 * base))
    assert (values["sampling_interval_seconds"], values["pss_interval_seconds"]) == (0.0104, 0.041)
    assert values["peak_allocated_bytes"] is None
    text = table(tmp_path).markdown()
    assert "formula 1,563, batch 8 × 4,240 tokens" in text
    assert "10.4; PSS 41.0" in text
    assert "CUDA" not in text and "GPU" not in text and "VmHWM" not in text and "recurrent state" not in text


def test_a_gpu_has_the_drivers_and_the_allocators_columns(tmp_path: Path) -> None:
    write_grid(tmp_path)
    for slug in ("gguf-16", "gguf-4"):
        write_record(tmp_path, measured(slug, GPU))
    size = int(NUMBERS["gguf-4"][0] * 1e6)
    values = rows(tmp_path)["gguf-4"].values
    assert (values["peak_allocated_bytes"], values["peak_reserved_bytes"]) == (2 * size, 3 * size)
    assert values["process_vram_bytes"] == 400_000_000 + 2 * size
    assert values["vram_above_empty_bytes"] == 2 * size
    assert values["device_change_bytes"] == 1_000_000_000 + 2 * size - 600_000_000
    for header in (
        "peak allocated (CUDA)",
        "peak reserved (CUDA)",
        "on the GPU (driver)",
        "change of the whole GPU",
    ):
        assert header in headers(table(tmp_path))


def test_peaks_of_different_workloads_are_not_compared_but_weights_are(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    speed = measured("gguf-16").speed
    assert speed is not None
    died = point(
        "gguf-16",
        8,
        4096,
        failure=Failure(kind="out_of_memory", reason="it did not fit"),
        kv_cache_bytes=None,
    )
    change(tmp_path, "gguf-16", speed=speed.model_copy(update={"points": (*speed.points[:-1], died)}))
    row = rows(tmp_path)["gguf-4"]
    assert row.values["peak_tree_pss_saving"] is None
    assert row.missing["peak_tree_pss_saving"] == "not compared: the 16-bit variant ran another workload"
    assert row.values["weights_saving"] is not None


def test_weights_on_several_devices_stand_by_device(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    memory = measured("gguf-4").memory
    assert memory is not None
    change(
        tmp_path,
        "gguf-4",
        memory=memory.model_copy(
            update={"weights_by_device_bytes": {"cuda:0": 70_000_000, "cpu": 30_000_000}}
        ),
    )
    found = rows(tmp_path)
    assert found["gguf-4"].values["weights_on_cuda:0_bytes"] == 70_000_000
    assert found["gguf-16"].values["weights_on_cpu_bytes"] is None
    assert "weights on cpu (MB) | weights on cuda:0 (MB)" in headers(table(tmp_path))


def test_weights_that_the_engine_does_not_count_have_its_reason(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    memory = measured("gguf-4").memory
    assert memory is not None
    why = {"weights_bytes": None, "weights_reason": "this runner counts none"}
    change(tmp_path, "gguf-4", memory=memory.model_copy(update=why))
    row = rows(tmp_path)["gguf-4"]
    assert row.values["weights_bytes"] is None and row.missing["weights_bytes"] == "this runner counts none"
    assert row.values["disk_bytes"] is not None


def test_a_process_that_died_says_its_step_and_last_sample(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    record = killed("gguf-4")
    write_record(tmp_path, record)
    values = rows(tmp_path)["gguf-4"].values
    assert values["died_in"] == "load"
    assert values["last_tree_pss_bytes"] == 500_000_000 + int(NUMBERS["gguf-4"][0] * 1e6)
    assert values["weights_bytes"] is None
    assert table(tmp_path).markdown().count("it last held 0.61 GB of memory, in step `load`") == 1


def test_a_workload_that_died_is_a_note_beside_the_others(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-4")
    change(tmp_path, "gguf-4", died_in="batch 8, context 4096")
    text = table(tmp_path).markdown()
    assert "The process died in step `batch 8, context 4096`; it last held 0.61 GB" in text
    assert "105.5" in text
    change(
        tmp_path, "gguf-4", died_in="batch 8, context 0"
    )  # and another process ran the rest, whose last sample it is
    text = table(tmp_path).markdown()
    assert "The process died in step `batch 8, context 0`" in text and "it last held" not in text


def test_recurrent_state_has_a_column_where_a_model_has_one(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-4")
    memory = measured("gguf-4").memory
    assert memory is not None
    change(tmp_path, "gguf-4", memory=memory.model_copy(update={"state_bytes": 19_000_000}))
    assert "recurrent state" in headers(table(tmp_path))


def test_a_kind_of_memory_that_the_system_does_not_show_has_its_reason(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    for slug in ("gguf-16", "gguf-4"):
        write_cell(tmp_path, slug)
    row = rows(tmp_path)["gguf-4"]
    assert row.values["peak_process_rss_bytes"] == 650_000_000 + 2 * 105_500_000
    assert row.values["peak_tree_pss_bytes"] is None
    assert row.missing["peak_tree_pss_bytes"] == "the system does not show it"
    assert "VmHWM" in headers(table(tmp_path))
    assert "looked at every" not in headers(table(tmp_path))
    write_record(tmp_path, measured("gguf-4"))
    assert "VmHWM" in headers(table(tmp_path)), "the older record beside it would have no peak at all"
