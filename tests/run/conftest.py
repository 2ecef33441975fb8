"""What the end-to-end tests share: the command, and a tiny random Qwen3.5."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantlab.models.tiny.tokenizer import PIECES, SIZE, write_tokenizer


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3.5 (gated delta net and full attention), 32 linear value heads so that every layer
    packs."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-qwen3.5"
    write_tokenizer(folder, pieces=False)
    config = AutoConfig.for_model(
        "qwen3_5_text",
        vocab_size=SIZE,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        linear_num_key_heads=16,
        linear_num_value_heads=32,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=PIECES,
        eos_token_id=PIECES + 1,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def _call(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [str(Path(sys.executable).parent / "quantlab"), *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="session")
def run_quantlab() -> Callable[..., dict[str, Any]]:
    """Call the installed command in a folder with --json and return what it printed."""
    return _call


@pytest.fixture
def quantlab(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The same in a folder of the test's own."""
    return lambda *arguments: _call(tmp_path, *arguments)
