"""Quantize with GPTQModel for gptq, awq and fp8: the successor of auto-gptq and autoawq (same formats on
disk)."""

from __future__ import annotations

import collections
import csv
import importlib.metadata
import io
import json
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.errors import CellFailure
from quantlab.files import write_json, write_text
from quantlab.hardware.device import quick_bfloat16
from quantlab.methods._contract import InMemory, Job
from quantlab.methods._expert_tokens import read_expert_tokens
from quantlab.outside import as_failure, is_own

BATCH_WINDOWS = 8
Around = Callable[[Any, Job], AbstractContextManager[list[str]]]
"""Mends GPTQModel's loaded model while it quantizes; gives notes, complete when the block ends."""
_LIBRARIES = ("gptqmodel", "transformers")
"""Whose code an exception is put down to; torch is called by quantlab as well."""
_LEAVES: tuple[tuple[str, str], ...] = (
    (r"qwen3_5|qwen3_next", r"linear_attn\.in_proj_(a|b|ba)$"),
    (r"deepseek_v32|glm_moe_dsa", r"indexer\.weights_proj$"),
    (r"deepseek_v4", r"\.compressor\.|o_a_proj$"),
)
"""By architecture: modules with `!` in the module_tree of gptqmodel 7.7's definitions, or that it does not
name."""


def why_left(count: ParameterCount, matrix: Matrix) -> str | None:
    """Why GPTQModel leaves a linear layer in 16 bits; None where it quantizes it."""
    leaves = next((names for types, names in _LEAVES if re.match(types, count.model_type)), None)
    return (
        "GPTQModel leaves it alone in this architecture"
        if leaves and re.search(leaves, matrix.name)
        else None
    )


def allocator() -> dict[str, str]:
    """Environment that preloads mimalloc where its package is installed.

    AWQ on a CPU spends two thirds of its time in page faults under glibc, which returns every large tensor to
    the kernel; a memory allocator that keeps them makes it three times as quick, with the same bytes."""
    if sys.platform != "linux":
        return {}
    try:
        files = importlib.metadata.files("cmeel-mimalloc") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    library = next((f for f in files if f.name.startswith("libmimalloc.so")), None)
    return {"LD_PRELOAD": str(library.locate().resolve())} if library else {}  # type: ignore[attr-defined]


def quantize(job: Job, config: Any, float32: bool = False, around: Around | None = None) -> InMemory:
    """Load, quantize with the calibration windows, save; `float32` where the method's layers can compute in
    it, `around` what mends the library while it quantizes.

    Raises CellFailure for what GPTQModel refuses or stops at.
    """
    import torch

    from quantlab.methods._loss import model_loss

    # on a CPU without bfloat16 instructions the calibration passes take four times as long in bfloat16
    in_float32 = float32 and job.device == "cpu" and not quick_bfloat16()
    model, notes = _run(job, config, torch.float32 if in_float32 else torch.bfloat16, around)
    if in_float32:
        restore_dtypes(job.source, job.destination)
    layers = _layers(model)
    if experts := [name for name in layers.plain if ".experts." in name]:
        raise CellFailure(
            "unsupported", f"GPTQModel left {len(experts)} experts in 16 bits, such as {experts[0]}"
        )
    if layers.plain:
        _name_unquantized(job.destination, layers.packed, layers.plain)
    _forget_the_run(job.destination)
    tokens = read_expert_tokens(job.destination / "quant_log.csv", job.calibration.size)
    notes += _left(layers) + (tokens.note if tokens else ())
    return InMemory(model_loss(model), len(layers.packed), notes, frozenset(layers.packed), tokens)


def _run(job: Job, config: Any, dtype: Any, around: Around | None) -> tuple[Any, tuple[str, ...]]:
    """The quantized model in memory after it was saved, and notes on how."""
    import torch
    from gptqmodel import GPTQModel

    from quantlab.models.gptqmodel_trees import complete_trees
    from quantlab.models.loading import only_trusted_code

    complete_trees()
    torch.manual_seed(job.seed)
    windows = [{"input_ids": ids.tolist(), "attention_mask": [1] * len(ids)} for ids in job.calibration]
    config.offload_to_disk = False  # it leaves meta tensors behind, and the model could not be checked
    trust = job.trust_remote_code
    step = f"quantizing to {job.bits} bits, {len(windows)} calibration windows"
    try:
        with only_trusted_code(trust), job.progress.step(step):
            model: Any = GPTQModel.load(
                str(job.source), config, device=job.device, dtype=dtype, trust_remote_code=trust
            )
            with around(model, job) if around else nullcontext(list[str]()) as notes:
                model.quantize(windows, batch_size=min(BATCH_WINDOWS, len(windows)))
            model.save(str(job.destination))
        _undo_saving(model.model)
    except Exception as error:  # the library raises whatever a model leads it to
        known = as_failure(error)
        if known is None and is_own(error, *_LIBRARIES):
            raise
        if known is None:
            traceback.print_exc()  # for the log
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise known or CellFailure(
            "unsupported", f"GPTQModel stops at this model: {text}; autoround and gguf take other ways"
        ) from error
    return model.model, tuple(notes)


