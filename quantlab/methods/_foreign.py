"""Recognise somebody else's checkpoint, and name the variant that it becomes here.

Formats are those of the methods: what auto-gptq and autoawq wrote is what GPTQModel reads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from quantlab import methods
from quantlab.errors import CellFailure, QuantlabError, unknown
from quantlab.formats import GGUF
from quantlab.formats.gguf_parts import parts_of
from quantlab.formats.quantization import quantization_config
from quantlab.frozen import Frozen
from quantlab.names import Variant
from quantlab.workspace.checkpoint import FileEntry, entry_of, list_files

_WIDTHS = (2, 3, 4, 5, 6, 8, 16)
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "spiece.model",
)
PASSAGES, _CHARACTERS = 300, 4000
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block|blk)\.(\d+)\.")
_NOT_TEXT = re.compile(r"vision|visual|audio|mtp|projector")


class Settings(Frozen):
    """The settings of a variant whose checkpoint somebody else made."""

    checkpoint: str = Field(min_length=1)
    """The folder, or the GGUF file; of a split one the first part."""
    hub: str | None = None
    """The repository that it was downloaded from, `org/name`."""
    revision: str | None = None
    """Its commit."""


def weight_files(path: Path) -> dict[str, FileEntry]:
    """The files that make the checkpoint, with sizes and hashes."""
    if path.is_file():
        return {part.name: entry_of(part) for part in parts_of(path)}
    return {
        n: f
        for n, f in list_files(path).items()
        if "/" not in n and n.endswith((".safetensors", ".json", ".model", ".txt", ".jinja"))
    }


def identify(path: Path, trust_remote_code: bool = False) -> Variant:
    """The variant `method-bits-ext_<6 hex digits of its hash>`.

    Raises QuantlabError for what is not quantized, or would run code that is not trusted.
    """
    method, bits = _gguf(path) if path.is_file() else _safetensors(path, trust_remote_code)
    entries = sorted((name, entry.sha256) for name, entry in weight_files(path).items())
    return Variant(method, bits, f"ext_{hashlib.sha256(repr(entries).encode()).hexdigest()[:6]}")


def _gguf(path: Path) -> tuple[str, int]:
    """A GGUF file's nominal width: that of the type that it says it has, else the one nearest to its stored
    bits per weight."""
    from quantlab.formats.gguf import declared_type, stored_tensors
    from quantlab.models import check_gguf

    check_gguf(path)
    declared = re.search(r"\d+", declared_type(path) or "")
    if declared and int(declared[0]) in _WIDTHS:
        return _gguf_method(), int(declared[0])
    blocks = [
        t for t in stored_tensors(path) if t.name.startswith("blk.") and t.elements > 65536
    ] or stored_tensors(path)
    stored_bits = 8 * sum(t.bytes for t in blocks) / sum(t.elements for t in blocks)
    return _gguf_method(), min(
        _WIDTHS, key=lambda width: abs(width + (0.5 if width < 16 else 0) - stored_bits)
    )


def _gguf_method() -> str:
    """The method that writes GGUF files."""
    return next(name for name in methods.names() if methods.load(name).format == GGUF)


def _safetensors(path: Path, trust_remote_code: bool) -> tuple[str, int]:
    from quantlab.models import check_folder

    check_folder(path, trust_remote_code, source=False)
    config = quantization_config(path)
    name = str(config.get("quant_method", ""))
    if not name:
        raise QuantlabError(_why_unnamed(path))
    known = methods.marked()
    if name.lower() not in known:
        raise unknown("quantization format", name, known, f"in {path}/config.json")
    method = known[name.lower()]
    if why := method.why_not_read(config):
        raise QuantlabError(f"{path} cannot be measured: {why}")
    bits, widths = method.width_in(config), method.widths_read or method.bits
    if not isinstance(bits, int) or bits not in widths:
        known_widths = ", ".join(map(str, widths))
        raise QuantlabError(f"{path} says {bits} bits of {method.name}: known are {known_widths}")
    return method.name, bits


def _why_unnamed(path: Path) -> str:
    """Why a checkpoint whose config.json names no method is refused."""
    from quantlab.models.quantized import SETTINGS_FILES, quantized_by_files

    quantized = quantized_by_files(path)
    if quantized is None:
        return (
            f"{path} is not quantized: its config.json has no quantization_config; give it as MODEL instead"
        )
    beside = next((name for name in SETTINGS_FILES if (path / name).is_file()), None)
    copied = f"copy {beside} into it" if beside else "write its method and bits into it"
    return (
        f"{path} is quantized ({quantized.title}, by {quantized.sign}) and its config.json has no"
        f" quantization_config, without which every library would load it as plain weights: {copied} as"
        ' "quantization_config", with "quant_method" such as "gptq"'
    )


def reading_notes(path: Path, device: str) -> tuple[str, ...]:
    """What a reader of the numbers of somebody else's checkpoint must know, by its method."""
    if path.is_file():
        return ()
    config = quantization_config(path)
    return methods.marked()[str(config["quant_method"]).lower()].reading_notes(config, device)


