"""Prices: of API tokens, and of running GPUs oneself; each with its date and source, and all to be overridden."""

from __future__ import annotations

from quantlab.records import Frozen


class ApiPrice(Frozen):
    """What an API asks per million tokens, in dollars."""

    model: str
    input_dollars: float
    output_dollars: float
    cached_input_dollars: float | None = None
    date: str
    """When it was so, as ISO 8601 (`2026-05`)."""
    source: str
    doubt: str = ""
    """Why the price may be wrong, and what other sources say."""
    alias: str | None = None
    """The open model of the catalogue that it serves; None for a closed model."""
    context: int | None = None


class Figure(Frozen):
    """A number with its date and source."""

    value: float
    date: str
    source: str
    doubt: str = ""


class GpuPrice(Frozen):
    """What one GPU costs."""

    purchase_dollars: Figure | None = None
    hourly_dollars: Figure | None = None


class Hosting(Frozen):
    """The constants of hosting GPUs oneself."""

    depreciation_months: Figure
    power_dollars_per_kwh: Figure
    power_kw_per_gpu: Figure
    """Where the GPU's own power is not known."""
    hours_per_month: Figure
    hosting_dollars_per_month: Figure


def api_prices() -> dict[str, ApiPrice]:
    """By model, the user's own included. Raises QuantlabError for a file that is no list of prices."""
    raise NotImplementedError


def gpu_prices() -> dict[str, GpuPrice]:
    """By the GPU's name in gpus.yaml; a GPU that is absent has no sourced price. Raises QuantlabError."""
    raise NotImplementedError


def hosting() -> Hosting:
    """Defaults for hosting. Raises QuantlabError."""
    raise NotImplementedError