class _Layers(NamedTuple):
    """Names of the linear layers of a quantized model, its output head left out."""

    packed: list[str]
    plain: list[str]


def _layers(model: Any) -> _Layers:
    from torch import nn

    head = model.get_output_embeddings()
    packed = {n for n, m in model.named_modules() if hasattr(m, "qweight") or hasattr(m, "weight_scale_inv")}
    plain = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head and name not in packed
    ]
    return _Layers(sorted(packed), sorted(plain))


def _left(layers: _Layers) -> tuple[str, ...]:
    """A sentence on the linear layers that were left in 16 bits, by name and count."""
    if not layers.plain:
        return ()
    names = collections.Counter(re.sub(r"\.\d+\.", ".*.", name).rpartition("*.")[2] for name in layers.plain)
    listed = ", ".join(f"{name} × {count}" for name, count in sorted(names.items()))
    total = len(layers.plain) + len(layers.packed)
    return (
        f"GPTQModel leaves {len(layers.plain)} of {total} linear layers of this architecture unquantized:"
        f" {listed}.",
    )


def _name_unquantized(folder: Path, packed: list[str], plain: list[str]) -> None:
    """Say in the saved configuration which layers are packed, where some of a block are not.

    GPTQModel leaves for example the small gates of Qwen3.5's linear attention alone and does not say so;
    transformers then makes packed layers of them, finds no tensors for these and computes with whatever the
    memory held. Transformers reads `modules_to_not_convert` for AWQ and, through optimum,
    `modules_in_block_to_quantize` for GPTQ."""
    named = {"modules_to_not_convert": sorted(plain), "modules_in_block_to_quantize": [sorted(packed)]}
    for path in (folder / "config.json", folder / "quantize_config.json"):
        if path.exists():
            config = json.loads(path.read_text(encoding="utf-8"))
            section = config["quantization_config"] if path.name == "config.json" else config
            key = {"awq": "modules_to_not_convert", "gptq": "modules_in_block_to_quantize"}.get(
                section.get("quant_method")
            )
            if key:
                section[key] = named[key]
                write_json(path, config)


def _forget_the_run(folder: Path) -> None:
    """Drop what differs between two runs of the same settings: a temporary folder's name, and the log's
    seconds and order.

    Else the same weights would be another checkpoint on every machine, and a path of this one would be
    published with it."""
    for path in (folder / "config.json", folder / "quantize_config.json"):
        if path.exists():
            config = json.loads(path.read_text(encoding="utf-8"))
            section = config["quantization_config"] if path.name == "config.json" else config
            if (section.get("meta") or {}).pop("offload_to_disk_path", None) is not None:
                write_json(path, config)
    log = folder / "quant_log.csv"
    if log.exists():
        with log.open(encoding="utf-8", newline="") as file:
            rows = sorted(
                csv.DictReader(file), key=lambda row: (row.get("layer", "").zfill(8), row.get("module", ""))
            )
        text = io.StringIO()
        kept = [name for name in (rows[0] if rows else ()) if name != "time"]
        table = csv.DictWriter(text, kept, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_text(log, text.getvalue())


def restore_dtypes(source: Path, destination: Path) -> None:
    """Store the unquantized tensors in the source's dtypes again: computing in float32 must not make them
    larger."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    from quantlab.formats import stored

    original = {t.name: t.dtype for t in stored.safetensors(source)}
    for path in destination.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open has no iterator
        save_file(
            {
                n: t.to(_DTYPES[original[n]]()) if original.get(n) in _DTYPES else t
                for n, t in tensors.items()
            },
            path,
            metadata,
        )
    config = json.loads((destination / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = json.loads((source / "config.json").read_text(encoding="utf-8")).get(
        "dtype", config.get("dtype")
    )
    write_json(destination / "config.json", config)


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


_DTYPES = {
    name: partial(_dtype, to) for name, to in (("BF16", "bfloat16"), ("F16", "float16"), ("F32", "float32"))
}


def _undo_saving(model: Any) -> None:
    """Saving rewrites the zero points of GPTQ layers in place, to the file's convention; put the kernel's
    back."""
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    for layer in model.modules():
        if getattr(layer, "REQUIRES_FORMAT_V2", False) and layer.qzero_format() == 1:
            convert_gptq_v1_to_v2_format_module(module=layer, bits=layer.bits, pack_dtype=layer.pack_dtype)
