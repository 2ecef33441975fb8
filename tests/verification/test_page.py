"""The page shows every result once, with its figures in words, and what is stored has units and reasons."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from quantlab.hardware.device import Device
from quantlab.records.verification import UNITS, CheckRecord, Outcome, Verification
from quantlab.verification.ending import cleaned
from quantlab.verification.page import figures_text, line, page
from quantlab.verification.state import begin, slug_of

STAGE = {"kl_divergence_nats": 0.0934, "decode_tokens_per_second": 1236.0, "stored_bytes": 3.2e6}


def record(check: str, subject: str, outcome: Outcome) -> CheckRecord:
    return CheckRecord(
        check=check,
        subject=subject,
        key="k",
        outcome=outcome,
        seconds=12,
        finished="2026-12-01T10:00:00+00:00",
    )


@pytest.fixture
def found(gpu: Device) -> Verification:
    results = (
        record("identity", "", Outcome(status="passed", figures={"device_memory_bytes": 8.5e10})),
        record(
            "variant", "wide/x-4", Outcome(status="passed", figures=STAGE, facts={"kernel": "Packed × 28"})
        ),
        record(
            "variant", "wide/y-3", Outcome(status="failed", reason="unsupported: <b>no</b> kernel | here")
        ),
        record("places", "", Outcome(status="not_run", reason="time: it takes about 40 s, 3 s were left")),
    )
    return begin(gpu).model_copy(update={"results": results})


def test_every_result_is_on_the_page_once_in_its_table(found: Verification) -> None:
    text = page(found)
    assert "2 passed, 1 failed, 0 not applicable, 1 not run." in text
    assert "| variant wide/x-4 | passed | 0.0934 | 3.20 | 1,236 |" in text
    assert "- variant wide/x-4: Packed × 28" in text
    assert "| identity | passed | device memory 85,000 MB |" in text
    assert "| places | not run | time: it takes about 40 s, 3 s were left |" in text
    assert "- **variant wide/y-3**: unsupported: &lt;b>no&lt;/b> kernel \\| here" in text
    assert "NVIDIA H100 80GB HBM3 (80 GiB, driver 580.1)" in text
    assert "hidden size 2,048, 24 layers" in text


def test_a_page_without_results_is_whole(cpu: Device) -> None:
    text = page(begin(cpu))
    assert "0 passed, 0 failed" in text and "What failed" not in text and "nan" not in text


def test_a_line_has_the_figures_or_the_reason(found: Verification) -> None:
    lines = list(map(line, found.results))
    assert "kl divergence 0.0934 nats, decode 1,236 tokens/s" in lines[1]
    assert "no</b> kernel" in lines[2]


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_is_shown(unit: str) -> None:
    assert figures_text({f"some{unit}": 2.0}).startswith("some 2") or unit in (
        "_bytes",
        "_bytes_per_second",
        "_share",
    )


def test_what_is_stored_has_units_and_reasons() -> None:
    with pytest.raises(ValidationError, match="do not: speed"):
        Outcome(status="passed", figures={"speed": 3.0})
    for wrong in ({"status": "failed"}, {"status": "passed", "reason": "why"}, {"status": "not_run"}):
        with pytest.raises(ValidationError, match="reason"):
            Outcome.model_validate(wrong)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("AMD Radeon™ PRO W7900 + AMD EPYC (2 cores)", "amd-radeon-pro-w7900-amd-epyc-2-cores"),
    ],
)
def test_a_file_is_named_as_the_device(name: str, slug: str, gpu: Device) -> None:
    assert slug_of(gpu.model_copy(update={"name": name})) == slug
    assert (
        slug_of(gpu.model_copy(update={"device": "cpu", "name": "AMD EPYC (2 cores)"}))
        == "cpu-amd-epyc-2-cores"
    )


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("see /home/me/x/logs/a.log for more", "see a.log for more"),
        ("broken in '/usr/lib/python3/b.py', line 3", "broken in 'b.py', line 3"),
        ("12 tokens/s and b1 c0", "12 tokens/s and b1 c0"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_folders_are_taken_out_of_words(said: str, kept: str) -> None:
    assert cleaned(said) == kept
