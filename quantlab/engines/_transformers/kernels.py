"""Choose the kernels of packed layers on a GPU: the quickest of those that can be built on this machine and
take every layer.

GPTQModel and auto-round choose by the GPU alone. Marlin, Exllama and AWQ's GEMM are then compiled at their
first use, which fails without nvcc, Machete downloads its sources, and a layer of another shape raises what
nobody catches. Here each is asked before (GPTQModel's own `validate`), built where there is nvcc, and left
out with the reason otherwise; Triton needs a C compiler, torch nothing. No GPU has run this."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.environments.llama_build import find_nvcc
from quantlab.errors import CellFailure
from quantlab.formats.json_file import read_object
from quantlab.formats.quantization import quantization_config
from quantlab.formats.safetensors import header, weight_files


def nvcc() -> str | None:
    """CUDA's compiler; None where there is none."""
    return find_nvcc(os.environ)


def c_compiler() -> str | None:
    """The C compiler that Triton takes to launch a kernel: $CC, else gcc, else clang; None where there is
    none."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CC"), "gcc", "clang")))), None)


class Kernel(NamedTuple):
    """A kernel as GPTQModel knows it."""

    backend: str
    builds: str | None = None
    """The extension that nvcc makes at its first use; `{}` stands for the dtype."""
    triton: bool = False


_KERNELS: dict[str, tuple[Kernel, ...]] = {
    "gptq": (
        Kernel("marlin", builds="marlin_{}"),
        Kernel("exllama_v2", builds="exllamav2"),
        Kernel("triton", triton=True),
        Kernel("torch"),
    ),
    "awq": (
        Kernel("marlin", builds="marlin_{}"),
        Kernel("gemm", builds="awq"),
        Kernel("gemm_triton", triton=True),
        Kernel("torch_awq"),
    ),
}
"""By format, the quickest first. Machete and Swordfish are not among them: they download their sources."""
_AUTO_ROUND = ("auto-round", "autoround", "intel/auto-round")
_BUILT_FOR_AUTO_ROUND = {"marlin": "marlin_fp16", "exllamav2": "exllamav2", "awq_gemm": "awq"}
"""By a part of the names of auto-round's backends: the extension that nvcc makes for them. It runs in
float16."""
_SHORT = {"float16": "fp16", "bfloat16": "bf16"}


class Layer(NamedTuple):
    """What a kernel has to take."""

    inputs: int
    outputs: int
    bits: int


class Choice(NamedTuple):
    """A kernel for all packed layers of a checkpoint."""

    backend: str
    left_out: tuple[str, ...]
    """Quicker ones, each with the reason."""

    def said(self) -> str:
        """In words, for the record."""
        return "; ".join((f"backend {self.backend}", *(f"not {kernel}" for kernel in self.left_out)))


@functools.cache
def choice_for(weights: Path, device: str) -> Choice | None:
    """The kernel that runs a checkpoint on a device; None where nothing has to be chosen. Raises CellFailure
    where no kernel takes its layers."""
    config = quantization_config(weights)
    method = str(config.get("quant_method"))
    if not device.startswith("cuda"):
        return None
    if method in _AUTO_ROUND:
        return choose_for_auto_round(config, _layers(weights, config))
    usual = str(config.get("version", "gemm")).lower() == "gemm"
    if method not in _KERNELS or not usual:
        return None
    said = read_object(weights / "config.json")
    dtype = str(said.get("dtype") or said.get("torch_dtype") or "bfloat16")
    # transformers and GPTQModel run AWQ in float16 on a GPU, whatever the checkpoint says
    return choose(config, _layers(weights, config), device, "float16" if method == "awq" else dtype)


def choose(config: dict[str, Any], layers: Iterable[Layer], device: str, dtype: str) -> Choice:
    """The first of GPTQModel's kernels that takes every layer and can be built."""
    left_out: list[str] = []
    wanted = set(layers)
    for kernel in _KERNELS[config["quant_method"]]:
        why = _why_not(kernel, config, wanted, device, dtype)
        if why is None:
            return Choice(kernel.backend, tuple(left_out))
        left_out.append(f"{kernel.backend}: {why}")
    raise CellFailure("unsupported", f"no kernel on {device} runs these layers ({'; '.join(left_out)})")


