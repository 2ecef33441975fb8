"""Quantize with GPTQModel for gptq and awq: the successor of auto-gptq and autoawq (same formats on disk).

No GPU has quantized through it yet."""

from __future__ import annotations

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
from typing import Any

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.errors import CellFailure
from quantlab.files import write_json, write_text
from quantlab.formats.json_file import read_object
from quantlab.hardware.device import quick_bfloat16
from quantlab.methods._contract import InMemory, Job
from quantlab.methods._expert_tokens import read_expert_tokens
from quantlab.methods._gptqmodel_layers import (
    OUTPUTS,
    layers_of,
    name_unquantized,
    note_on_left,
    odd_layers,
    stacked_experts,
)
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
    if matrix.role in ("linear", "expert") and matrix.out_features % OUTPUTS:
        return f"its outputs are no multiple of {OUTPUTS}"
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


def quantize(
    job: Job, config: Any, packs_with: str, float32: bool = False, around: Around | None = None
) -> InMemory:
    """Load, quantize with the calibration windows, save; `packs_with` is the kernel that packs the layers,
    which lie on the CPU by then, `float32` where they can compute in it, `around` what mends the library
    while it quantizes.

    Raises CellFailure for what GPTQModel refuses or stops at.
    """
    import torch

    from quantlab.methods._loss import model_loss

    # on a CPU without bfloat16 instructions the calibration passes take four times as long in bfloat16
    in_float32 = float32 and job.device == "cpu" and not quick_bfloat16()
    dtype = torch.float32 if in_float32 else torch.bfloat16
    model, notes = _run(job, config, dtype, packs_with, around)
    if in_float32:
        restore_dtypes(job.source, job.destination)
    layers = layers_of(model)
    if experts := [name for name in layers.plain if ".experts." in name] + stacked_experts(model):
        raise CellFailure(
            "unsupported",
            f"GPTQModel left experts in 16 bits ({len(experts)} tensors, such as {experts[0]}): use gguf or"
            " autoround",
        )
    if layers.plain:
        name_unquantized(job.destination, layers.packed, layers.plain)
    _forget_the_run(job.destination)
    tokens = read_expert_tokens(job.destination / "quant_log.csv", job.calibration.size)
    notes += note_on_left(layers) + (tokens.note if tokens else ())
    return InMemory(model_loss(model), len(layers.packed), notes, frozenset(layers.packed), tokens)


def _run(
    job: Job, config: Any, dtype: Any, packs_with: str, around: Around | None
) -> tuple[Any, tuple[str, ...]]:
    """The quantized model in memory after it was saved, and notes on how."""
    import torch
    from gptqmodel import GPTQModel

    from quantlab.models.gptqmodel_trees import complete_trees
    from quantlab.models.loading import only_trusted_code
    from quantlab.models.own_classes import own_classes

    complete_trees()
    kind = str(read_object(job.source / "config.json")["model_type"])
    torch.manual_seed(job.seed)
    windows = [{"input_ids": ids.tolist(), "attention_mask": [1] * len(ids)} for ids in job.calibration]
    config.dynamic = {f"-:^{re.escape(name)}$": {} for name in odd_layers(job)} or None
    config.offload_to_disk = False  # it leaves meta tensors behind, and the model could not be checked
    trust = job.trust_remote_code
    step = f"quantizing to {job.bits} bits, {len(windows)} calibration windows"
    try:
        with only_trusted_code(trust), own_classes(kind), job.progress.step(step):
            model: Any = GPTQModel.load(
                str(job.source), config, device=job.device, dtype=dtype, trust_remote_code=trust
            )
            with around(model, job) if around else nullcontext(list[str]()) as notes:
                model.quantize(windows, batch_size=min(BATCH_WINDOWS, len(windows)), backend=packs_with)
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
