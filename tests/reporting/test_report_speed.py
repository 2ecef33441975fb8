"""The speed table and its plots: medians with intervals, the ratio that drifts least, ceilings, energy, cost,
warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from madeup import MODEL, write_cell, write_recipe
from madeup_hardware import (
    BANDWIDTH,
    CACHE_PER_TOKEN,
    DECODE,
    GRID,
    PROMPT,
    change,
    decode_rate,
    measured,
    point,
    write_grid,
)

from quantlab.comparison.compare import compare
from quantlab.comparison.load import load_model
from quantlab.records import Failure, Roofline, SpeedRecord
from quantlab.records.measured import Bandwidth, Conditions, GpuCondition
from quantlab.reporting.ceilings import above_one, bandwidths, far_below
from quantlab.reporting.conditions import condition_warnings
from quantlab.reporting.lines import grid_svg
from quantlab.reporting.speed import absences, speed_table, timed_points
from quantlab.reporting.table import Row, Table
from quantlab.stages.report import run


def table(root: Path) -> Table:
    return speed_table(compare(load_model(root, MODEL)))


def rows(root: Path, slug: str = "gguf-4") -> dict[tuple[Any, Any], Row]:
    return {
        (r.values["batch"], r.values["context_tokens"]): r
        for r in table(root).rows
        if r.values["variant"] == slug
    }


def change_speed(root: Path, slug: str, **changes: Any) -> None:
    speed = measured(slug).speed
    assert speed is not None
    change(root, slug, speed=speed.model_copy(update=changes))


def points_with(slug: str, **changes: Any) -> tuple[Any, ...]:
    return tuple(point(slug, batch, context, **changes) for batch, context in GRID)


def headers(found: Table) -> list[str]:
    return [column.header for column in found.columns]


def test_every_point_of_the_grid_is_a_row_with_medians_and_intervals(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    found = rows(tmp_path)
    assert set(found) == set(GRID)
    for (batch, context), row in found.items():
        rate = decode_rate("gguf-4", batch, context)
        assert row.values["decode_tokens_per_second"] == pytest.approx(rate)
        # five repeats: the interval is the whole range
        assert row.values["decode_tokens_per_second_low"] == pytest.approx(rate / 1.08)
        assert row.values["decode_tokens_per_second_high"] == pytest.approx(rate / 0.95)
        assert row.values["decode_tokens_per_second_coverage"] == 0.9375
        assert row.values["time_per_output_token_seconds"] == pytest.approx(batch / rate)
        first = row.values["time_to_first_token_seconds"]
        assert isinstance(first, float)
        assert row.values["prefill_tokens_per_second"] == pytest.approx(batch * (context + PROMPT) / first)


def test_a_paired_ratio_is_taken_before_a_ratio_of_runs(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    # The 16-bit variant's own run was on a machine half as fast.
    change_speed(tmp_path, "gguf-16", points=points_with("gguf-16", times=0.5))
    values = rows(tmp_path)[(1, 0)].values
    assert values["decode_ratio"] == pytest.approx(decode_rate("gguf-4", 1, 0) / decode_rate("gguf-16", 1, 0))
    assert values["decode_ratio_kind"] == "paired"
    assert "1.94× [1.94, 1.94]" in table(tmp_path).markdown()


def test_ratios_that_were_not_paired_say_so(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4", "gguf-8")
    change_speed(tmp_path, "gguf-4", points=points_with("gguf-4", decode_ratio=None, prefill_ratio=None))
    alone = {
        "decode_ratio": None,
        "prefill_ratio": None,
        "baseline_decode_seconds": (),
        "baseline_prefill_seconds": (),
    }
    change_speed(tmp_path, "gguf-8", points=points_with("gguf-8", **alone), baseline=None)
    assert rows(tmp_path)[(1, 0)].values["decode_ratio_kind"] == "sequential"
    assert rows(tmp_path, "gguf-8")[(1, 0)].values["decode_ratio_kind"] == "separate"
    assert rows(tmp_path, "gguf-16")[(1, 0)].values["decode_ratio_kind"] is None
    text = run(tmp_path, MODEL).read_text(encoding="utf-8")
    assert "(1.94×, sequential)" in text and "(1.69×, separate)" in text
    assert "`sequential`: run one after the other" in text and "`separate`: run in two stages" in text


def test_a_point_that_the_16_bit_variant_could_not_run_has_no_ratio(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    failure = Failure(kind="out_of_memory", reason="it needs 3 GB")
    lacking = {"decode_ratio": None, "baseline_decode_seconds": (), "baseline_failure": failure}
    change_speed(tmp_path, "gguf-4", points=points_with("gguf-4", **lacking))
    row = rows(tmp_path)[(8, 4096)]
    assert row.values["decode_ratio"] is None
    assert "did not run this point (out of memory: it needs 3 GB)" in row.missing["decode_ratio"]
    assert row.values["decode_tokens_per_second"] is not None


def test_a_point_that_failed_has_its_reason(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    failed = point("gguf-4", 8, 4096).model_copy(
        update={
            "failure": Failure(kind="does_not_fit", reason="9 GB of cache"),
            "decode_seconds": (),
            "prefill_seconds": (),
            "roofline": None,
        }
    )
    change_speed(tmp_path, "gguf-4", points=(*points_with("gguf-4")[:-1], failed))
    row = rows(tmp_path)[(8, 4096)]
    assert row.values["decode_tokens_per_second"] is None
    assert (
        row.missing["decode_tokens_per_second"]
        == row.missing["ceiling_tokens_per_second"]
        == "does not fit: 9 GB of cache"
    )
    assert rows(tmp_path)[(1, 0)].values["decode_tokens_per_second"] is not None


def test_the_ceiling_stands_beside_with_the_share_reached(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    values = rows(tmp_path)[(1, 0)].values
    ceiling = BANDWIDTH / (105_500_000 + CACHE_PER_TOKEN * (PROMPT + DECODE))
    assert values["ceiling_tokens_per_second"] == pytest.approx(ceiling)
    assert values["ceiling_share"] == pytest.approx(decode_rate("gguf-4", 1, 0) / ceiling)
    assert "decode ceiling (tokens/s, share reached)" in headers(table(tmp_path))


def test_bandwidth_names_its_measurement_and_the_data_sheet(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    band = Bandwidth(
        measured_bytes_per_second=14.2e9,
        copied_bytes=512_000_000,
        threads=2,
        quoted_bytes_per_second=38.4e9,
        quoted_source="X",
    )
    for slug in ("gguf-16", "gguf-4"):
        change_speed(tmp_path, slug, bandwidth=band)
    (text,) = bandwidths(load_model(tmp_path, MODEL))
    assert "14.2 GB/s, measured by copying 512 MB, 2 threads; the data sheet says 38.4 GB/s (X)" in text
    above = above_one(load_model(tmp_path, MODEL))
    assert (
        above is not None and "gguf-4" in above and "gguf-16" not in above
    )  # 1.75 and 0.99 of the ceiling at the deepest point
    assert "a processor cache" in above
    change_speed(tmp_path, "gguf-4", bandwidth=band.model_copy(update={"threads": None}))
    above = above_one(load_model(tmp_path, MODEL))
    assert above is not None and "the GPU's last-level cache" in above and "processor" not in above


def test_what_no_row_has_is_left_out_and_said_once(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    assert not any("J/token" in header or "$" in header for header in headers(table(tmp_path)))
    assert absences(table(tmp_path).rows) == [
        "No energy per token: no energy counter on this device.",
        "No cost per token: the recipe names no price_per_device_hour.",
    ]
    text = run(tmp_path, MODEL).read_text(encoding="utf-8")
    assert text.count("No energy per token") == 1


def test_energy_and_cost_have_columns_where_a_row_has_them(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    costly = points_with("gguf-4", decode_joules_per_token=1.25, dollars_per_million_tokens=3.5)
    change_speed(
        tmp_path, "gguf-4", points=costly, price_per_device_hour=2.0, energy_source="NVML", energy_reason=None
    )
    found = table(tmp_path)
    assert {"energy (J/token decoded)", "cost ($/million tokens decoded)"} <= set(headers(found))
    assert rows(tmp_path)[(1, 0)].values["dollars_per_million_tokens"] == 3.5
    assert (
        rows(tmp_path, "gguf-16")[(1, 0)].missing["decode_joules_per_token"]
        == "no energy counter on this device"
    )
    assert absences(found.rows) == []
    assert "price per device hour ($2)" in run(tmp_path, MODEL).read_text(encoding="utf-8")


def gpu(clock: int, celsius: int, reasons: tuple[str, ...] = ()) -> Conditions:
    return Conditions(
        gpus=(
            GpuCondition(
                uuid="GPU-1",
                name="G",
                sm_clock_mhz=clock,
                temperature_celsius=celsius,
                throttle_reasons=reasons,
            ),
        )
    )


def test_an_unsteady_device_is_warned_of_with_its_variants(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-8", "gguf-4")
    change_speed(tmp_path, "gguf-8", before=gpu(1900, 40), after=gpu(1500, 70, ("software power cap",)))
    change_speed(tmp_path, "gguf-4", before=gpu(1900, 40), after=gpu(1890, 45))
    warnings = condition_warnings(load_model(tmp_path, MODEL))
    assert warnings == [
        "The GPU's clock changed while these were timed: gguf-8 (1900 to 1500 MHz).",
        "The GPU warmed by more than 10 °C while these were timed: gguf-8 (40 to 70 °C).",
        "The GPU throttled its clocks: gguf-8 (software power cap).",
    ]
    assert f"> {warnings[0]}" in run(tmp_path, MODEL).read_text(encoding="utf-8")


def test_a_steady_device_is_not(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    assert condition_warnings(load_model(tmp_path, MODEL)) == []


def test_a_busy_machine_is_warned_of(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    change(
        tmp_path,
        "gguf-4",
        notes=("The machine was busy with other work: a load average of 5.0 on 2 processors. Too slow.",),
    )
    (warning,) = condition_warnings(load_model(tmp_path, MODEL))
    assert warning.startswith("gguf-4: The machine was busy")


def test_plots_over_the_grid_only_where_there_is_one(tmp_path: Path) -> None:
    write_grid(tmp_path, "gguf-16", "gguf-4")
    deep = grid_svg(timed_points(compare(load_model(tmp_path, MODEL))), "context_tokens")
    assert deep is not None and ElementTree.fromstring(deep).tag.endswith("svg")
    assert grid_svg(timed_points(compare(load_model(tmp_path, MODEL))), "batch") is not None
    for slug in ("gguf-16", "gguf-4"):
        change_speed(tmp_path, slug, points=(point(slug, 1, 0),))
    assert grid_svg(timed_points(compare(load_model(tmp_path, MODEL))), "context_tokens") is None
    assert grid_svg(timed_points(compare(load_model(tmp_path, MODEL))), "batch") is None


def test_records_of_an_older_version_have_dashes_with_reasons(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    for slug in ("gguf-16", "gguf-4"):
        write_cell(tmp_path, slug)
    row = rows(tmp_path)[(1, 0)]
    assert row.values["decode_ratio_kind"] == "separate"
    assert row.missing["ceiling_tokens_per_second"] == "the record has no memory bandwidth"
    assert absences(table(tmp_path).rows)[0] == "No ceiling: the record has no memory bandwidth."


def test_speed_record_of_the_oldest_form_is_read() -> None:
    old = {"kernel": "K", "dtype": "d", "threads": 2, "load_seconds": 1.0, "points": []}
    assert SpeedRecord.model_validate(old).baseline is None


@pytest.mark.parametrize(
    ("threads", "share", "said"),
    [(None, 0.1, True), (None, 0.6, False), (2, 0.1, False), (None, None, False)],
)
def test_gpu_row_18_an_engine_that_launches_its_kernels_one_by_one_is_named(
    threads: int | None, share: float | None, said: bool, tmp_path: Path
) -> None:
    """On a GPU, by the 16-bit variant's share of its ceiling at batch 1; a CPU's share has other reasons."""
    write_grid(tmp_path, "baseline-16", "gptq-4")
    band = Bandwidth(measured_bytes_per_second=1e9, copied_bytes=1, threads=threads)
    for slug in ("baseline-16", "gptq-4"):
        points = []
        for each in (point(slug, 1, 0), point(slug, 8, 0)):
            reached = share if each.batch == 1 else 0.9  # a batch reuses the weights that it reads
            roof = Roofline(
                weight_bytes_per_step=1, cache_bytes_per_step=1, tokens_per_second=100.0, share=reached
            )
            points.append(each.model_copy(update={"roofline": roof}))
        change_speed(tmp_path, slug, bandwidth=band, points=tuple(points))
    found = far_below(load_model(tmp_path, MODEL))
    assert len(found) == said
    if said:
        assert "baseline-16 in transformers decodes one sequence at 10.0 % of its ceiling" in found[0]
        assert "ratios can lie near 1 at every width" in found[0]
        run(tmp_path, MODEL)
        report = (tmp_path / "reports" / MODEL / "report.md").read_text(encoding="utf-8")
        assert "decodes one sequence at 10.0 % of its ceiling" in report
