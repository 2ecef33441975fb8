"""A tiny random Llama with a Llama-2-like tokenizer, its F16 GGUF and importance matrix, made once per
session."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_llama import ARCHITECTURE, write_tokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the unquantized model in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    tokenizer = write_tokenizer(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **ARCHITECTURE)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dense(source: Path) -> Any:
    """The same model in transformers."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source, dtype="float32").eval()


@pytest.fixture(scope="session")
def token_ids(source: Path) -> NDArray[np.int64]:
    """Windows (4, 128) of tokens that the tokenizer could give."""
    return np.random.default_rng(0).integers(3, 300, (4, 128))


@pytest.fixture(scope="session")
def prepared(source: Path, token_ids: NDArray[np.int64], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with f16.gguf and imatrix.gguf."""
    from quantlab.methods._gguf import converter, importance
    from quantlab.progress import Progress

    folder = tmp_path_factory.mktemp("prepared")
    converter.convert(source, folder / "f16.gguf", folder / "convert.log")
    importance.save(
        importance.compute(folder / "f16.gguf", token_ids, Progress(quiet=True)), folder / "imatrix.gguf"
    )
    return folder


@pytest.fixture(scope="session")
def quantized(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a checkpoint's GGUF file at a width with the method, afresh at every call."""
    from quantlab.methods import Job, gguf
    from quantlab.progress import Progress

    def make(bits: int, **settings: Any) -> Path:
        folder = tmp_path_factory.mktemp(f"gguf-{bits}")
        calibration = np.zeros((1, 16), np.int64)
        gguf.METHOD.quantize(
            Job(
                prepared, bits, gguf.Settings(**settings), calibration, folder, "cpu", 0, Progress(quiet=True)
            )
        )
        return folder / gguf.FILE

    return make


@pytest.fixture
def open_engine(source: Path) -> Any:
    """Open the engine on a GGUF file; closed after the test."""
    from quantlab.engines.llama_cpp import LlamaCppEngine

    opened: list[LlamaCppEngine] = []

    def make(file: Path) -> LlamaCppEngine:
        opened.append(LlamaCppEngine(file, source, "cpu"))
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()
