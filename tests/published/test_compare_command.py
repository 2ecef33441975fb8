"""`quantlab compare` as it is typed, on checkpoints that the formats' own libraries made: each loss is the one
that their own functions give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from trained import RECIPE
from transformers import AutoModelForCausalLM

from quantlab.models.tiny import write_tiny_model

from . import checkpoints, dequantized, made, unpacked

pytestmark = pytest.mark.engines
FAMILIES = ("llama", "qwen3_moe")
PUBLISHED = ("W4A16", "W8A8", "FP8_DYNAMIC", "NVFP4A16", "MXFP4A16")
ROUNDINGS = {
    "W8A8": dequantized.int8_per_token,
    "FP8_DYNAMIC": dequantized.fp8_per_token,
    "modelopt": dequantized.fp8_fixed,
}
"""Of what enters a layer; the loss by hand is then taken in float32."""
ACTIVATIONS_OF_GGUF = 0.35
"""By how much of itself a loss in llama.cpp differs from that of the file's weights: on a CPU it rounds what enters
a layer to 8 bits, which no library's dequantization has."""


class Compared(NamedTuple):
    """A folder in which the command was typed."""

    folder: Path
    said: dict[str, Any]
    """What it printed."""
    slugs: dict[str, str]
    """By the checkpoint's name."""

    @property
    def workspace(self) -> Path:
        return Path(self.said["workspace"])

    def record(self, name: str, stage: str) -> dict[str, Any]:
        place = self.workspace / "reports" / self.said["model"] / "data" / self.slugs[name]
        found: dict[str, Any] = json.loads((place / f"{stage}.json").read_text())
        return found


def _made(base: Path, place: Path) -> dict[str, Path]:
    """Checkpoints of a base by name; a GGUF file is there whole and in parts."""
    found = {
        kind: made.make(kind, base, place / f"{kind}{'.gguf' * (kind == 'gguf')}") for kind in made.KINDS
    }
    made.split(found["gguf"], place / "split.gguf")
    found["split"] = next(place.glob("split-00001-of-*.gguf"))
    found |= {name: checkpoints.compressed_apart(base, place / name, name) for name in PUBLISHED}
    found["modelopt"] = checkpoints.modelopt(base, place / "modelopt", "FP8")
    made.other_settings(found["gptq"])
    return found


@pytest.fixture(scope="module", params=FAMILIES)
def compared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    folder = tmp_path_factory.mktemp(request.param)
    base = write_tiny_model(request.param, folder / "base")
    found = _made(base, folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    typed = ["compare", "./base", *(f"./{path.relative_to(folder)}" for path in found.values())]
    command = [str(Path(sys.executable).parent / "quantlab"), *typed, "--recipe", "recipe.yaml", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    places = {about["checkpoint"]: slug for slug, about in said["checkpoints"].items()}
    return Compared(folder, said, {name: places[str(path)] for name, path in found.items()})


def _log_softmax(model: Any, ids: Any) -> np.ndarray:
    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(ids)[None]).logits[0].double()
        return torch.log_softmax(logits, -1).numpy()


def _by_hand(compared: Compared, dense: Any) -> float:
    """Mean divergence over the second half of every window, whose last token has no next one."""
    reference = AutoModelForCausalLM.from_pretrained(compared.folder / "base", dtype=torch.float32)
    windows = np.load(next((compared.workspace / "models" / compared.said["model"]).rglob("evaluation.npy")))
    losses = []
    for ids in windows:
        rows = slice(len(ids) // 2, len(ids) - 1)
        p, q = _log_softmax(reference, ids)[rows], _log_softmax(dense, ids)[rows]
        losses.append((np.exp(p) * (p - q)).sum(1).mean())
    return float(np.mean(losses))


@pytest.mark.parametrize("name", ["gptq", "awq", "autoround", "bitsandbytes", *PUBLISHED, "modelopt"])
def test_the_loss_is_that_of_the_librarys_own_function(name: str, compared: Compared, tmp_path: Path) -> None:
    record = compared.record(name, "divergence")
    assert record["failure"] is None, record["failure"]
    measured = record["kl_divergence_nats"]["value"]
    folder = unpacked.write_dense(compared.folder / "base", compared.folder / name, tmp_path / "dense")
    rounding = ROUNDINGS.get(name)
    dtype = torch.float32 if rounding or record["dtype"].startswith("float32") else torch.bfloat16
    dense = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    if rounding:
        dequantized.round_inputs(dense, rounding)
    expected = _by_hand(compared, dense.eval())
    print(f"{name}: {measured:.5f} measured, {expected:.5f} by hand, in {record['dtype']}")
    assert measured == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("name", ["gguf", "split"])
def test_the_loss_of_a_gguf_file_is_that_of_its_weights_and_of_activations_in_8_bits(
    name: str, compared: Compared
) -> None:
    record = compared.record(name, "divergence")
    assert record["failure"] is None, record["failure"]
    measured = record["kl_divergence_nats"]["value"]
    if "experts" in (compared.folder / "base" / "config.json").read_text():
        assert 0.001 < measured < 0.2  # transformers does not import a mixture of this shape
        return
    dense = AutoModelForCausalLM.from_pretrained(compared.folder, gguf_file="gguf.gguf", dtype=torch.float32)
    expected = _by_hand(compared, dense.eval())
    print(f"{name}: {measured:.5f} measured, {expected:.5f} by hand")
    assert measured == pytest.approx(expected, rel=ACTIVATIONS_OF_GGUF)


def test_a_split_file_is_the_whole_one(compared: Compared) -> None:
    whole, parts = (compared.record(name, "divergence") for name in ("gguf", "split"))
    assert whole["kl_divergence_nats"]["value"] == parts["kl_divergence_nats"]["value"]
    sizes = [compared.record(name, "quantize")["stored_bytes"] for name in ("gguf", "split")]
    assert sizes[0] == sizes[1]


def test_what_a_checkpoint_changed_beside_the_weights_is_named(compared: Compared) -> None:
    notes = " ".join(compared.said["checkpoints"][compared.slugs["gptq"]]["notes"])
    assert "padding_side is 'left'" in notes
    assert "Its chat template is not the model's" in notes
    assert "generation_config.json differs from the model's" in notes and "temperature is 0.1" in notes
    others = " ".join(compared.said["checkpoints"][compared.slugs["modelopt"]]["notes"])
    assert "differs from the model's" not in others and "chat template" not in others
    report = Path(compared.said["report"]).read_text()
    assert "Its chat template is not the model's" in report and compared.slugs["gptq"] in report
