"""Run every method at every width on the device, in each engine that reads what it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantlab import engines, methods
from quantlab.environments.install import missing
from quantlab.hardware.device import Device
from quantlab.names import Variant
from quantlab.records.verification import Outcome
from quantlab.verification.bench import Bench, variants
from quantlab.verification.checks.engine import absent
from quantlab.verification.contract import Check, Context, Subject, lacking
from quantlab.verification.models import NARROW, WIDE
from quantlab.verification.run_variant import run_variant

_FIRST, _EIGHT, _NARROW, _OTHER_ENGINE, _REST = 100, 200, 300, 400, 500
"""Ranks: four bits of every method, eight bits, four bits of the narrow model, engines that are asked for by
name, every other width."""


def run(context: Context) -> Outcome:
    """The subject `MODEL/VARIANT` or `MODEL/VARIANT@ENGINE` through quantize, measure, diverge and
    generate."""
    model, _, rest = context.subject.partition("/")
    slug, _, engine = rest.partition("@")
    return run_variant(Bench(context.root, context.device, model), slug, engine or None)


def subjects(device: Device) -> Sequence[Subject]:
    """All that quantizes; of each method at four bits, or at what it has instead, the narrow model too."""
    found = []
    for place, variant in enumerate(v for v in variants() if v.bits < 16):
        why_not = lacking(missing(methods.load(variant.method).requires))
        four = variant.bits == _main_width(variant.method)
        rank = _FIRST if four else _EIGHT if variant.bits == 8 else _REST
        found.append(Subject(f"{WIDE}/{variant.slug}", rank + place, why_not))
        if four:
            found.append(Subject(f"{NARROW}/{variant.slug}", _NARROW + place, why_not))
        if variant.bits in (8, 4):
            found += [
                Subject(f"{WIDE}/{variant.slug}@{name}", _OTHER_ENGINE + place, why_not)
                for name in _others(variant)
            ]
    return found


def _main_width(method: str) -> int:
    widths = methods.load(method).bits
    return 4 if 4 in widths else min(widths)


def _others(variant: Variant) -> Iterator[str]:
    """Engines that are installed and read the variant's format, but for the format's usual one."""
    form = methods.load(variant.method).format
    for name in engines.names():
        if form in engines.load(name).formats and name != engines.engine_for(form) and not absent(name):
            yield name


CHECK = Check(
    name="variant",
    proves=(
        "a method quantizes here, and what it saved is what it made: layers and loss after reloading, bytes"
        " by formula, kernel, divergence no worse than rounding to nearest, speed, generation"
    ),
    run=run,
    subjects=subjects,
    usual_seconds=60,
    limit_seconds=1800,
)
