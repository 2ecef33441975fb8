"""Run the unquantized model in every engine: memory against formulas, the noise floor, generation."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab import engines
from quantlab.hardware.device import Device
from quantlab.records.verification import Outcome
from quantlab.verification.bench import Bench
from quantlab.verification.contract import Check, Context, Subject, lacking
from quantlab.verification.models import WIDE
from quantlab.verification.run_variant import run_variant

RANK = 20
"""Of the first engine's check; its overhead is the next, and the other engines follow."""


def run(context: Context) -> Outcome:
    """The engine's own 16-bit variant through quantize, measure, diverge and generate."""
    bench = Bench(context.root, context.device, WIDE)
    return run_variant(bench, engines.load(context.subject).sixteen_bit, context.subject)


def subjects(device: Device) -> Sequence[Subject]:
    """Every engine, those that run the unquantized model itself first."""
    return [
        Subject(name, RANK + 2 * place, absent(name))
        for place, (name, _) in enumerate(engines.with_sixteen_bit())
    ]


def absent(name: str) -> str:
    """Why an engine is not run here; empty where it is."""
    engine = engines.load(name)
    return lacking(engine.lacks(), engine.install)


CHECK = Check(
    name="engine",
    proves="an engine runs the unquantized model: memory by formula, noise floor, kernel, generation",
    run=run,
    subjects=subjects,
    usual_seconds=60,
    limit_seconds=1800,
)
