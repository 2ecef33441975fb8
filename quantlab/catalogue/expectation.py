"""Read what others have published about losses, speeds and abilities, from expectations.yaml.

Nothing here was measured by quantlab. Losses are relative per cent of the unquantized model's score; on a
model that has every item right they are points, on any other they are more than the points that they come to.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from quantlab.errors import QuantlabError
from quantlab.frozen import Frozen
from quantlab.parsing import read_yaml
from quantlab.recipe import explain

SHIPPED = Path(__file__).with_name("expectations.yaml")


class QuotedBand(Frozen):
    """What is commonly said of a width."""

    bits: int
    loss_low_percent: float
    loss_high_percent: float
    times_smaller: float
    quoted_for: str
    """The methods that the band is quoted for."""


class QuotedBands(Frozen):
    """The commonly quoted bands."""

    source: str
    bands: tuple[QuotedBand, ...]

    def of(self, bits: int) -> QuotedBand | None:
        """The band of a width; None where none is quoted."""
        return next((band for band in self.bands if band.bits == bits), None)


class PublishedLoss(Frozen):
    """A published loss of some methods at a width."""

    methods: tuple[str, ...]
    bits: int
    loss_low_percent: float
    loss_high_percent: float | None
    """None where no upper end was published."""
    source: str
    parameters_from: int = 0


class SmallModels(Frozen):
    """Where the published figures end."""

    below_parameters: int
    source: str


class PublishedDivergences(Frozen):
    """Mean KL divergence of one model by GGUF file type."""

    model: str
    parameters: int
    source: str
    nats: dict[str, float]


class SourcedValue(Frozen):
    """A number with its source."""

    value: float
    source: str


class Benchmarks(Frozen):
    """Published scores of unquantized models, in per cent."""

    date: str
    source: str
    scores: dict[str, dict[str, float]]


class Expectations(Frozen):
    """All of expectations.yaml."""

    quoted_bands: QuotedBands
    losses: tuple[PublishedLoss, ...]
    small_models: SmallModels
    divergences: PublishedDivergences
    efficiency: SourcedValue
    """Share of the bandwidth's ceiling that a decoder is expected to reach."""
    uses: dict[str, tuple[str, ...]]
    """Benchmarks that stand for a use."""
    benchmarks: Benchmarks


class PublishedScore(NamedTuple):
    """How able a model is for a use, or why that is not known."""

    percent: float | None
    source: str


@cache
def expectations() -> Expectations:
    """What ships with quantlab. Raises QuantlabError where the file is broken."""
    try:
        return Expectations.model_validate(read_yaml(SHIPPED))
    except ValidationError as error:
        raise QuantlabError(f"{SHIPPED}: {explain(error)}") from None


def published_loss(method: str, bits: int, parameters: int | None) -> PublishedLoss | None:
    """The published loss of a method at a width; None where none is known.

    Below the size that was published for, the upper end is open. `parameters` None means that the size is not
    known."""
    known = expectations()
    size = parameters or 0
    loss = next(
        (x for x in known.losses if method in x.methods and bits == x.bits and size >= x.parameters_from),
        None,
    )
    small = known.small_models
    if loss is None or bits >= 16 or size >= small.below_parameters:
        return loss
    return loss.model_copy(update={"loss_high_percent": None, "source": f"{loss.source}; {small.source}"})


def published_score(model: str, use: str | None) -> PublishedScore:
    """Mean of the published scores of the benchmarks that stand for a use."""
    known = expectations()
    names = known.uses.get(use or "", ())
    if not names:
        return PublishedScore(
            None, f"no benchmark in the catalogue stands for {use}" if use else "no use was named"
        )
    scores = known.benchmarks.scores.get(model, {})
    if any(name not in scores for name in names):
        return PublishedScore(None, "not known: no published score in the catalogue")
    mean = sum(scores[name] for name in names) / len(names)
    return PublishedScore(mean, f"mean of {', '.join(names)}; {known.benchmarks.source}")
