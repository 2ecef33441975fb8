"""Calibration tokens of each expert, as methods record them, beside counts that are computed here: the unquantized
model's routers are asked on the calibration text."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from trained import RECIPE
from transformers import AutoModelForCausalLM

from quantlab.files import write_text
from quantlab.hardware.device import find
from quantlab.models.tiny import family, write_model
from quantlab.progress import Progress
from quantlab.records import DivergenceRecord, QuantizeRecord
from quantlab.stages import convert, diverge, prepare, quantize, reference, report
from quantlab.workspace.cell import Cell
from quantlab.workspace.results import write_record

pytestmark = pytest.mark.engines
QUIET = Progress(quiet=True)
EXPERTS, PER_TOKEN, BLOCKS = 16, 2, 2
TOKENS = 32
"""So few that some experts see none."""
VARIANTS: dict[str, dict[str, Any]] = {
    "gptq-4": {"group_size": 32},
    "gguf-4": {},
    "autoround-4": {"group_size": 32, "iterations": 2},
}
FEW_ARE = {
    "gptq-4": "GPTQModel rounds them to nearest",
    "gguf-4": "llama.cpp weighs their columns by those few, and alike where there are none",
    "autoround-4": "auto-round learns their rounding from those few, and rounds to nearest where there are none",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("experts")
    tiny = family("qwen3_moe")
    fields = {**tiny.fields, "num_experts": EXPERTS, "num_hidden_layers": BLOCKS}
    source = write_model(tiny._replace(fields=fields), root / "tiny")
    recipe = RECIPE | {"model": "m", "source": {"path": str(source)}, "variants": VARIANTS}
    recipe["calibration"] = {"text": "embedded", "windows": 1, "length": TOKENS}
    write_text(root / "recipes" / "m.yaml", yaml.safe_dump(recipe))
    prepare.run(root, "m", QUIET)
    convert.run(root, "m", root / "convert.log", QUIET)
    reference.run(root, "m", find("cpu"), QUIET)
    return root


@pytest.fixture(scope="module")
def counted(root: Path) -> dict[int, np.ndarray]:
    """Tokens by block and expert, from the routers' own outputs; before GPTQModel replaces their classes."""
    prepared = Cell(root, "m", "gptq-4").prepared
    model: Any = AutoModelForCausalLM.from_pretrained(prepared.weights, dtype=torch.float32)
    found = {block: np.zeros(EXPERTS, int) for block in range(BLOCKS)}

    def count(block: int, _module: Any, _inputs: Any, output: Any) -> None:
        found[block] += np.bincount(output[2].flatten(), minlength=EXPERTS)

    for block, layer in enumerate(model.model.layers):
        layer.mlp.gate.register_forward_hook(functools.partial(count, block))
    with torch.no_grad():
        for ids in prepared.token_ids("calibration"):
            model(input_ids=torch.from_numpy(ids)[None])
    return found


@pytest.fixture(scope="module")
def records(root: Path, counted: dict[int, np.ndarray]) -> dict[str, tuple[QuantizeRecord, DivergenceRecord]]:
    made = {}
    for slug in VARIANTS:
        cell = Cell(root, "m", slug)
        made[slug] = quantize.run(cell, find("cpu"), QUIET), diverge.run(cell, find("cpu"), QUIET)
        for record in made[slug]:
            write_record(root, record)
    return made


@pytest.mark.parametrize("slug", VARIANTS)
def test_the_recorded_tokens_are_those_that_the_routers_choose(
    slug: str, records: dict[str, Any], counted: dict[int, np.ndarray]
) -> None:
    tokens = records[slug][0].expert_tokens
    assert tokens and tokens.calibration_tokens == TOKENS and tuple(tokens.by_block) == tuple(range(BLOCKS))
    for block, found in tokens.by_block.items():
        assert sum(found) == sum(counted[block]) == PER_TOKEN * TOKENS
        # close calls are rounded otherwise, and GPTQModel's second block sees what it made of the first
        assert np.abs(np.array(found) - counted[block]).sum() <= 2 * (block + 1)


@pytest.mark.parametrize("slug", VARIANTS)
def test_experts_that_saw_nothing_are_counted_and_said(
    slug: str, records: dict[str, Any], counted: dict[int, np.ndarray]
) -> None:
    record = records[slug][0]
    tokens = record.expert_tokens
    assert counted[0].tolist().count(0) >= 1
    limit = 0.005 * TOKENS
    below = [found for block in tokens.by_block.values() for found in block if found < limit]
    assert (tokens.few, tokens.none) == (len(below), below.count(0)) and tokens.none >= 1
    assert tokens.few_are == FEW_ARE[slug]
    assert tokens.rounded == (tokens.few if slug == "gptq-4" else None)
    said = f"{tokens.few} of {BLOCKS * EXPERTS} experts saw fewer than 0.5 % of the calibration tokens"
    assert any(said in note and FEW_ARE[slug] in note for note in record.notes)


@pytest.mark.parametrize("slug", VARIANTS)
def test_routing_is_read_from_every_form_of_checkpoint(slug: str, records: dict[str, Any]) -> None:
    changes = records[slug][1].routing_changes
    assert changes and records[slug][1].routing_changes_reason is None
    assert 0 < changes.changed_token_share.value < 1
    assert tuple(changes.changed_token_share_by_block) == tuple(range(BLOCKS))


def test_the_report_has_all_of_it(root: Path, records: dict[str, Any]) -> None:
    text = report.run(root, "m").read_text(encoding="utf-8")
    section = text[text.index("### Calibration tokens by expert") :]
    lines = section[: section.index("### Routing changes")].splitlines()
    for slug in VARIANTS:
        row = next(line for line in lines if line.startswith(f"| {slug}"))
        tokens = records[slug][0].expert_tokens
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        assert cells[:3] == [str(TOKENS), str(BLOCKS * EXPERTS), str(tokens.few)]
        assert f"With few tokens: {FEW_ARE[slug]}." in section
    assert "plots/experts.svg" in text and "plots/routing.svg" in text
