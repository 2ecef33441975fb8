"""Read the formats that a release is stored in from the quantization_config of its config.json.

Known are the dialects of transformers (fp8, mxfp4, gptq, awq, auto-round, bitsandbytes), of
compressed-tensors (config_groups) and of modelopt (quant_algo, in a `quantization` of its own, or layer by
layer in quantized_layers)."""

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
    "w4a16_nvfp4": {"bits": 4, "group_size": 16, "scale_bits": 8},
    "w4a8_nvfp4_fp8": {"bits": 4, "group_size": 16, "scale_bits": 8},
    "w4a8_mxfp4_fp8": {"bits": 4, "group_size": 32, "scale_bits": 8},
    "mxfp4": {"bits": 4, "group_size": 32, "scale_bits": 8},
    "w4a16": {"bits": 4, "group_size": 128},
    "w4a16_awq": {"bits": 4, "group_size": 128},
    "w4a8_awq": {"bits": 4, "group_size": 128},
    "w8a16": {"bits": 8, "per_row": True},
    "w8a8_sq_per_channel": {"bits": 8, "per_row": True},
}
"""What modelopt's quant_algo says, in lower case."""


class LayerFormat(Frozen):
    """How some of a release's matrices are stored."""

    bits: float
    """Of a quantized weight, without scales."""
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
    only: tuple[str, ...] = ()
    """Where not empty: the modules that alone are stored so."""
    experts_alone: bool = False
    """Whether it is the format of experts, whatever their names."""

    @property
    def expert_bits(self) -> float | None:
        """Of an expert's weight with its scales, where experts have a format of their own."""
        scales = self.scale_bits / self.group_size if self.group_size else 0
        return self.bits + scales if self.experts_alone else None


class StoredFormat(Frozen):
    """The quantized formats that a release is stored in."""

    method: str
    """Its quantization_config's quant_method."""
    formats: tuple[LayerFormat, ...]
    """The first one that names a matrix is its own."""
    kept: tuple[str, ...] = ()
    """Modules that none of the formats holds for, as the config names them."""
    plain: tuple[str, ...] = ()
    """Modules in 16 bits that no list of the config names."""
    vector_bits: int = 16
    """Of parameters outside matrices."""
    rest: tuple[LayerFormat, ...] = ()
    """Of what `formats` do not name and of what is kept; where empty, that is in 16 bits."""

    @property
    def bits(self) -> float:
        """Of the most general format."""
        return (self.rest or self.formats)[-1].bits

    @property
    def group_size(self) -> int | None:
        return (self.rest or self.formats)[-1].group_size

    @property
    def label(self) -> str:
        every = (*self.formats, *self.rest)
        experts = next((f"{bits:g}" for each in self.formats if (bits := each.expert_bits)), None)
        if experts:
            return f"{self.method} ({self.bits:g} bits, experts in {experts})"
        widths = sorted({each.bits for each in every})
        by_layer = ", by layer" if len(widths) > 1 else ""
        return f"{self.method} ({' and '.join(f'{width:g}' for width in widths)} bits{by_layer})"


def read_stored(about: Any, fields: Fields) -> StoredFormat | None:
    """The format; None for an unquantized release, and where the config does not say how many bits, which is
    a doubt."""
    about = about if isinstance(about, Mapping) else {}
    inner = about.get("quantization")
    about = {**about, **inner} if isinstance(inner, Mapping) else about
    fp4 = "fp4" in (fields.raw.get("expert_dtype"), about.get("expert_dtype"))
    if not about and not fp4:
        return None
    method = str(about.get("quant_method") or about.get("quant_algo") or "unknown")
    listed = _listed(about)
    if fp4 or (listed and method in _FP8):
        # the format that the release had before some of its layers were quantized anew
        rest = (*((_FP4_EXPERTS,) if fp4 else ()), _fp8_blocks(about))
        v4 = fields.family == "deepseek_v4"
        return StoredFormat(
            method="fp8",
            formats=listed or rest,
            plain=_COMPRESSORS if v4 else (),
            vector_bits=32 if v4 else 16,
            rest=rest if listed else (),
        )
    formats = listed or _grouped(about, fields) or _plain_format(about, method)
    if not formats:
        fields.doubt(
            f"the release is quantized ({method}) and its config does not say to how many bits",
            certain=fields.certain,
        )
        return None
    return StoredFormat(method=method, formats=formats, kept=_not_quantized(about, fields))


_FP4_EXPERTS = LayerFormat(bits=4, group_size=32, scale_bits=8, experts_alone=True)
"""DeepSeek V4: experts in blocks of 32 with an 8-bit scale."""

