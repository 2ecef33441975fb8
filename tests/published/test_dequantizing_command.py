"""The command that is printed for a model that is quantized already, run as it is printed: what it leaves is
prepared, and is the checkpoint's own weights, dequantized by hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from trained import RECIPE
from transformers import AutoModelForCausalLM

from quantlab.errors import QuantlabError
from quantlab.files import write_text
from quantlab.models import check_folder
from quantlab.models.tiny import write_tiny_model
from quantlab.progress import Progress
from quantlab.stages import prepare
from quantlab.workspace.prepared import Prepared

from . import checkpoints, dequantized

pytestmark = pytest.mark.engines
Made = Callable[[Path, Path], Path]
KINDS: dict[str, tuple[str, Made]] = {
    "FP8 with a scale per block": ("llama", checkpoints.fp8_blocks),
    "MXFP4 experts": ("gpt_oss", checkpoints.mxfp4_experts),
    "compressed-tensors W4A16": ("llama", lambda base, to: checkpoints.compressed(base, to, "W4A16")),
}


def _printed(folder: Path) -> str:
    """The command of the refusal."""
    with pytest.raises(QuantlabError, match="is quantized already") as raised:
        check_folder(folder)
    found = re.search(r"or dequantize it with `(.*)` and name NEW$", str(raised.value), re.DOTALL)
    assert found, raised.value
    return found[1]


def _run(command: str, folder: Path) -> None:
    """In a shell, as a person pastes it; `python` is this one."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def _by_hand(base: Path, quantized: Path, kind: str) -> dict[str, torch.Tensor]:
    """The weights that the checkpoint's codes stand for, in bfloat16, by their names in transformers."""
    if kind != "MXFP4 experts":
        weights: dict[str, torch.Tensor] = dequantized.model(base, quantized, None).state_dict()
        return weights
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    for module in model.modules():
        for name in ("gate_up_proj", "down_proj"):
            if isinstance(parameter := getattr(module, name, None), torch.nn.Parameter):
                parameter.data = checkpoints.rounded_to_mxfp4(parameter.data.mT).mT.to(torch.bfloat16)
    made: dict[str, torch.Tensor] = model.state_dict()
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_command_gives_a_model_that_is_prepared(kind: str, tmp_path: Path) -> None:
    family, make = KINDS[kind]
    base = write_tiny_model(family, tmp_path / "base")
    quantized = make(base, tmp_path / "it's quantized")  # a name that a shell and Python must be told of
    _run(_printed(quantized), tmp_path)

    recipe = RECIPE | {"model": "new", "source": {"path": str(tmp_path / "NEW")}, "variants": {}}
    write_text(tmp_path / "recipes" / "new.yaml", yaml.safe_dump(recipe))
    prepare.run(tmp_path, "new", Progress(quiet=True))
    prepared = Prepared(tmp_path, "new")
    assert prepared.source().dtype == "bfloat16" and prepared.source().quantized_as is None
    files = sorted((tmp_path / "NEW").glob("*.safetensors"))
    assert {tensor.dtype for file in files for tensor in load_file(file).values()} <= {
        torch.bfloat16,
        torch.float32,  # corrections that releases keep so
    }
    model: Any = AutoModelForCausalLM.from_pretrained(prepared.weights, dtype=torch.bfloat16)
    found, expected = model.state_dict(), _by_hand(base, quantized, kind)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        # a product of a code and a scale may be rounded to bfloat16 once more on the way
        assert torch.allclose(found[name].float(), tensor.float(), rtol=2**-7, atol=1e-6), name
    original = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).state_dict()
    assert any(not torch.equal(found[name], original[name]) for name in found)
