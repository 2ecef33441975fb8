"""Compute the reference on the device in both dtypes, and hold the model against its own reference."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.hardware.device import Device
from quantlab.names import BASELINE
from quantlab.numbers import significant
from quantlab.records.verification import Outcome
from quantlab.verification.bench import Bench
from quantlab.verification.contract import Check, Context, Subject, judged
from quantlab.verification.models import WIDE

_RANK = 50
_HEAD_NATS = {"float32": 1e-6, "bfloat16": 1e-3}
"""Mean divergence that rounding in the head may add."""
_SAME_NATS = {"float32": 0.01, "bfloat16": 1e-3}
"""Of the unquantized model, which runs in bfloat16, from the reference in this dtype."""


def run(context: Context) -> Outcome:
    """Store the reference, and measure the unquantized model against it."""
    bench = Bench(context.root, context.device, WIDE, context.subject)
    bench.use_engine(BASELINE)
    info = bench.reference()
    itself = bench.diverged(BASELINE).kl_divergence_nats
    assert itself is not None
    return judge(
        context.subject, info.head_max_difference, info.head_divergence_nats, itself.value, info.dtype
    )


def judge(asked: str, difference: float, head_nats: float, itself_nats: float, dtype: str) -> Outcome:
    """Fails where the head alone loses, or the model differs from itself by more than the dtype explains."""
    said = []
    if dtype != asked:
        said.append(f"the reference is in {dtype}, {asked} was asked for")
    if not head_nats <= _HEAD_NATS[asked]:
        said.append(f"the head alone diverges by {significant(head_nats)} nats from the model's logits")
    if not itself_nats <= _SAME_NATS[asked]:
        said.append(f"the unquantized model diverges by {significant(itself_nats)} nats from itself")
    figures = {
        "head_divergence_nats": head_nats,
        "largest_logit_difference_nats": difference,
        "noise_floor_nats": itself_nats,
    }
    return judged(said, figures)


def subjects(device: Device) -> Sequence[Subject]:
    """The dtypes that a reference is stored in."""
    return [Subject(dtype, _RANK + place) for place, dtype in enumerate(_HEAD_NATS)]


CHECK = Check(
    name="head",
    proves="the reference's head gives the model's logits back, and the model is its own reference",
    run=run,
    subjects=subjects,
    usual_seconds=40,
)