_COMPRESSORS = ("*.compressor.kv_proj", "*.compressor.gate_proj", "*.indexer.kv_proj", "*.indexer.gate_proj")
"""What DeepSeek V4's releases leave in 16 bits; their vectors, mostly of hyper-connections, are in float32.
Their configs do not say so: the size of DeepSeek-V4-Pro-NVFP4's files does."""


def _fp8_blocks(about: Mapping[str, Any]) -> LayerFormat:
    sizes = _block(about.get("weight_block_size")) or (128, 128)
    scale_bits = 8 if about.get("scale_fmt") == "ue8m0" else 32
    return LayerFormat(bits=8, block=sizes, scale_bits=scale_bits)


def _listed(about: Mapping[str, Any]) -> tuple[LayerFormat, ...]:
    """modelopt's quantized_layers: an algorithm for each module by its name."""
    layers = about.get("quantized_layers")
    names: dict[tuple[str, int | None], list[str]] = {}
    for name, layer in layers.items() if isinstance(layers, Mapping) else ():
        algorithm = str(layer.get("quant_algo") or "").lower() if isinstance(layer, Mapping) else ""
        if algorithm in _ALGORITHMS:
            names.setdefault((algorithm, _number(layer.get("group_size"))), []).append(str(name))
    return tuple(
        LayerFormat(**{**_ALGORITHMS[algorithm], **_own_group(algorithm, size)}, only=tuple(only))
        for (algorithm, size), only in names.items()
    )


def _own_group(algorithm: str, size: int | None) -> dict[str, int]:
    return {"group_size": size} if size and "group_size" in _ALGORITHMS[algorithm] else {}


def _block(value: Any) -> tuple[int, int] | None:
    sizes = tuple(filter(None, map(_number, value))) if isinstance(value, list | tuple) else ()
    return (sizes[0], sizes[1]) if len(sizes) == 2 else None


def _plain_format(about: Mapping[str, Any], method: str) -> tuple[LayerFormat, ...]:
    values = _plain(about, method)
    return (LayerFormat(**values),) if values.get("bits") else ()


def _plain(about: Mapping[str, Any], method: str) -> dict[str, Any]:
    named = str(about.get("quant_algo") or "").lower()
    algorithm = named if named in _ALGORITHMS else (method if method not in _FP8 else "")
    if algorithm in _ALGORITHMS:
        return {**_ALGORITHMS[algorithm], **_own_group(algorithm, _number(about.get("group_size")))}
    if method in _FP8:
        rows = method == "fbgemm_fp8"
        return {"bits": 8, "block": _block(about.get("weight_block_size")), "per_row": rows, "scale_bits": 32}
    if method == "bitsandbytes":
        four = bool(about.get("load_in_4bit"))
        return {"bits": 4 if four else 8, "double_quantization": bool(about.get("bnb_4bit_use_double_quant"))}
    bits = _number(about.get("bits") or about.get("w_bit"))
    return {"bits": bits, "group_size": _number(about.get("group_size") or about.get("q_group_size"))}


def _grouped(about: Mapping[str, Any], fields: Fields) -> tuple[LayerFormat, ...]:
    """compressed-tensors, which modelopt writes too: groups that name modules before those that name
    classes."""
    given = about.get("config_groups")
    formats = [
        made
        for group in (given.values() if isinstance(given, Mapping) else ())
        if isinstance(group, Mapping)
        and isinstance(group.get("weights"), Mapping)
        and (made := _group(group["weights"], group.get("targets")))
    ]
    general = [each for each in formats if not each.only]
    if len({each.bits for each in general}) > 1:
        fields.doubt(
            "the release has several quantized formats for one class: the bytes as stored take the first one"
            " for all"
        )
    return (*(each for each in formats if each.only), *general[:1])


def _group(weights: Mapping[str, Any], targets: Any) -> LayerFormat | None:
    bits, size = _number(weights.get("num_bits")), _number(weights.get("group_size"))
    if bits is None:
        return None
    fp4 = weights.get("type") == "float" and bits == 4
    strategy = weights.get("strategy")
    named = tuple(map(str, targets)) if isinstance(targets, list | tuple) else ()
    # a class, such as Linear, has no dot and begins with a capital
    modules = tuple(name for name in named if "." in name or name[:1].islower())
    return LayerFormat(
        bits=bits,
        group_size=size or (16 if fp4 else None),
        scale_bits=8 if fp4 else 16,
        block=_block(weights.get("block_structure")) if strategy == "block" else None,
        per_row=strategy == "channel",
        zero_points=weights.get("symmetric") is False,
        only=modules if len(modules) == len(named) else (),
    )


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
