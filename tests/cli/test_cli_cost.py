"""`quantlab cost`: the article's example, every assumption with its source, and rigs that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
ARTICLE = (
    "cost",
    "deepseek-v4-pro",
    "gptq-4",
    "--gpu",
    "h100:8",
    "--tokens-per-month",
    "5000M",
    "--throughput",
    "15000",
)


def answer(quantlab: Run, *arguments: str) -> dict[str, Any]:
    result = quantlab(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_articles_rig_cannot_hold_the_model_and_is_refused(refused: Callable[..., str]) -> None:
    said = refused(*ARTICLE)
    assert "8 × h100-sxm-80gb cannot hold deepseek-v4-pro gptq-4" in said
    assert "GB are missing in total" in said and "it fits 8 × h200-sxm-141gb" in said


def test_the_articles_example_as_a_hypothesis(quantlab: Run) -> None:
    found = answer(quantlab, *ARTICLE, "--anyway")
    assert round(found["self_hosting_dollars_per_month"]) == 9_651
    assert round(found["api_dollars_per_month"]) == 17_400
    assert round(found["break_even_tokens_per_month"] / 1e6) == 2_773
    assert found["capacity_tokens_per_month"] == 38_880e6
    assert found["fits"] is False and found["notes"][0].startswith(
        "a hypothesis: 8 × h100-sxm-80gb cannot hold"
    )


def test_every_assumption_names_its_source(quantlab: Run) -> None:
    found = answer(quantlab, *ARTICLE, "--anyway")
    sources = {each["name"]: each["source"] for each in found["assumptions"]}
    assert sources["throughput"] == "as given" and sources["price per GPU"].startswith("2026-05, ")
    assert all(sources.values())
    assert found["api"]["date"] == "2026-05" and found["api"]["source"]


def test_options_override_the_catalogue(quantlab: Run) -> None:
    base = (
        "cost",
        "qwen3.5-9b",
        "awq-4",
        "--gpu",
        "rtx-4090",
        "--tokens-per-month",
        "300M",
        "--against-api",
        "deepseek-v4-flash",
    )
    hired = answer(
        quantlab,
        *base,
        "--price-per-hour",
        "0.5",
        "--hours",
        "700",
        "--input-share",
        "0.8",
        "--cached-share",
        "0.25",
    )
    assert hired["rig"] == {"hardware": 350.0, "power": 0.0, "hosting": 0.0, "total": 350.0}
    assert hired["api_dollars_per_month"] == pytest.approx(180 * 0.04 + 60 * 0.01 + 60 * 0.28)
    bought = answer(
        quantlab,
        *base,
        "--purchase-price",
        "1800",
        "--depreciation-months",
        "18",
        "--power-kw",
        "0.5",
        "--power-price",
        "0.3",
        "--hosting",
        "7",
    )
    assert bought["rig"] == {
        "hardware": 100.0,
        "power": pytest.approx(0.5 * 720 * 0.3),
        "hosting": 7.0,
        "total": pytest.approx(215.0),
    }


def test_an_estimated_throughput_is_marked_and_scales_with_the_efficiency(quantlab: Run) -> None:
    base = (
        "cost",
        "qwen3.5-9b",
        "gptq-4",
        "--gpu",
        "h100",
        "--tokens-per-month",
        "300M",
        "--against-api",
        "kimi-k2.6",
    )
    whole, half = (answer(quantlab, *base, "--efficiency", share) for share in ("1.0", "0.5"))
    assert whole["throughput_kind"] == half["throughput_kind"] == "estimated"
    assert half["decode_tokens_per_second"] == pytest.approx(whole["decode_tokens_per_second"] / 2)
    assert half["capacity_tokens_per_month"] == pytest.approx(whole["capacity_tokens_per_month"] / 2)
    assert any("estimated, not measured" in note for note in whole["notes"])
    assert 1 < whole["batch"] <= 256


def test_a_measured_throughput_takes_its_place(quantlab: Run, here: Path) -> None:
    report = here / "reports" / "qwen3.5-9b"
    (report / "data" / "gptq-4").mkdir(parents=True)
    (report / "tables").mkdir()
    points = [
        {
            "batch": b,
            "context_tokens": 0,
            "prompt_tokens": 100,
            "decode_tokens": 10,
            "prefill_seconds": [0.1],
            "decode_seconds": [0.1],
        }
        for b in (1, 8)
    ]
    speed = {"kernel": "k", "dtype": "bfloat16", "threads": 1, "load_seconds": 1.0, "points": points}
    record = {"model": "qwen3.5-9b", "variant": "gptq-4", "device": "NVIDIA H100 80GB HBM3", "speed": speed}
    (report / "data" / "gptq-4" / "measure.json").write_text(json.dumps(record))
    (report / "tables" / "summary.json").write_text(json.dumps([{"variant": "gptq-4", "status": "measured"}]))
    base = (
        "cost",
        "qwen3.5-9b",
        "gptq-4",
        "--tokens-per-month",
        "300M",
        "--against-api",
        "kimi-k2.6",
        "--price-per-hour",
        "2",
        "--gpu",
    )
    found = answer(quantlab, *base, "h100")
    assert (
        found["throughput_kind"],
        found["decode_tokens_per_second"],
        found["prefill_tokens_per_second"],
    ) == ("measured", 800.0, 8000.0)
    assert answer(quantlab, *base, "h200")["throughput_kind"] == "estimated"


def test_too_many_tokens_take_several_rigs(quantlab: Run) -> None:
    base = (
        "cost",
        "qwen3.5-9b",
        "gptq-4",
        "--gpu",
        "h100",
        "--throughput",
        "100",
        "--against-api",
        "kimi-k2.6",
        "--tokens-per-month",
    )
    found = answer(quantlab, *base, "1000M")
    assert found["rigs"] == 4 and not found["breaks_even"] and found["cheaper"] == "api"
    assert any("that of 4 rigs" in note for note in found["notes"])


def test_the_users_own_prices_are_taken(quantlab: Run, here: Path) -> None:
    (here / "prices.yaml").write_text(
        "api: {mine: {input_dollars: 1, output_dollars: 2, date: 2026-11, source: my contract}}\n"
        "gpus: {l4: {hourly_dollars: {value: 0.5, date: 2026-11, source: my contract}}}\n"
    )
    found = answer(
        quantlab,
        "cost",
        "qwen3.5-4b",
        "gguf-4",
        "--gpu",
        "l4",
        "--tokens-per-month",
        "10M",
        "--against-api",
        "mine",
    )
    assert found["api_dollars_per_month"] == 20.0 and found["rig"]["hardware"] == 360.0


def test_a_person_reads_the_comparison(quantlab: Run) -> None:
    text = quantlab(*ARTICLE, "--anyway").output
    for part in (
        "9,651 dollars a month",
        "17,400 dollars a month",
        "2,773M tokens a month",
        "38,880M",
        "a hypothesis",
        "36 months",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--gpu", "l4", "--tokens-per-month", "5M", "--against-api", "gpt-5.5"),
            "no price of l4 is known: give --price-per-hour",
        ),
        (
            ("--gpu", "h100", "--tokens-per-month", "5M"),
            "no API price of qwen3.5-4b is known: name one with --against-api",
        ),
        (
            ("--gpu", "h100", "--tokens-per-month", "5M", "--against-api", "gpt-5"),
            "unknown API price 'gpt-5': known are gpt-5.5, ",
        ),
        (("--gpu", "h100", "--tokens-per-month", "0"), "cannot be a number of tokens"),
        (("--gpu", "h100:0", "--tokens-per-month", "5M"), "names no GPUs"),
        (("--gpu", "h100", "--tokens-per-month", "5M", "--input-share", "2"), "input-share"),
        (
            (
                "--gpu",
                "h100",
                "--tokens-per-month",
                "5M",
                "--against-api",
                "gpt-5.5",
                "--price-per-hour",
                "1",
                "--purchase-price",
                "1",
            ),
            "not both",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: tuple[str, ...], said: str, refused: Callable[..., str]
) -> None:
    assert said in refused("cost", "qwen3.5-4b", "gguf-4", *arguments)


def test_of_a_bare_name_no_throughput_is_estimated(quantlab: Run, refused: Callable[..., str]) -> None:
    asked = (
        "cost",
        "qwen3.5-72b",
        "awq-4",
        "--gpu",
        "a100",
        "--tokens-per-month",
        "9M",
        "--price-per-hour",
        "1",
        "--against-api",
        "gpt-5.5",
    )
    assert "only its number of parameters is known: give --throughput" in refused(*asked)
    found = answer(quantlab, *asked, "--throughput", "500")
    assert found["verdict"] == "unknown" and any(
        "not certain that it fits" in note for note in found["notes"]
    )


def test_a_variant_that_no_method_offers_is_refused(refused: Callable[..., str]) -> None:
    said = refused(
        "cost", "qwen3.5-4b", "awq-8", "--gpu", "h100", "--tokens-per-month", "5M", "--against-api", "gpt-5.5"
    )
    assert "awq does not offer 8 bits" in said