def _why_not(
    kernel: Kernel, config: dict[str, Any], layers: set[Layer], device: str, dtype: str
) -> str | None:
    if kernel.builds and not nvcc():
        return "nvcc is missing"
    if kernel.triton and not c_compiler():
        return "Triton needs a C compiler"
    if refused := _refusal(kernel, config, layers, device, dtype):
        return refused
    if kernel.builds and not built(kernel.builds.format(_SHORT.get(dtype, "fp16"))):
        return "it cannot be built here, see the log"
    return None


def _refusal(
    kernel: Kernel, config: dict[str, Any], layers: set[Layer], device: str, dtype: str
) -> str | None:
    """Why GPTQModel's own checks refuse a kernel, by the GPU or by a layer; None where they take it."""
    import torch
    from gptqmodel.quantization import FORMAT, METHOD
    from gptqmodel.utils.backend import BACKEND
    from gptqmodel.utils.importer import get_kernel_for_backend

    method = METHOD(config["quant_method"])
    layout = FORMAT.GEMM if method == METHOD.AWQ else FORMAT(config.get("checkpoint_format") or "gptq")
    try:
        kind: Any = get_kernel_for_backend(BACKEND(kernel.backend), method, layout)
        for layer in sorted(layers):
            taken, error = kind.validate(
                bits=layer.bits,
                group_size=int(config.get("group_size") or -1),
                desc_act=bool(config.get("desc_act")),
                sym=_symmetric(config),
                in_features=layer.inputs,
                out_features=layer.outputs,
                pack_dtype=torch.int32,
                dtype=getattr(torch, dtype),
                device=torch.device(device),
            )
            if not taken:
                return " ".join(str(error).split())[:120]
    except (ValueError, ImportError, NotImplementedError, RuntimeError) as error:
        return " ".join(str(error).split())[:120]
    return None


def _symmetric(config: dict[str, Any]) -> bool:
    if isinstance(said := config.get("sym"), bool):
        return said
    return not config.get("zero_point", config.get("quant_method") == "awq")


@functools.cache
def built(extension: str) -> bool:
    """Whether GPTQModel's extension loads, or can be compiled: minutes the first time, then it is kept."""
    from gptqmodel import extension as extensions

    return bool(extensions.is_available(extension))


def choose_for_auto_round(config: dict[str, Any], layers: Iterable[Layer]) -> Choice:
    """The one of auto-round's backends with the highest priority that takes every layer and can be built."""
    from auto_round.inference.backend import BackendInfos, check_compatible

    packing, wanted = str(config.get("packing_format") or "auto_round:auto_gptq"), sorted(set(layers))
    left_out = []
    for name in sorted(BackendInfos, key=lambda each: -BackendInfos[each].priority):
        scheme = {"group_size": config.get("group_size"), "sym": bool(config.get("sym", True))}
        if not all(
            check_compatible(name, "cuda", scheme | {"bits": bits}, packing, inputs, outputs)
            for inputs, outputs, bits in wanted
        ):
            continue
        extension = next((made for part, made in _BUILT_FOR_AUTO_ROUND.items() if part in name), None)
        if extension and not nvcc():
            left_out.append(f"{name}: nvcc is missing")
        elif extension and not built(extension):
            left_out.append(f"{name}: it cannot be built here, see the log")
        elif "triton" in name and not c_compiler():
            left_out.append(f"{name}: Triton needs a C compiler")
        else:
            return Choice(name, tuple(left_out))
    raise CellFailure("unsupported", f"no backend of auto-round runs these layers ({'; '.join(left_out)})")


def with_backend(config: dict[str, Any], backend: str) -> Any:
    """transformers' description of a checkpoint's quantization that names the backend; the rest is read from
    the checkpoint's own."""
    from transformers import AutoRoundConfig, AwqConfig, GPTQConfig

    kinds: dict[str, Any] = {"gptq": GPTQConfig, "awq": AwqConfig}
    return kinds.get(config["quant_method"], AutoRoundConfig)(bits=int(config["bits"]), backend=backend)


def _layers(weights: Path, config: dict[str, Any]) -> set[Layer]:
    """The packed layers by their shapes, from the files' headers."""
    shapes = {name: entry["shape"] for path in weight_files(weights) for name, entry in header(path).items()}
    usual = int(config.get("bits") or 4)
    found = set()
    for name, (rows, columns) in ((n, s) for n, s in shapes.items() if n.endswith(".qweight")):
        if config.get("quant_method") == "awq":
            found.add(Layer(rows, columns * 32 // usual, usual))
            continue
        index = shapes.get(f"{name.removesuffix('qweight')}g_idx")
        bits = 32 * rows // index[0] if index else usual
        found.add(Layer(rows * 32 // bits, columns, bits))
    return found
