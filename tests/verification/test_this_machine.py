"""This machine's processor proves itself: a few checks in every run of the tests, all of them in
`make test-engines`."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantlab.hardware.device import Device
from quantlab.verification import checks
from quantlab.verification.running import verify

MINUTES = 600
"""More than it takes: nothing is left out for want of time."""


@pytest.mark.slow
def test_a_few_checks_pass_here(cpu: Device, tmp_path: Path) -> None:
    few = ["identity", "bandwidth", "energy", "cpu_only", "places", "head:bfloat16"]
    done = verify(tmp_path, cpu, MINUTES, few)
    found = {result.name: result.outcome for result in done.verification.results}
    assert not done.verification.failed(), found
    assert {found[name].status for name in ("identity", "bandwidth", "head bfloat16")} == {"passed"}
    assert 0 <= found["head bfloat16"].figures["noise_floor_nats"] < 0.01
    on_gpu = [each for name, each in found.items() if name.startswith(("cpu_only", "places"))]
    assert len(on_gpu) > 2 and {each.reason for each in on_gpu} == {"no GPU"}


@pytest.mark.engines
def test_this_processor_passes_every_check(cpu: Device, tmp_path: Path) -> None:
    done = verify(tmp_path, cpu, MINUTES)
    outcomes = {result.name: result.outcome for result in done.verification.results}
    assert not done.verification.failed(), [(r.name, r.outcome.reason) for r in done.verification.failed()]
    assert {result.check for result in done.verification.results} == set(checks.names())
    assert not [name for name, outcome in outcomes.items() if outcome.status == "not_run"]
    for name, outcome in outcomes.items():
        if outcome.status == "not_applicable":
            assert (
                "no GPU" in outcome.reason or "not installed" in outcome.reason or "counter" in outcome.reason
            ), name
