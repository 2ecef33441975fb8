"""Losses: measured before interpolated before published, with intervals no narrower than what they rest
on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantlab.catalogue.gpu import parse_gpus
from quantlab.names import parse_variant
from quantlab.recommend import measurements
from quantlab.recommend.candidates import Hardware, on_hardware
from quantlab.recommend.losses import QuantizedModel, divergence_nats, drop_points, family
from quantlab.recommend.measurements import Measured, local_evidence
from quantlab.recommend.quantity import Quantity
from quantlab.records import (
    DivergenceRecord,
    Estimate,
    Failure,
    MeasureRecord,
    QuantizeRecord,
    SpeedPoint,
    SpeedRecord,
)
from quantlab.workspace.results import write_record

B = 1_000_000_000


def measured(model: str, variant: str, drop: tuple[float, float], parameters: int = 8 * B) -> Measured:
    found = Quantity(sum(drop) / 2, "measured", *drop, f"reports/{model}")
    return Measured(model, variant, "NVIDIA L4", f"reports/{model}", found, found, None, parameters)


def subject(model: str, variant: str, parameters: int = 8 * B) -> QuantizedModel:
    return QuantizedModel(model, parse_variant(variant), parameters)


def test_a_measurement_of_its_own_comes_first_and_the_narrowest_of_several() -> None:
    evidence = [
        measured("m", "gguf-4", (-3, 3)),
        measured("m", "gguf-4", (0, 1)),
        measured("m", "gguf-3", (4, 5)),
    ]
    assert drop_points(subject("m", "gguf-4"), evidence) == (0.5, "measured", 0, 1, "reports/m")


def test_between_two_widths_the_interval_spans_both_neighbours() -> None:
    evidence = [
        measured("m", "gguf-4", (1, 3)),
        measured("m", "gguf-8", (-1, 1)),
        measured("m", "gguf-2", (9, 12)),
        measured("m", "gptq-8", (7, 8)),
    ]
    found = drop_points(subject("m", "gguf-6"), evidence)
    assert found == (1.0, "interpolated", -1, 3, "between gguf-4 and gguf-8 of m (reports/m)")
    assert (
        drop_points(subject("m", "gguf-3"), evidence).low == 1
        and drop_points(subject("m", "gguf-3"), evidence).high == 12
    )


def test_outside_the_widths_nothing_is_extrapolated() -> None:
    evidence = [measured("m", "gguf-4", (1, 3)), measured("m", "gguf-8", (-1, 1))]
    assert drop_points(subject("m", "gguf-2"), evidence).kind == "estimated"


def test_between_two_sisters_the_interval_spans_both() -> None:
    evidence = [
        measured("qwen3.5-4b", "awq-4", (1, 4), 4 * B),
        measured("qwen3.5-27b", "awq-4", (-1, 2), 27 * B),
        measured("llama-3.1-8b", "awq-4", (9, 9)),
    ]
    found = drop_points(subject("qwen3.5-9b", "awq-4", 9 * B), evidence)
    assert found[:4] == (1.5, "interpolated", -1, 4)
    assert "qwen3.5-4b and qwen3.5-27b" in found.source


def test_one_sister_leaves_one_end_open() -> None:
    small, large = (
        [measured("qwen3.5-4b", "awq-4", (1, 4), 4 * B)],
        [measured("qwen3.5-27b", "awq-4", (-1, 2), 27 * B)],
    )
    assert drop_points(subject("qwen3.5-9b", "awq-4", 9 * B), small)[1:4] == ("estimated", None, 4)
    assert drop_points(subject("qwen3.5-9b", "awq-4", 9 * B), large)[1:4] == ("estimated", -1, None)


def test_published_figures_come_last_with_their_source() -> None:
    found = drop_points(subject("llama-3.1-8b", "gptq-4"), [])
    assert found[:4] == (3.0, "estimated", 0, 6) and "MMLU" in found.source
    assert drop_points(subject("m", "gptq-2", 135_000_000), [])[1:4] == ("estimated", 15, None)
    assert drop_points(subject("m", "baseline-16"), [])[:4] == (0.0, "estimated", 0.0, 0.0)
    assert drop_points(subject("m", "gptq-7"), []).kind == "unknown"


def test_divergences_are_llama_cpps_own_and_only_for_gguf() -> None:
    assert divergence_nats(subject("m", "gguf-4"), []).value == 0.028152
    assert divergence_nats(subject("m", "gguf-4-iq4_xs"), []).value == 0.036334
    assert divergence_nats(subject("m", "gptq-4"), []).kind == "unknown"
    assert divergence_nats(subject("m", "gguf-2", 135_000_000), [])[2:4] == (0.332223, None)


@pytest.mark.parametrize(
    ("name", "series"),
    [
        ("qwen3.5-27b", "qwen3.5"),
        ("qwen3.5-397b-a17b", "qwen3.5"),
        ("gemma-3-4b", "gemma-3"),
        ("llama-4-scout", "llama-4"),
        ("mixtral-8x7b", "mixtral"),
        ("smollm2", "smollm2"),
        ("deepseek-v4-pro", "deepseek-v4"),
    ],
)
def test_families(name: str, series: str) -> None:
    assert family(name) == series


def test_local_records_are_read_and_failures_are_not(tmp_path: Path) -> None:
    point = SpeedPoint(
        batch=1,
        context_tokens=0,
        prompt_tokens=16,
        decode_tokens=10,
        prefill_seconds=(0.1,),
        decode_seconds=(0.25, 0.2, 0.5),
    )
    many = point.model_copy(update={"batch": 4, "decode_seconds": (0.4,)})
    speed = SpeedRecord(kernel="k", dtype="float32", threads=None, load_seconds=1.0, points=(point, many))
    kl = Estimate(value=0.03, standard_error=0.001, n=40)
    for model, root in (("a", tmp_path), ("b", tmp_path / "runs" / "b")):
        write_record(root, QuantizeRecord(model=model, variant="gguf-4", parameters=7, disk_bytes=99))
        write_record(root, MeasureRecord(model=model, variant="gguf-4", device="NVIDIA L4", speed=speed))
        write_record(root, DivergenceRecord(model=model, variant="gguf-4", kl_divergence_nats=kl))
        write_record(
            root,
            QuantizeRecord(model=model, variant="awq-2", failure=Failure(kind="crashed", reason="it died")),
        )
        (root / "reports" / model / "data" / "awq-3").mkdir()
        (root / "reports" / model / "data" / "awq-3" / "measure.json").write_text("{")
    rows = [
        {
            "variant": "gguf-4",
            "mean_drop_points": 1.0,
            "mean_drop_lower_points": -1.0,
            "mean_drop_upper_points": 3.0,
            "bits": 4,
        }
    ]
    (tmp_path / "reports" / "a" / "tables").mkdir()
    (tmp_path / "reports" / "a" / "tables" / "summary.json").write_text(json.dumps(rows))
    first, second = local_evidence(tmp_path)
    assert (first.model, first.variant, first.device, first.parameters, first.disk_bytes, first.source) == (
        "a",
        "gguf-4",
        "NVIDIA L4",
        7,
        99,
        "reports/a",
    )
    assert first.drop_points == (1.0, "measured", -1.0, 3.0, "reports/a")
    assert first.divergence_nats and first.divergence_nats[2:4] == pytest.approx(
        (0.03 - 0.0020227, 0.03 + 0.0020227), abs=1e-7
    )
    assert first.decode_tokens_per_second and first.decode_tokens_per_second.value == 40.0
    assert first.throughput == (100.0, 640.0, 4, 0)
    assert (second.source, second.drop_points) == ("runs/b/reports/b", None)  # no report was made of it yet


@pytest.mark.parametrize(
    "device",
    ["NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU", "2 × NVIDIA GeForce RTX 4090", None],
)
def test_a_speed_of_another_card_is_not_this_ones(device: str | None) -> None:
    card, other = (
        measured("m", "gguf-4", (0, 1))._replace(device=name) for name in ("NVIDIA GeForce RTX 4090", device)
    )
    hardware = Hardware(parse_gpus("rtx-4090"), "rtx-4090")
    assert on_hardware([card, other], hardware) == (card,)


def test_the_committed_example_is_evidence() -> None:
    root = Path(__file__).parents[2]
    found = {each.variant for each in local_evidence(root) if each.source == "reports/examples/smollm2"}
    assert {"gguf-4", "gptq-4", "baseline-16"} <= found


def test_fewer_bits_are_never_published_as_losing_less() -> None:
    from quantlab import methods

    for name in methods.names():
        for size in (1 * B, 8 * B, 70 * B):
            found = [
                drop_points(subject("m", f"{name}-{bits}", size), [])
                for bits in sorted(methods.load(name).bits, reverse=True)
            ]
            ends = [(q.low, float("inf") if q.high is None else q.high) for q in found]
            assert ends == sorted(ends, key=lambda end: end[0] or 0), (name, size)
            assert [high for _, high in ends] == sorted(high for _, high in ends), (name, size)


def test_the_mean_drop_is_read_from_the_summary_that_the_report_writes() -> None:
    example = Path(__file__).resolve().parents[2] / "reports" / "examples" / "smollm2"
    drops = measurements._mean_drops(example / "tables" / "summary.json")
    assert drops["gptq-2"].mean_drop_points == 11.5 and drops["baseline-16"].mean_drop_points is None
