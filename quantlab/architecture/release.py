"""Read the format that a release is stored in from the quantization_config of its config.json.

Read are the dialects of transformers (fp8, mxfp4, gptq, awq, auto-round, bitsandbytes), of compressed-tensors
(config_groups) and of modelopt (quant_algo, also in a `quantization` of its own)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantlab.architecture.fields import Fields
from quantlab.frozen import Frozen

_KEPT = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules", "llm_int8_skip_modules")
_FP8 = ("fp8", "fbgemm_fp8", "finegrained_fp8")
_ALGORITHMS: Mapping[str, Mapping[str, Any]] = {
    "fp8": {"bits": 8},
    "fp8_per_channel_per_token": {"bits": 8, "per_row": True},
    "fp8_pb_wo": {"bits": 8, "block": (128, 128), "scale_bits": 32},
    "nvfp4": {"bits": 4, "group_size": 16, "scale_bits": 8},
    "nvfp4_awq": {"bits": 4, "group_size": 16, "scale_bits": 8},
    "mxfp4": {"bits": 4, "group_size": 32, "scale_bits": 8},
    "w4a16": {"bits": 4, "group_size": 128},
    "w4a16_awq": {"bits": 4, "group_size": 128},
    "w4a8_awq": {"bits": 4, "group_size": 128},
    "w8a16": {"bits": 8, "per_row": True},
    "w8a8_sq_per_channel": {"bits": 8, "per_row": True},
}
"""What modelopt's quant_algo says, in lower case."""


class StoredFormat(Frozen):
    """The quantized format that a release is stored in."""

    method: str
    """Its quantization_config's quant_method."""
    bits: float
    """Of a quantized weight, without scales."""
    expert_bits: float | None = None
    """Of an expert's weight with its scales, where experts have a format of their own."""
    group_size: int | None = None
    """Weights of a row that share a scale."""
    scale_bits: int = 16
    block: tuple[int, int] | None = None
    """Rows and columns that share a scale."""
    per_row: bool = False
    """Whether each row has a scale; where nothing is said of scales, a matrix has one, which is not
    counted."""
    zero_points: bool = False
    double_quantization: bool = False
    kept: tuple[str, ...] = ()
    """Modules that are not quantized, as the config names them."""
    only: tuple[str, ...] = ()
    """Where not empty: the modules that alone are quantized."""

    @property
    def label(self) -> str:
        experts = f", experts in {self.expert_bits:g}" if self.expert_bits else ""
        return f"{self.method} ({self.bits:g} bits{experts})"


def read_stored(about: Any, fields: Fields) -> StoredFormat | None:
    """The format; None for an unquantized release, and where the config does not say how many bits, which is
    a doubt."""
    fp4 = fields.raw.get("expert_dtype") == "fp4" or (
        isinstance(about, Mapping) and about.get("expert_dtype") == "fp4"
    )
    if fp4:  # DeepSeek V4: experts in blocks of 32 with an 8-bit scale, the rest in fp8
        return StoredFormat(method="fp8", bits=8, expert_bits=4.25, block=(128, 128), scale_bits=32)
    if not isinstance(about, Mapping) or not about:
        return None
    inner = about.get("quantization")
    about = {**about, **inner} if isinstance(inner, Mapping) else about
    method = str(about.get("quant_method") or about.get("quant_algo") or "unknown")
    known = (
        _grouped(about, fields)
        if isinstance(about.get("config_groups"), Mapping) and about["config_groups"]
        else _plain(about, method)
    )
    if not known.get("bits"):
        fields.doubt(
            f"the release is quantized ({method}) and its config does not say to how many bits",
            certain=fields.certain,
        )
        return None
    return StoredFormat(method=method, kept=_not_quantized(about, fields), **known)


def _plain(about: Mapping[str, Any], method: str) -> dict[str, Any]:
    algorithm = _ALGORITHMS.get(str(about.get("quant_algo") or "").lower()) or _ALGORITHMS.get(
        method if method not in _FP8 else ""
    )
    if algorithm:
        return {
            **algorithm,
            **(
                {"group_size": size}
                if (size := _number(about.get("group_size"))) and "group_size" in algorithm
                else {}
            ),
        }
    if method in _FP8:
        block = about.get("weight_block_size")
        sizes = tuple(filter(None, map(_number, block))) if isinstance(block, list | tuple) else ()
        rows = method == "fbgemm_fp8"
        return {"bits": 8, "block": sizes if len(sizes) == 2 else None, "per_row": rows, "scale_bits": 32}
    if method == "bitsandbytes":
        four = bool(about.get("load_in_4bit"))
        return {"bits": 4 if four else 8, "double_quantization": bool(about.get("bnb_4bit_use_double_quant"))}
    bits = _number(about.get("bits") or about.get("w_bit"))
    return {"bits": bits, "group_size": _number(about.get("group_size") or about.get("q_group_size"))}


def _grouped(about: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """compressed-tensors, which modelopt writes too."""
    groups = [
        group
        for group in about["config_groups"].values()
        if isinstance(group, Mapping) and isinstance(group.get("weights"), Mapping)
    ]
    if not groups:
        return {}
    weights, targets = groups[0]["weights"], groups[0].get("targets")
    if any(group["weights"].get("num_bits") != weights.get("num_bits") for group in groups):
        fields.doubt(
            "the release has several quantized formats: the bytes as stored take the first one for all"
        )
    bits, group = _number(weights.get("num_bits")), _number(weights.get("group_size"))
    fp4 = weights.get("type") == "float" and bits == 4
    strategy, block = weights.get("strategy"), weights.get("block_structure")
    named = tuple(map(str, targets)) if isinstance(targets, list | tuple) else ()
    return {
        "bits": bits,
        "group_size": group or (16 if fp4 else None),
        "scale_bits": 8 if fp4 else 16,
        "block": (
            tuple(block)
            if strategy == "block" and isinstance(block, list | tuple) and len(block) == 2
            else None
        ),
        "per_row": strategy == "channel",
        "zero_points": weights.get("symmetric") is False,
        "only": (
            named if named and all("." in name for name in named) else ()
        ),  # a class, such as Linear, has no dot
    }


def _not_quantized(about: Mapping[str, Any], fields: Fields) -> tuple[str, ...]:
    kept = next((about[key] for key in _KEPT if about.get(key)), ())
    dynamic = about.get("dynamic")  # gptqmodel: `-:` before a pattern leaves what it matches alone
    more = (
        tuple(f"re:{key[2:]}" for key in dynamic if str(key).startswith("-:"))
        if isinstance(dynamic, Mapping)
        else ()
    )
    if isinstance(kept, str):
        return (kept, *more)
    if not isinstance(kept, list | tuple):
        fields.doubt(
            f"the release's list of modules that are not quantized is {kept!r:.40}: it is read as empty",
            certain=fields.certain,
        )
        return more
    return (*map(str, kept), *more)


def _number(value: Any) -> int | None:
    """A whole number above 0, also as a string; None for anything else."""
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    whole = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and value == value
        and value == int(value)
    )
    return int(value) if whole and value > 0 else None
