"""Turn a GGUF file into the dense model that everything is compared with, and check that it is the same.

transformers reads a file's weights and not all of its settings: it drops the scaling of rotary positions and
the biases of some architectures without a word, and what comes out speaks like another model. llama.cpp runs
the file itself; on one window the two must agree."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.environments.versions import installed
from quantlab.errors import CellFailure, QuantlabError
from quantlab.formats.gguf import declared_type, stored_tensors
from quantlab.formats.gguf_parts import parts_of
from quantlab.formats.gguf_types import is_plain
from quantlab.progress import Progress
from quantlab.scratch import PARTIAL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_NATS = 0.05
"""Mean divergence that is still the same model. On a CPU llama.cpp rounds activations to 8 bits:
Gemma 3 270M in Q4_K_M reads 0.0059 so, SmolLM2 in Q4_1 0.0032, F16 files 2e-5.
A dropped setting reads 3.7 to 5.4."""
CHECK_TOKENS = 256


def from_gguf(gguf: Path, folder: Path, log: Path, progress: Progress) -> tuple[str, ...]:
    """Write the dequantized model into a folder; what a reader of its numbers must know.

    Raises QuantlabError where transformers cannot read the file, or reads another model out of it."""
    from quantlab.models.dequantize import dequantize
    from quantlab.models.loading import load_tokenizer
    from quantlab.models.text import embedded_passages

    with progress.step(f"dequantizing {gguf.name} to bfloat16"), _whole(gguf, folder) as file:
        dequantize(file, folder)
    passages, tokenizer = embedded_passages("evaluation")[:300], load_tokenizer(folder, False)
    stored_as = quantized_as(gguf)
    first = (
        f"The reference is {gguf.name} dequantized to bfloat16: its weights were quantized once already"
        f" ({stored_as})."
        if stored_as
        else f"The reference is {gguf.name}, stored in bfloat16."
    )
    with progress.step(f"comparing {gguf.name} with llama.cpp"):
        compared = _compared(gguf, folder, tokenizer, passages, log)
    return (first, *_tokenization(gguf, tokenizer, passages), compared)


def quantized_as(gguf: Path) -> str | None:
    """The type of the file by its header, else the one that most of its quantized weights have; None where
    none is quantized."""
    weights: collections.Counter[str] = collections.Counter()
    for tensor in stored_tensors(gguf):
        if not is_plain(tensor.type):
            weights[tensor.type] += tensor.elements
    if not weights:
        return None
    named = declared_type(parts_of(gguf)[0])
    return named if named and not is_plain(named) else weights.most_common(1)[0][0]


@contextmanager
def _whole(gguf: Path, folder: Path) -> Iterator[Path]:
    """The file itself, or for the block one file joined of its parts: transformers reads the first alone."""
    if len(parts_of(gguf)) == 1:
        yield gguf
        return
    from quantlab.methods._gguf.joined import join

    with tempfile.TemporaryDirectory(dir=folder, prefix=PARTIAL) as place:
        join(gguf, Path(place) / "joined.gguf")
        yield Path(place) / "joined.gguf"


def _tokenization(gguf: Path, tokenizer: Any, passages: Sequence[str]) -> Iterator[str]:
    """A note where the tokenizer is not llama.cpp's."""
    from quantlab.models.dequantize import tokenization_differences

    differing = tokenization_differences(gguf, tokenizer, passages)
    if differing is None:
        yield "Its tokenizer was not compared with llama.cpp's: llama-cpp-python is not installed."
    elif differing:
        yield f"Its converted tokenizer differs from llama.cpp's on {differing} of {len(passages)} passages."


