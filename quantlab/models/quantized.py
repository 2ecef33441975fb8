"""Recognise a model that is quantized already, and say what to do with it instead.

Everything is compared with the unquantized model, so it cannot be one whose weights are packed: its tensors
hold codes, and a reference made of them would hide the loss of the first quantization. The signs are the
settings in config.json, a file of settings beside it, and the names and types of the tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.errors import QuantlabError
from quantlab.formats.json_file import read_json
from quantlab.formats.quantization import section_of
from quantlab.formats.safetensors import header, weight_files

SETTINGS_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
"""Of auto-gptq and GPTQModel, autoawq, and ModelOpt."""
_PACKED = (
    *("qweight", "qzeros", "weight_packed", "weight_scale", "weight_scale_inv", "absmax", "SCB"),
    *("gate_up_proj_blocks", "down_proj_blocks"),
)
"""Last words of the names of packed tensors and of their scales."""
_PACKED_TYPES = ("F8_E4M3", "F8_E5M2", "F4", "F6_E2M3", "F6_E3M2")


class Quantized(NamedTuple):
    """How a folder's weights are quantized."""

    method: str
    bits: int | None
    sign: str
    """What says so."""

    @property
    def title(self) -> str:
        """The method and, where it is known, the width."""
        return f"{self.method}, {self.bits} bits" if self.bits else self.method


def quantized_by_config(config: Mapping[str, Any]) -> Quantized | None:
    """What config.json says of its own weights; None where it says nothing."""
    key, section = section_of(config)
    return _of(section, f"{key} in its config.json") if section else None


def quantized_by_files(folder: Path) -> Quantized | None:
    """What the tensors of a folder say; None where they are plain. A file of settings names the method."""
    tensor = next(_packed(folder), None)
    if tensor is None:
        return None
    for name in SETTINGS_FILES:
        if (folder / name).is_file():
            return _of(read_json(folder / name), f"its tensor {tensor} and {name}")
    return Quantized("a method that it does not name", None, f"its tensor {tensor}")


def require_unquantized(config: Mapping[str, Any], where: str, folder: Path | None = None) -> None:
    """Raise QuantlabError where a model is quantized already; `folder` holds its weights, where they are
    here."""
    quantized = quantized_by_config(config) or (quantized_by_files(folder) if folder else None)
    if quantized is None:
        return
    raise QuantlabError(
        f"{where} is quantized already ({quantized.title}, by {quantized.sign}): its loss would be taken for"
        f" none. Name the model that it was made from, and measure this one beside it with `--checkpoint"
        f" {where}`{_dequantizing(quantized.method, where)}"
    )


def _dequantizing(method: str, where: str) -> str:
    """The command that dequantizes a format, where transformers can: some releases have no other form."""
    import inspect
    import json
    import shlex

    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    settings = AUTO_QUANTIZATION_CONFIG_MAPPING.get(method)
    if settings is None or "dequantize" not in inspect.signature(settings).parameters:
        return ""
    name = json.dumps(where)  # of the user's: quoted for Python here, and with the whole for the shell below
    code = (
        f"from transformers import AutoModelForCausalLM as M, AutoTokenizer as T, {settings.__name__} as C;"
        f' M.from_pretrained({name}, quantization_config=C(dequantize=True), dtype="bfloat16")'
        '.save_pretrained("NEW", save_original_format=False);'
        f' T.from_pretrained({name}).save_pretrained("NEW")'
    )
    return f", or dequantize it with `python -c {shlex.quote(code)}` and name NEW"


def _of(section: Any, sign: str) -> Quantized:
    """The method and width that settings name."""
    section = section if isinstance(section, dict) else {}
    inner = section.get("quantization")
    inner = inner if isinstance(inner, dict) else {}
    method = section.get("quant_method") or section.get("quant_algo") or inner.get("quant_algo")
    bits = section.get("bits") or section.get("w_bit")
    if section.get("load_in_4bit") or section.get("load_in_8bit"):
        bits = 4 if section.get("load_in_4bit") else 8
    return Quantized(
        str(method or "a method that it does not name")[:40].lower(),
        bits if isinstance(bits, int) else None,
        sign,
    )


def _packed(folder: Path) -> Iterator[str]:
    """Every packed tensor of a folder."""
    for path in weight_files(folder):
        for name, entry in header(path).items():
            if name.rpartition(".")[2] in _PACKED or entry["dtype"] in _PACKED_TYPES:
                yield name
