"""Predict the quality loss of a quantization: measured, else interpolated from measured neighbours, else
published.

| kind | from | interval |
|---|---|---|
| measured | this model's own report | its 95 % interval |
| interpolated | the same method at the next higher and lower width | from the low end of the higher to the high end of the lower |
| interpolated | the same variant of a smaller and a larger sister | over both intervals |
| estimated | the same variant of one sister | open on the side where no sister stands: small models lose more |
| estimated | published figures | the published band, in relative per cent, which is points on a model that has every item right |

Intervals of neighbours take it that fewer bits and smaller models do not lose less; no confidence is claimed
for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from quantlab import methods
from quantlab.catalogue.expectation import expectations, published_loss
from quantlab.formats import GGUF
from quantlab.names import BASELINE, Variant, parse_variant
from quantlab.recommend.measurements import Measured, measured_at
from quantlab.recommend.quantity import Quantity, exact, unknown

_SIZE = re.compile(r"-?(\d+x)?\d+(\.\d+)?b\b.*")


class QuantizedModel(NamedTuple):
    """What a loss is asked of."""

    model: str
    variant: Variant
    parameters: int | None


def drop_points(subject: QuantizedModel, evidence: Sequence[Measured]) -> Quantity:
    """Accuracy lost, in percentage points of the mean over the tasks at hand."""
    if subject.variant.slug == BASELINE:
        return exact(0.0, "estimated", "by definition: it is what drops are measured against")
    return _known(subject, evidence, lambda m: m.drop_points) or _published_drop(subject)


def divergence_nats(subject: QuantizedModel, evidence: Sequence[Measured]) -> Quantity:
    """Mean KL divergence from the unquantized model, nats per token."""
    return _known(subject, evidence, lambda m: m.divergence_nats) or _published_divergence(subject)


def family(model: str) -> str:
    """The series that a model belongs to: its name up to its size, `qwen3.5` for `qwen3.5-27b`; else without
    its last part."""
    shorter = _SIZE.sub("", model)
    return shorter if shorter and shorter != model else model.rpartition("-")[0] or model


def _known(
    subject: QuantizedModel, evidence: Sequence[Measured], of: Callable[[Measured], Quantity | None]
) -> Quantity | None:
    own = [
        quantity
        for each in measured_at(evidence, subject.model, subject.variant.slug)
        if (quantity := of(each))
    ]
    if own:
        # of several reports the one with the narrowest interval
        return min(
            own,
            key=lambda q: (
                q.high - q.low if q.high is not None and q.low is not None else float("inf"),
                q.source,
            ),
        )
    return _between_widths(subject, evidence, of) or _between_sisters(subject, evidence, of)


def _between_widths(
    subject: QuantizedModel, evidence: Iterable[Measured], of: Callable[[Measured], Quantity | None]
) -> Quantity | None:
    """Between the next lower and the next higher width of the same method on the same model."""
    method, bits, label = subject.variant
    if label:
        return None
    there = {
        variant.bits: quantity
        for each in evidence
        if each.model == subject.model
        and (variant := parse_variant(each.variant)).method == method
        and not variant.label
        and (quantity := of(each))
    }
    below, above = (
        max((b for b in there if b < bits), default=None),
        min((b for b in there if b > bits), default=None),
    )
    if below is None or above is None:
        return None
    fewer, more = there[below], there[above]
    weight = (bits - below) / (above - below)
    value = (fewer.value or 0.0) + weight * ((more.value or 0.0) - (fewer.value or 0.0))
    source = f"between {method}-{below} and {method}-{above} of {subject.model} ({fewer.source})"
    return Quantity(value, "interpolated", more.low, fewer.high, source)


def _between_sisters(
    subject: QuantizedModel, evidence: Iterable[Measured], of: Callable[[Measured], Quantity | None]
) -> Quantity | None:
    """From the same variant of models of the same family."""
    if not subject.parameters:
        return None
    sisters = sorted(
        (each.parameters, each.model, quantity)
        for each in evidence
        if each.variant == subject.variant.slug
        and each.model != subject.model
        and each.parameters
        and family(each.model) == family(subject.model)
        and (quantity := of(each))
    )
    smaller = [each for each in sisters if each[0] <= subject.parameters]
    larger = [each for each in sisters if each[0] > subject.parameters]
    if smaller and larger:
        return _between(*smaller[-1][1:], *larger[0][1:])
    if smaller:
        _, name, quantity = smaller[-1]
        return Quantity(
            quantity.value,
            "estimated",
            None,
            quantity.high,
            f"measured on its smaller sister {name} ({quantity.source})",
        )
    if larger:
        _, name, quantity = larger[0]
        return Quantity(
            quantity.value,
            "estimated",
            quantity.low,
            None,
            f"measured on its larger sister {name} ({quantity.source})",
        )
    return None


def _between(left: str, losing: Quantity, right: str, keeping: Quantity) -> Quantity:
    """Half way between a smaller and a larger sister, over the intervals of both."""
    lows, highs = [losing.low, keeping.low], [losing.high, keeping.high]
    low = None if None in lows else min(end for end in lows if end is not None)
    high = None if None in highs else max(end for end in highs if end is not None)
    middle = ((losing.value or 0.0) + (keeping.value or 0.0)) / 2
    source = f"between its sisters {left} and {right} ({losing.source}, {keeping.source})"
    return Quantity(middle, "interpolated", low, high, source)


def _published_drop(subject: QuantizedModel) -> Quantity:
    loss = published_loss(subject.variant.method, subject.variant.bits, subject.parameters)
    if loss is None:
        return unknown(f"no loss of {subject.variant.slug} is published that the catalogue knows")
    low, high = loss.loss_low_percent, loss.loss_high_percent
    middle = (low + high) / 2 if high is not None else low
    return Quantity(middle, "estimated", low, high, loss.source)


def _published_divergence(subject: QuantizedModel) -> Quantity:
    known = expectations().divergences
    variant = subject.variant
    kind = (variant.label or "").upper() or str(
        methods.load(variant.method).usual(variant.bits).get("type", "")
    )
    if methods.load(variant.method).format != GGUF or kind not in known.nats:
        return unknown(f"no divergence of {variant.slug} is published that the catalogue knows")
    nats = known.nats[kind]
    source = f"{kind} of {known.model}: {known.source}"
    if subject.parameters and subject.parameters < expectations().small_models.below_parameters:
        return Quantity(nats, "estimated", nats, None, f"{source}; small models diverge more")
    return Quantity(nats, "estimated", None, None, source)
