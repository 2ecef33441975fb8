"""What gptq, awq and fp8 share: GPTQModel, the maintained successor of auto-gptq and autoawq (same formats on disk)."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

from quantlab.device import quick_bfloat16
from quantlab.errors import CellFailure
from quantlab.methods import InMemory, Job

BATCH_WINDOWS = 8


def allocator() -> dict[str, str]:
    """Environment that preloads mimalloc where its package is installed.

    AWQ on a CPU spends two thirds of its time in page faults under glibc, which returns every large tensor to the
    kernel; a memory allocator that keeps them makes it three times as quick, with the same bytes.
    """
    if sys.platform != "linux":
        return {}
    try:
        files = importlib.metadata.files("cmeel-mimalloc") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    library = next((f for f in files if f.name.startswith("libmimalloc.so")), None)
    return {"LD_PRELOAD": str(library.locate().resolve())} if library else {}  # type: ignore[attr-defined]


def quantize(job: Job, config: Any, float32: bool = False) -> InMemory:
    """Load, quantize with the calibration windows, save; `float32` where the method's layers can compute in it.

    Raises CellFailure for what GPTQModel refuses.
    """
    import torch
    from gptqmodel import GPTQModel

    from quantlab.methods._loss import model_loss, quantizable_linears

    torch.manual_seed(job.seed)
    expected = quantizable_linears(job.source, job.trust_remote_code)
    windows = [{"input_ids": ids.tolist(), "attention_mask": [1] * len(ids)} for ids in job.calibration]
    try:
        # on a CPU without bfloat16 instructions the calibration passes take four times as long in bfloat16
        dtype = torch.float32 if float32 and job.device == "cpu" and not quick_bfloat16() else torch.bfloat16
        config.offload_to_disk = False  # it leaves meta tensors behind, and the model in memory could not be checked
        model: Any = GPTQModel.load(str(job.source), config, device=job.device, dtype=dtype, trust_remote_code=job.trust_remote_code)
        with job.progress.step(f"quantizing {expected} layers to {job.bits} bits, {len(windows)} calibration windows"):
            model.quantize(windows, batch_size=min(BATCH_WINDOWS, len(windows)))
        model.save(str(job.destination))
        _undo_saving(model.model)
    except (ValueError, NotImplementedError) as error:
        raise CellFailure("unsupported", f"GPTQModel: {' '.join(str(error).split())[:200]}") from error
    return InMemory(model_loss(model.model), expected)


def _undo_saving(model: Any) -> None:
    """Saving rewrites the zero points of GPTQ layers in place, to the file's convention; put the kernel's back."""
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    for layer in model.modules():
        if getattr(layer, "REQUIRES_FORMAT_V2", False) and layer.qzero_format() == 1:
            convert_gptq_v1_to_v2_format_module(module=layer, bits=layer.bits, pack_dtype=layer.pack_dtype)
