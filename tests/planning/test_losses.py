"""Losses: measured before interpolated before published, with intervals no narrower than what they rest on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantlab.names import parse_variant
from quantlab.recommend.choice import Quantity
from quantlab.recommend.evidence import Measured, local_evidence
from quantlab.recommend.losses import Subject, divergence_nats, drop_points, family

B = 1_000_000_000


def measured(model: str, variant: str, drop: tuple[float, float], parameters: int = 8 * B) -> Measured:
    found = Quantity(sum(drop) / 2, "measured", *drop, f"reports/{model}")
    return Measured(model, variant, "NVIDIA L4", f"reports/{model}", found, found, None, parameters)


def subject(model: str, variant: str, parameters: int = 8 * B) -> Subject:
    return Subject(model, parse_variant(variant), parameters)


def test_a_measurement_of_its_own_comes_first_and_the_narrowest_of_several() -> None:
    evidence = [measured("m", "gguf-4", (-3, 3)), measured("m", "gguf-4", (0, 1)), measured("m", "gguf-3", (4, 5))]
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
    assert drop_points(subject("m", "gguf-3"), evidence).low == 1 and drop_points(subject("m", "gguf-3"), evidence).high == 12


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
    small, large = [measured("qwen3.5-4b", "awq-4", (1, 4), 4 * B)], [measured("qwen3.5-27b", "awq-4", (-1, 2), 27 * B)]
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


def test_local_reports_are_read_and_failures_are_not(tmp_path: Path) -> None:
    for folder in ("reports/a", "runs/b/reports/b"):
        report = tmp_path / folder
        (report / "tables").mkdir(parents=True)
        (report / "data" / "gguf-4").mkdir(parents=True)
        (report / "data" / "gguf-4" / "measure.json").write_text('{"device": "NVIDIA L4"}')
        (report / "data" / "gguf-4" / "quantize.json").write_text('{"parameters": 7}')
        rows = [
            {
                "variant": "gguf-4",
                "status": "measured",
                "mean_drop_points": 1.0,
                "mean_drop_lower_points": -1.0,
                "mean_drop_upper_points": 3.0,
                "kl_divergence_nats": 0.03,
                "kl_divergence_standard_error": 0.001,
                "decode_tokens_per_second": 40.0,
            },
            {"variant": "awq-2", "status": "failed"},
            {"variant": "no variant"},
            {"variant": None},
            "no row",
        ]
        (report / "tables" / "summary.json").write_text(json.dumps(rows))
    (tmp_path / "reports" / "broken" / "tables").mkdir(parents=True)
    (tmp_path / "reports" / "broken" / "tables" / "summary.json").write_text("{")
    found = local_evidence(tmp_path)
    assert [(each.model, each.variant, each.device, each.parameters, each.source) for each in found] == [
        ("a", "gguf-4", "NVIDIA L4", 7, "reports/a"),
        ("b", "gguf-4", "NVIDIA L4", 7, "runs/b/reports/b"),
    ]
    assert found[0].drop_points == (1.0, "measured", -1.0, 3.0, "reports/a")
    assert found[0].decode_tokens_per_second and found[0].decode_tokens_per_second.value == 40.0


def test_the_committed_example_is_evidence() -> None:
    root = Path(__file__).parents[2]
    found = {each.variant for each in local_evidence(root) if each.source == "reports/examples/smollm2"}
    assert {"gguf-4", "gptq-4", "baseline-16"} <= found


def test_fewer_bits_are_never_published_as_losing_less() -> None:
    from quantlab import methods

    for name in methods.names():
        for size in (1 * B, 8 * B, 70 * B):
            found = [drop_points(subject("m", f"{name}-{bits}", size), []) for bits in sorted(methods.load(name).bits, reverse=True)]
            ends = [(q.low, float("inf") if q.high is None else q.high) for q in found]
            assert ends == sorted(ends, key=lambda end: end[0] or 0), (name, size)
            assert [high for _, high in ends] == sorted(high for _, high in ends), (name, size)
