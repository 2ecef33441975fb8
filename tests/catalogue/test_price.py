"""Prices: dated, sourced, doubted where other sources say otherwise, and overridable."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantlab.catalogue import entries
from quantlab.catalogue.gpu import gpus
from quantlab.catalogue.price import api_prices, gpu_prices, hosting
from quantlab.errors import QuantlabError


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own prices, empty, and an empty current folder."""
    path = tmp_path / "own.yaml"
    path.write_text("")
    monkeypatch.setenv("QUANTLAB_PRICES", str(path))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return path


def test_every_price_has_a_date_and_a_source() -> None:
    figures = [*api_prices().values(), *(getattr(hosting(), name) for name in type(hosting()).model_fields)]
    figures += [
        f for price in gpu_prices().values() for f in (price.purchase_dollars, price.hourly_dollars) if f
    ]
    for figure in figures:
        assert figure.date.startswith("20")
        assert figure.source


def test_names_lead_to_the_other_catalogues() -> None:
    assert all(price.alias in entries() for price in api_prices().values() if price.alias)
    assert set(gpu_prices()) <= set(gpus())


def test_closed_models_have_prices_alone_and_wrong_ones_say_so() -> None:
    prices = api_prices()
    assert (prices["gpt-5.5"].output_dollars, prices["gpt-5.5"].alias) == (30.0, None)
    assert "0.14" in prices["deepseek-v4-flash"].doubt
    assert "5.00" in prices["claude-opus-4.7"].doubt
    assert "1.74" in prices["deepseek-v4-pro"].doubt


def test_the_users_file_adds_and_replaces_one_entry_at_a_time(own: Path) -> None:
    own.write_text(
        "api: {Mine: {input_dollars: 1, output_dollars: 2, date: 2026-11-01, source: the bill}}\n"
        "gpus: {l4: {hourly_dollars: {value: 0.5, date: 2026-11, source: the bill}}}\n"
        "hosting: {power_dollars_per_kwh: {value: 0.3, date: 2026-11, source: the bill}}\n"
    )
    assert api_prices()["mine"].date == "2026-11-01"
    assert "gpt-5.5" in api_prices()
    assert gpu_prices()["l4"].hourly_dollars is not None
    assert hosting().power_dollars_per_kwh.value == 0.3
    assert hosting().depreciation_months.value == 36


@pytest.mark.parametrize(
    "text",
    [
        "prices: {}\n",
        "api: [1]\n",
        "api: {mine: {input_dollars: -1, output_dollars: 2, date: 2026-11, source: x}}\n",
        "api: {mine: {input_dollars: 1, output_dollars: 2}}\n",
        "hosting: {power_dollars_per_kwh: 0.3}\n",
    ],
    ids=["unknown section", "a list", "negative", "no source", "a bare number"],
)
def test_what_is_no_price_is_refused(text: str, own: Path) -> None:
    own.write_text(text)
    with pytest.raises(QuantlabError) as raised:
        (api_prices(), hosting())
    assert "\n" not in str(raised.value)