def sample(passages: Iterable[str]) -> list[str]:
    """The first 300 paragraphs of a text, none longer than 4,000 characters: what two tokenizers are compared
    on."""
    pieces: list[str] = []
    for passage in passages:
        pieces += [piece[:_CHARACTERS] for piece in passage.split("\n\n") if piece.strip()]
        if len(pieces) >= PASSAGES:
            break
    return pieces[:PASSAGES]


def require_same_tokenizer(
    path: Path, tokenizer: Any, passages: Sequence[str], trust_remote_code: bool = False
) -> tuple[str, ...]:
    """What could not be compared, as notes. `tokenizer` is the model's own, which feeds every variant.

    Raises CellFailure where the same ids would be other words to the checkpoint: its own gives other ids for
    a passage, or its GGUF vocabulary spells other text."""
    if path.is_file():
        differing = _misread(path, tokenizer, passages)
        if differing is None:
            return ("Its vocabulary was not compared with the model's: llama-cpp-python is not installed.",)
        what = "reads other text in the model's token ids"
    elif not any((path / name).is_file() for name in _TOKENIZER_FILES):
        return ("It brings no tokenizer: that it has the model's own is taken for granted.",)
    else:
        differing = _folder_differences(path, tokenizer, passages, trust_remote_code)
        what = "gives other token ids than the model's"
    if differing:
        raise CellFailure(
            "unsupported",
            f"its tokenizer {what} for {differing} of {len(passages)} passages: it is not a quantization of"
            " this model",
        )
    return ()


def require_same_layers(path: Path, source: Path) -> None:
    """Raise CellFailure where a checkpoint of the model in `source` would run with another number of layers,
    or lacks one.

    An engine builds as many layers as the configuration says and takes no notice of tensors beyond them.
    """
    from quantlab.models import read_config

    config = read_config(source)
    wanted = _layers(config)
    if wanted is None:
        return
    said = None if path.is_file() else _layers(read_config(path))
    stored = _stored_layers(path)
    if said is not None and said != wanted:
        beyond = [stored[n] for n in sorted(stored) if n >= said][:1]
        more = f", and its weights hold {beyond[0]}" if beyond else ""
        raise CellFailure(
            "unsupported",
            f"its config.json says {said} layers, the model has {wanted}{more}: it is not a quantization of"
            " this model",
        )
    lacking = [n for n in range(wanted) if n not in stored] if stored else []
    if lacking:
        listed = ", ".join(map(str, lacking[:5])) + (", ..." if len(lacking) > 5 else "")
        raise CellFailure(
            "unsupported", f"its weights lack layer {listed} of the model's {wanted}, counted from 0"
        )
    if path.is_file() and not wanted <= len(stored) <= wanted + _predicting(config):
        raise CellFailure(
            "unsupported",
            f"it has {len(stored)} layers, the model has {wanted}: it is not a quantization of this model",
        )


def _stored_layers(path: Path) -> dict[int, str]:
    """The layers of the text model that a checkpoint holds, each with the name of one of its tensors."""
    from quantlab.formats.gguf import stored_tensors
    from quantlab.formats.stored import safetensors

    tensors = stored_tensors(path) if path.is_file() else safetensors(path)
    names = [tensor.name for tensor in tensors]
    return {
        int(layer[1]): name for name in names if (layer := _LAYER.search(name)) and not _NOT_TEXT.search(name)
    }


def _layers(config: Mapping[str, Any]) -> int | None:
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    layers = next(
        (text[key] for key in ("num_hidden_layers", "n_layer", "num_layers") if text and key in text), None
    )
    return layers if isinstance(layers, int) else None


def _predicting(config: Mapping[str, Any]) -> int:
    """Layers beyond the model's own, which predict further tokens; llama.cpp numbers them on."""
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    keys = ("mtp_num_hidden_layers", "num_nextn_predict_layers", "num_mtp_modules")
    return max((int(text.get(key) or 0) for key in keys), default=0) if text else 0


def _misread(path: Path, tokenizer: Any, passages: Sequence[str]) -> int | None:
    """In how many passages a GGUF file's vocabulary spells other text than the tokenizer; None without
    llama.cpp.

    llama.cpp may also cut a text in other places, which does no harm: the model's own tokenizer feeds every
    engine."""
    try:
        import llama_cpp
    except ModuleNotFoundError:
        return None
    model: Any = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    try:
        wrong = [
            _spelled(model, ids) != tokenizer.decode(ids).strip() for ids in _encoded(tokenizer, passages)
        ]
    finally:
        model.close()
    return wrong.count(True)


def _spelled(model: Any, ids: list[int]) -> str | None:
    if max(ids) >= model.n_vocab():
        return None
    return str(model.detokenize(ids).decode("utf-8", errors="replace")).strip()


def _encoded(tokenizer: Any, passages: Sequence[str]) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False) for text in passages]


def _folder_differences(path: Path, tokenizer: Any, passages: Sequence[str], trust_remote_code: bool) -> int:
    from quantlab.models.loading import load_tokenizer

    try:
        other = load_tokenizer(path, trust_remote_code)
    except QuantlabError as error:
        raise CellFailure("unsupported", str(error)) from error
    return sum(
        other_ids != own_ids
        for other_ids, own_ids in zip(_encoded(other, passages), _encoded(tokenizer, passages), strict=True)
    )
