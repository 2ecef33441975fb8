"""Look up prices of API tokens and of running one's own GPUs, each with date and source; all can be
overridden.

Read from prices.yaml; the user's own file ($QUANTLAB_PRICES, else prices.yaml in quantlab's user
configuration folder) and a prices.yaml in the current folder add to it and replace whole entries of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from quantlab.catalogue.files import catalogue_files, checked, mapping
from quantlab.errors import QuantlabError, unknown
from quantlab.frozen import Frozen

SECTIONS = ("api", "gpus", "hosting")
FORM = "`api: {my-model: {input_dollars: 1, output_dollars: 2, date: 2026-11, source: where it is from}}`"


class Dated(Frozen):
    """What every price says of itself."""

    date: str
    """When it was so, as ISO 8601 (`2026-05`)."""
    source: str
    doubt: str = ""
    """Why it may be wrong, and what other sources say."""

    @field_validator("date", mode="before")
    @classmethod
    def _text(cls, value: object) -> str:
        return str(value)  # YAML reads 2026-05-01 as a date


class ApiPrice(Dated):
    """What an API asks per million tokens, in dollars."""

    model: str
    input_dollars: float = Field(ge=0, le=1e12)
    output_dollars: float = Field(ge=0, le=1e12)
    cached_input_dollars: float | None = Field(default=None, ge=0, le=1e12)
    alias: str | None = None
    """The open model of the catalogue that it serves; None for a closed model."""


class Figure(Dated):
    """A number with its date and source."""

    value: float = Field(ge=0, le=1e12)


class GpuPrice(Frozen):
    """What one GPU costs; a price that is not sourced is None."""

    purchase_dollars: Figure | None = None
    hourly_dollars: Figure | None = None


class Hosting(Frozen):
    """The constants of hosting GPUs oneself."""

    depreciation_months: Figure
    power_dollars_per_kwh: Figure
    power_kw_per_gpu: Figure
    """For a GPU whose own power is not known."""
    hours_per_month: Figure
    hosting_dollars_per_month: Figure


def api_prices() -> dict[str, ApiPrice]:
    """By model, the user's own included. Raises QuantlabError for a file that is not a list of prices."""
    return {
        name: checked(ApiPrice, _with(fields, model=name), f"prices of {name}")
        for name, fields in _section("api").items()
    }


def gpu_prices() -> dict[str, GpuPrice]:
    """By the GPU's name in gpus.yaml; a GPU that is absent has no sourced price. Raises QuantlabError."""
    return {name: checked(GpuPrice, fields, f"prices of {name}") for name, fields in _section("gpus").items()}


def hosting() -> Hosting:
    """Defaults for hosting. Raises QuantlabError."""
    return checked(Hosting, _section("hosting"), "prices of hosting")


def _with(fields: Any, **more: Any) -> Any:
    return {**fields, **more} if isinstance(fields, Mapping) else fields


def _section(name: str) -> dict[str, Any]:
    """One section of all the files, later entries over earlier ones."""
    rows: dict[str, Any] = {}
    for path in catalogue_files("prices.yaml", "QUANTLAB_PRICES"):
        data = mapping(path, FORM)
        for section in data:
            if section not in SECTIONS:
                raise unknown(f"section of {path}", section, SECTIONS)
        entries = data.get(name) or {}
        if not isinstance(entries, dict):
            raise QuantlabError(f"{path}: {name} holds no list of prices: write {FORM}")
        rows.update({str(key).lower(): value for key, value in entries.items()})
    return rows
