"""The quantized model in memory, made from the parameters of the model and not from the files that were
written: what is loaded from these is compared with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.methods._contract import Job
from quantlab.methods._fp8_layers import Chosen
from quantlab.methods._fp8_rounding import round_rows, round_tokens

if TYPE_CHECKING:
    import torch


_MORE = 1.2
"""Of what the weights take, for activations and logits."""


def why_not_compared(job: Job) -> str | None:
    """A sentence where the unquantized model does not fit into memory beside nothing else; None where it
    does."""
    from quantlab.formats.safetensors import parameters

    on_cpu = job.device == "cpu"
    needed = int(_MORE * (4 if on_cpu else 2) * parameters(job.source))
    free = _free_bytes(job.device)
    if needed <= free:
        return None
    return (
        "The loss after loading was not compared with one in memory: the unquantized model takes"
        f" {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free."
    )


def _free_bytes(device: str) -> int:
    import psutil
    import torch

    return int(psutil.virtual_memory().available if device == "cpu" else torch.cuda.mem_get_info(device)[0])


def rounded_model(job: Job, chosen: Chosen) -> Any:
    """The unquantized model with its weights rounded in place, and what enters its linear layers rounded as
    it runs; in float32 on a CPU, as its checkpoint is run there."""
    import torch
    from torch import nn

    from quantlab.models.loading import load_model
    from quantlab.models.rounded_experts import round_experts

    dtype = torch.float32 if job.device == "cpu" else torch.bfloat16
    model = load_model(job.source, job.trust_remote_code, dtype="auto", device_map={"": job.device})
    for name, exchanged in chosen.parameters.items():
        parameter = model.get_parameter(name)
        parameter.data = _rounded(parameter.data, exchanged)
        module = model.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(_round_input)
    round_experts(model, round_tokens)
    return model.to(dtype).eval()


def _round_input(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (round_tokens(inputs[0]), *inputs[1:])


def _rounded(weight: torch.Tensor, exchanged: bool) -> torch.Tensor:
    """A parameter's values as FP8 holds them; one matrix, or one per expert."""
    rows = weight.transpose(-1, -2) if exchanged else weight
    codes = round_rows(rows.reshape(-1, rows.shape[-1]))
    values = codes.values().to(weight.dtype).reshape(rows.shape)
    return values.transpose(-1, -2).contiguous() if exchanged else values
