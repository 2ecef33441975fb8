"""A part of the table of architectures, through the pipeline's own stages; and how an outcome is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from _architectures_table import outcome, page

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

ROUNDED = {"8": 0.001, "4": 0.1, "3": 0.4, "2": 1.0}


@pytest.mark.slow
@pytest.mark.architectures
@pytest.mark.parametrize("family", ["qwen3_5_moe_text"])
def test_cells_of_a_family_work(family: str, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    command = [sys.executable, str(BENCHMARKS / "architectures.py"), "run", "--families", family]
    command += ["--variants", "gguf-4,bitsandbytes-4", "--results", str(results), "--work", str(tmp_path)]
    subprocess.run(command, check=True)
    shared, *cells = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    said = {cell["variant"]: outcome(cell, shared["rounded"], cell["variant"]) for cell in cells}
    assert said == {"gguf-4": "works", "bitsandbytes-4": "works"}, cells


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