def _compared(gguf: Path, folder: Path, tokenizer: Any, passages: Sequence[str], log: Path) -> str:
    """A note on how far the dequantized model is from llama.cpp running the file. Raises QuantlabError where
    it is another model."""
    from quantlab.analysis.divergence import window_values
    from quantlab.methods._gguf.logits_apart import logits_apart

    unchecked = "That it is the model that llama.cpp runs was not checked"
    if not installed(["llama-cpp-python"]):
        return f"{unchecked}: llama-cpp-python is not installed."
    ids = _check_ids(tokenizer, passages)
    try:
        by_llama_cpp = logits_apart(gguf, ids, log)
    except CellFailure as failure:
        return f"{unchecked}: {failure.reason}."
    dense = _dense_logits(folder, ids)
    if dense.shape != by_llama_cpp.shape:
        raise QuantlabError(
            f"{gguf.name} has a vocabulary of {by_llama_cpp.shape[1]:,} in llama.cpp and of"
            f" {dense.shape[1]:,} as transformers reads it: name the original safetensors instead"
        )
    nats = float(window_values(by_llama_cpp, dense, ids).kl.mean())
    if not nats <= MOST_NATS:
        raise QuantlabError(_another_model(gguf, folder, nats, len(ids)))
    return f"It diverges from llama.cpp running the file by {nats:.2g} nats per token ({len(ids)} tokens)."


def _another_model(gguf: Path, folder: Path, nats: float, tokens: int) -> str:
    """The refusal, with both figures and what transformers left out."""
    from quantlab.architecture.gguf_header import read_whole
    from quantlab.models import read_config

    header = read_whole(gguf)
    metadata, shapes = header.metadata, {name: tensor.shape for name, tensor in header.tensors.items()}
    lost = ", ".join(_lost(metadata, shapes, read_config(folder))) or "a setting that quantlab cannot name"
    return (
        f"{gguf.name} becomes another model when transformers reads it: dequantized it diverges from"
        f" llama.cpp running the file by {nats:.3g} nats per token on {tokens} tokens, where rounding"
        f" explains at most {MOST_NATS}. Left out: {lost}. Name the original safetensors as MODEL, and"
        " measure this file with --checkpoint"
    )


def _lost(
    metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> Iterator[str]:
    """What a GGUF file says and the converted config.json does not."""
    kind = metadata.get("general.architecture")
    scaling = metadata.get(f"{kind}.rope.scaling.type")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaled = scaling not in (None, "none") or "rope_freqs.weight" in shapes
    if scaled and rope.get("rope_type", "default") == "default":
        factor = metadata.get(f"{kind}.rope.scaling.factor")
        named = scaling or "by frequency, rope_freqs.weight"
        yield f"the scaling of rotary positions ({named}{f', factor {factor:g}' if factor else ''})"
    biases = [name for name in shapes if name.startswith("blk.0.") and name.endswith(".bias")]
    if biases and config.get("attention_bias") is False:
        yield f"biases ({', '.join(biases[:3])}{' and more' if len(biases) > 3 else ''})"


def _check_ids(tokenizer: Any, passages: Sequence[str]) -> NDArray[np.int64]:
    """The beginning of the embedded evaluation text, as every window begins."""
    import numpy as np

    from quantlab.models.text import starts_with_bos

    ids: list[int] = []
    for passage in passages:
        ids += tokenizer.encode(passage + "\n\n", add_special_tokens=False)
        if len(ids) >= CHECK_TOKENS:
            break
    bos = starts_with_bos(tokenizer)
    ids = ids if bos is None else [bos, *ids]
    return np.array(ids[:CHECK_TOKENS], np.int64)


def _dense_logits(folder: Path, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits (length, vocabulary) of the dequantized model on the CPU, in float32 where that fits."""
    import torch

    from quantlab.formats.safetensors import parameters
    from quantlab.hardware.device import find
    from quantlab.hardware.target import fits_in_float32
    from quantlab.models.loading import load_model

    dtype = torch.float32 if fits_in_float32(parameters(folder), find("cpu")) else torch.bfloat16
    model = load_model(folder, False, dtype=dtype).eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0]
    out: NDArray[np.float32] = logits.float().numpy()
    return out
