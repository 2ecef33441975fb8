"""Compute the bytes of all files of a checkpoint: tensors and tokenizer.

Left out, at most 0.14 % of each of the demo's checkpoints (135M parameters): headers, names of tensors,
config.json and the like."""

from __future__ import annotations

from pathlib import Path

from quantlab import methods
from quantlab.errors import QuantlabError
from quantlab.formats import GGUF
from quantlab.formats.json_file import parse_json
from quantlab.frozen import Frozen
from quantlab.planning.calibration import calibration

_LENGTH, _NUMBER = 8, 4
"""Bytes of a string's length, and of a token's type or score, in a GGUF header
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""


class TokenizerBytes(Frozen):
    """What a tokenizer takes."""

    beside: int
    """Of tokenizer.json."""
    in_gguf: int
    """Of the same in a GGUF header: tokens, their types, merges or scores."""
    counted: bool
    """From the tokenizer's own file; else from the size of the vocabulary, at the bytes per entry of
    calibration.yaml."""


def tokenizer_bytes(vocabulary: int, folder: Path | None = None) -> TokenizerBytes:
    """A tokenizer's bytes, from a folder that has tokenizer.json, else estimated from the number of its
    entries."""
    path = folder / "tokenizer.json" if folder else None
    try:
        if path and path.is_file():
            return _counted(path, vocabulary)
    except (
        QuantlabError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # no tokenizer.json as `tokenizers` writes it
        pass
    about = calibration().tokenizer
    return TokenizerBytes(
        beside=round(about.json_bytes_per_entry * vocabulary),
        in_gguf=round(about.gguf_bytes_per_entry * vocabulary),
        counted=False,
    )


def checkpoint_bytes(weights: int, method: str | None, tokenizer: TokenizerBytes) -> int:
    """Bytes of a checkpoint's files, whose tensors take `weights`; None for a release as stored, which has a
    tokenizer beside."""
    maker = methods.load(method) if method else None
    if maker and maker.format == GGUF:
        return weights + tokenizer.in_gguf
    return weights + (tokenizer.beside if maker is None or maker.stores_tokenizer else 0)


def _counted(path: Path, vocabulary: int) -> TokenizerBytes:
    """As llama.cpp's converter writes it: byte-level BPE with its merges, the others with scores instead."""
    text = path.read_bytes()
    about = parse_json(text)
    model, added = about["model"], about.get("added_tokens") or []
    entries = model["vocab"]
    tokens = {piece if isinstance(piece, str) else piece[0] for piece in entries} | {
        token["content"] for token in added
    }
    padding = [f"[PAD{n}]" for n in range(len(tokens), vocabulary)]
    size = sum(_LENGTH + len(token.encode()) + _NUMBER for token in (*tokens, *padding))
    if model.get("merges") and not model.get("byte_fallback"):
        merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
        size += sum(_LENGTH + len(merge.encode()) for merge in merges)
    else:
        size += _NUMBER * max(len(tokens), vocabulary)
    return TokenizerBytes(beside=len(text), in_gguf=size, counted=True)
