"""Convert a GGUF file to dense safetensors, so that a model published only as GGUF becomes a source.

transformers dequantizes the tensors. Its converted tokenizer can lack the pre-tokenizer that the file names
(`tokenizer.ggml.pre`), which a successful conversion does not show; it is set from the table below, and the
token ids are compared with llama.cpp's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def dequantize(gguf: Path, destination: Path) -> None:
    """Write config, tokenizer and bfloat16 safetensors of a GGUF file into a folder.

    Raises QuantlabError where tensors are missing or left over, and what transformers raises for an
    architecture that it cannot read."""
    import torch
    from transformers import GgufConfig

    from quantlab.models.loading import load_model, load_tokenizer

    how: dict[str, Any] = {
        "gguf_file": gguf.name,
        "quantization_config": GgufConfig(dequantize=True),
        "dtype": torch.bfloat16,
    }
    model = load_model(gguf.parent, False, safetensors=False, **how)
    model.save_pretrained(destination)
    tokenizer = load_tokenizer(gguf.parent, False, gguf_file=gguf.name)
    _set_pre_tokenizer(tokenizer, pre_tokenizer_name(gguf))
    tokenizer.save_pretrained(destination)


def pre_tokenizer_name(gguf: Path) -> str:
    """The pre-tokenizer that a GGUF file names, '' where it names none."""
    from gguf import GGUFReader

    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    return str(field.contents()) if field else ""


def _set_pre_tokenizer(tokenizer: Any, name: str) -> None:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    if name == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        )


def tokenization_differences(gguf: Path, tokenizer: Any, passages: Sequence[str]) -> int | None:
    """How many passages llama.cpp tokenizes differently from the tokenizer; None where llama.cpp is not
    installed."""
    try:
        import llama_cpp
    except ModuleNotFoundError:
        return None
    model: Any = llama_cpp.Llama(str(gguf), vocab_only=True, verbose=False)
    try:
        own = [model.tokenize(text.encode(), add_bos=False, special=False) for text in passages]
    finally:
        model.close()
    differing = [
        ids != tokenizer.encode(text, add_special_tokens=False)
        for ids, text in zip(own, passages, strict=True)
    ]
    return differing.count(True)
