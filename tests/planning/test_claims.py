"""docs/claims.md is what the planner says today, and says what was worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from claims import Claim, agree, together
from claims.money import example

DOCS = Path(__file__).parents[2] / "docs" / "claims.md"
FACTS = Path(__file__).parents[3] / "shared" / "facts" / "claims.json"


CODE = """
import json, sys
from claims import __main__ as page
claims = [claim for each in page.sections().values() for claim in each]
print(json.dumps({"document": page.document(), "claims": claims, "torch": "torch" in sys.modules}))
"""


class Made(NamedTuple):
    """The page as a process of its own makes it."""

    document: str
    claims: dict[str, Claim]
    torch: bool


@pytest.fixture(scope="module")
def made() -> Made:
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=DOCS.parent, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    return Made(found["document"], {claim[0]: Claim(*claim) for claim in found["claims"]}, found["torch"])


def test_the_page_is_what_the_planner_says(made: Made) -> None:
    assert DOCS.read_text(encoding="utf-8") == made.document, "run `cd docs && python -m claims > claims.md`"


def test_no_torch_is_needed(made: Made) -> None:
    assert not made.torch


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("Gemma 3 is under Apache 2.0.", "wrong"),
        ("Kimi K2.6 takes a context of 1M tokens.", "wrong"),
        ("DeepSeek V4-Pro has 1,600B parameters, 49B of them active.", "right"),
        ("V4-Pro runs quantized on 10 × H100 80GB.", "wrong"),
        ("A 72B model at 4 bits fits one RTX 5090.", "wrong"),
        ("A 72B model at 4 bits fits 2 × RTX 5090.", "right"),
        ("8 × H100 serve V4-Pro at about 15,000 tokens/s.", "wrong"),
        ("5,000M output tokens a month of V4-Pro cost 17,400 dollars through the API.", "right"),
        ("The same tokens cost about 9,653 dollars on 8 × H100.", "wrong"),
        ("Both cost the same at about 2,774M tokens a month.", "wrong"),
        ("V4-Flash costs 0.04 dollars per million input tokens.", "doubted"),
    ],
)
def test_verdicts_that_are_known(said: str, verdict: str, made: Made) -> None:
    assert made.claims[said].verdict == verdict


def test_figures_that_are_known(made: Made) -> None:
    for figure in (
        "70,272",
        "516,096",
        "327,680",
        "30,720",
        "9,651 dollars",
        "2,773M",
        "38,880M",
        "1,598.8B",
        "0.122",
        "262,144",
        "517 GB",
    ):
        assert figure in made.document


def test_the_articles_example_comes_from_the_catalogues_prices() -> None:
    found = example()
    assert (round(found.self_hosting_dollars_per_month), round(found.break_even_tokens_per_month / 1e6)) == (
        9_651,
        2_773,
    )


def test_every_claim_says_how_it_was_checked_or_that_it_was_not(made: Made) -> None:
    assert len(made.claims) > 50
    for claim in made.claims.values():
        assert claim.said.endswith(".") and claim.found
        assert claim.how or claim.verdict == "not checked"


def test_verdicts_on_figures() -> None:
    assert [agree(100, found) for found in (100, 98.1, 102.1, 109, 115)] == [
        "right",
        "right",
        "near",
        "near",
        "wrong",
    ]
    assert [together("right", "near"), together("right", "wrong"), together("wrong", "wrong")] == [
        "near",
        "right in part",
        "wrong",
    ]


@pytest.mark.shared
@pytest.mark.skipif(not FACTS.is_file(), reason="the folder ../shared is not there")
def test_no_claim_that_is_known_to_be_wrong_is_called_right(made: Made) -> None:
    known = json.loads(FACTS.read_text(encoding="utf-8"))
    assert len(known) <= len(made.claims)
    for mine, theirs in (
        ("Gemma 3 is under Apache 2.0.", "Gemma 3 is Apache 2.0"),
        ("DeepSeek V4 attends with MLA, the latent attention of V3.", "V4 uses MLA"),
        ("There are Qwen3.5-72B, Qwen3.5-7B and Llama 4-8B.", "Qwen3.5-72B, Qwen3.5-7B, Llama 4-8B exist"),
        ("V4-Pro runs quantized on 10 × H100 80GB.", "V4-Pro on 10xH100"),
        ("Qwen3.5-397B in 16 bits, 794 GB, takes about 10 × H100.", "FAQ: 794 GB ~ 10xH100"),
    ):
        assert (
            made.claims[mine].verdict
            == next(each["verdict"] for each in known if each["claim"] == theirs)
            == "wrong"
        )
