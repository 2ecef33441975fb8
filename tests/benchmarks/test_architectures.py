"""A part of the table of architectures, through the pipeline's own stages; and how an outcome is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _architectures_table import outcome, page
from architectures import read_results

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

ROUNDED = {"8": 0.001, "4": 0.1, "3": 0.4, "2": 1.0}


CELLS = {
    "llama": "gguf-2",
    "gemma3_text": "awq-4",
    "phi3": "bitsandbytes-8",
    "gpt2": "bitsandbytes-4",
    "falcon_h1": "gguf-8",
    "qwen3_5_text": "gptq-2",
    "qwen3_5_moe_text": "gptq-4",
    "qwen3_moe": "autoround-4",
    "mixtral": "fp8-8",
    "deepseek_v3": "gptq-4",
    "deepseek_v4": "gguf-4",
    "llama4_text": "bitsandbytes-4",
    "gpt_oss": "awq-4",
    "mistral3": "gptq-4",
}
"""A third of the families, with every method and width at least once; `make test-architectures` runs all."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """What came of the cells, run one after another."""
    folder = tmp_path_factory.mktemp("architectures")
    cells = ",".join(f"{family}:{variant}" for family, variant in CELLS.items())
    command = [sys.executable, str(BENCHMARKS / "architectures.py"), "run", "--cells", cells]
    command += ["--results", str(folder / "results.jsonl"), "--work", str(folder / "work")]
    subprocess.run(command, check=True)
    return read_results(folder / "results.jsonl")


@pytest.mark.slow
@pytest.mark.architectures
@pytest.mark.parametrize(("family", "variant"), CELLS.items())
def test_a_cell_works(family: str, variant: str, results: dict[tuple[str, str], dict[str, Any]]) -> None:
    rounded = results[family, ""].get("rounded")
    assert rounded, results[family, ""]
    cell = results[family, variant]
    assert outcome(cell, rounded, variant) == "works", cell


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ({"nats": 0.12}, "works"),
        ({"nats": 0.26}, "wrong"),
        ({"kind": "unsupported", "reason": "the library does not know it"}, "refused"),
        ({"kind": "broken_checkpoint", "reason": "what was saved is not what was quantized"}, "fails"),
        ({"kind": "time", "reason": "not done"}, "fails"),
    ],
)
def test_a_cell_works_is_refused_fails_or_is_wrong(cell: dict[str, object], said: str) -> None:
    assert outcome(cell, ROUNDED, "gptq-4") == said


def test_a_file_of_16_bits_is_at_the_noise_unless_a_token_goes_to_other_experts() -> None:
    assert outcome({"nats": 2e-6}, ROUNDED, "gguf-16") == "works"
    assert outcome({"nats": 0.005}, ROUNDED, "gguf-16") == "wrong"
    assert outcome({"nats": 0.005, "rerouted": 0.004}, ROUNDED, "gguf-16") == "works"
    assert outcome({"nats": 0.06, "rerouted": 0.004}, ROUNDED, "gguf-16") == "wrong"


def test_gguf_is_held_against_rounding_of_the_head_too() -> None:
    whole = ROUNDED | {"4-whole": 0.4}
    assert outcome({"nats": 0.5}, whole, "gguf-4") == "works"
    assert outcome({"nats": 0.5}, whole, "gptq-4") == outcome({"nats": 0.5}, ROUNDED, "gguf-4") == "wrong"


def test_fp8_is_held_against_four_bits() -> None:
    assert outcome({"nats": 0.09}, ROUNDED, "fp8-8") == "works"
    assert outcome({"nats": 0.11}, ROUNDED, "fp8-8") == "wrong"


def test_the_page_names_the_reason_and_the_nearest_that_works() -> None:
    results = {
        ("mixtral", ""): {"rounded": ROUNDED},
        ("mixtral", "gguf-4"): {"nats": 0.11, "promised_in_16_bits": 0.0},
        ("mixtral", "bitsandbytes-4"): {"nats": 0.1, "promised_in_16_bits": 0.7, "in_16_bits": 0.72},
        ("mixtral", "awq-4"): {"stage": "quantize", "kind": "unsupported", "reason": "no mapping"},
    }
    text = page(results)
    assert "| mixtral | 0.100 | 0.11 | 0.1 (72%) | refused |" in text
    assert (
        "- **mixtral, awq-4** in quantize: no mapping. Nearest that works: bitsandbytes-4 (0.1 nats)." in text
    )
    assert "| awq-4 | 0 | 1 | 0 | 0 |" in text
