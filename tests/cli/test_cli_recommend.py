"""`quantlab recommend`: the ranked answer, its commands, and what is refused."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from quantlab.cli import main

Run = Callable[..., Result]


def answer(quantlab: Run, *arguments: str) -> dict[str, Any]:
    result = quantlab("recommend", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_card_of_24_gb_gets_models_that_fit_it(quantlab: Run) -> None:
    found = answer(quantlab, "--vram", "24GB", "--context", "32k")
    usable = found["request"]["max_memory_bytes"]
    assert usable == 24 * 10**9
    first = found["ranked"][0]
    assert first["memory_bytes"]["high"] <= usable and first["open"] in ([], ["drop"])
    assert all(each["memory_bytes"]["low"] <= usable for each in found["ranked"])
    assert all(each["reasons"] for each in (*found["ranked"], *found["rejected"]))
    assert any(each["model"] == "deepseek-v4-pro" for each in found["rejected"])
    assert any(change["limit"] == "memory" and change["then"] for change in found["changes"])


def test_every_figure_says_how_it_is_known(quantlab: Run) -> None:
    for each in answer(quantlab, "--gpu", "rtx-4090", "--use", "code")["ranked"]:
        for name in ("drop_points", "divergence_nats", "decode_tokens_per_second", "memory_bytes"):
            figure = each[name]
            assert figure["kind"] in ("measured", "interpolated", "estimated", "unknown")
            assert figure["source"], (each["model"], each["variant"], name)
            assert (figure["value"] is None) == (figure["kind"] == "unknown")


def test_published_scores_decide_where_there_are_some(quantlab: Run) -> None:
    models = [each["model"] for each in answer(quantlab, "--gpu", "h200:8", "--use", "code")["ranked"]]
    order = list(dict.fromkeys(models))
    assert order[:4] == ["deepseek-v4-pro", "kimi-k2.6", "qwen3.5-397b-a17b", "llama-4-maverick"]
    assert "qwen3.5-27b" in order[4:]


def test_licences_are_kept(quantlab: Run) -> None:
    found = answer(
        quantlab, "--vram", "24GB", "--context", "32k", "--license", "apache-2.0", "--license", "MIT"
    )
    assert {each["licence"].lower() for each in found["ranked"]} <= {"apache-2.0", "mit"}


def test_the_commands_are_for_the_first_one(quantlab: Run, here: Path) -> None:
    found = answer(quantlab, "--gpu", "rtx-4090", "--context", "8k")
    first = found["ranked"][0]
    words = shlex.split(found["measure"])
    assert words[:3] == ["quantlab", "run", first["model"]]
    # the command line that is printed is one that `run` takes
    context = main.get_command(None, "run").make_context("run", words[2:])  # type: ignore[arg-type,union-attr]
    assert context.params["model"] == first["model"]
    folder = f"runs/{first['model']}/checkpoints/{first['model']}/{first['variant']}"
    assert folder in found["serve"]["command"] or first["variant"].startswith("baseline")
    made = here / "checkpoints" / first["model"] / first["variant"]
    made.mkdir(parents=True)
    (made / "manifest.json").write_text("{}")
    assert (
        f" checkpoints/{first['model']}/{first['variant']}"
        in answer(quantlab, "--gpu", "rtx-4090", "--context", "8k")["serve"]["command"]
    )


def test_a_person_reads_a_table_reasons_and_commands(quantlab: Run) -> None:
    text = quantlab("recommend", "--vram", "24GB", "--context", "32k", "--top", "3").output
    for part in (
        "24.00 GB usable",
        "why ",
        "rejected (by ",
        "measure it:",
        "serve it:",
        "m measured here",
        "instead of 24.00 GB",
    ):
        assert part in text


def test_the_same_question_has_the_same_answer(quantlab: Run) -> None:
    asked = ("recommend", "--gpu", "rtx-4090", "--min-speed", "30", "--json")
    assert quantlab(*asked).stdout == quantlab(*asked).stdout


def test_edge_is_8_gb_and_long_context_is_128k_by_default(quantlab: Run) -> None:
    assert answer(quantlab, "--use", "edge")["request"]["max_memory_bytes"] == 8 * 10**9
    assert answer(quantlab, "--use", "long-context", "--vram", "8GB")["request"]["context_tokens"] == 131_072


def test_nothing_certain_says_how_many_may(quantlab: Run) -> None:
    result = quantlab("recommend", "--gpu", "rtx-4090", "--min-speed", "30", "--certain")
    assert "no variant certainly keeps these limits; without --certain" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--vram", "24"), "cannot be an amount of memory"),
        (("--vram", "24GB", "--gpu", "l4"), "not both"),
        (("--gpu", "rtx-5091"), "unknown GPU 'rtx-5091': known are rtx-5090, "),
        (
            ("--license", "apache", "--vram", "24GB", "--context", "32k"),
            "unknown licence 'apache': known are apache-2.0, ",
        ),
        (("--context", "0"), "cannot be a context"),
        (("--max-drop", "-1"), "max-drop"),
        (("--use", "poetry"), "poetry"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: tuple[str, ...], said: str, refused: Callable[..., str]
) -> None:
    assert said in refused("recommend", *arguments)


@pytest.mark.parametrize("option", ["--min-speed", "--max-drop"])
@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf", "x"])
def test_limits_are_finite_numbers(option: str, wrong: str, refused: Callable[..., str]) -> None:
    assert option in refused("recommend", "--vram", "24GB", option, wrong)
