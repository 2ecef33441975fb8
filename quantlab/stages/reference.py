"""Run the unquantized model on the evaluation text and store its output, once per model, exact and small.

Stored are the final hidden states of every window in the precision that the model ran in, and the output
head; the exact logits are the head applied to a whole window. Of a mixture of experts the choices of its
routers are stored as well."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab import scratch
from quantlab.analysis.divergence import scored, window_values
from quantlab.engines._transformers.placement import placement
from quantlab.environments.versions import installed
from quantlab.errors import QuantlabError
from quantlab.files import new_folder, sha256, write_text
from quantlab.hardware.device import Device
from quantlab.hardware.target import fits_in_float32, require_memory
from quantlab.methods import checked_recipe
from quantlab.models.activations import WatchedActivations
from quantlab.outside import as_failure
from quantlab.progress import Progress
from quantlab.recipe import Recipe
from quantlab.records import Failure
from quantlab.reference.arrays import ArrayFile
from quantlab.reference.experts import ExpertsWriter
from quantlab.reference.head import Head, spec_of
from quantlab.reference.store import (
    HEAD,
    HIDDEN,
    INFO,
    NoReference,
    Reference,
    ReferenceInfo,
    folder_of,
    packed,
    require_sound,
    unpacked,
)
from quantlab.workspace.prepared import Prepared
from quantlab.workspace.tracked import require_same_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NoReference", "Reference", "ReferenceInfo", "folder_of", "run"]


def run(root: Path, model: str, device: Device, progress: Progress) -> ReferenceInfo | NoReference:
    """Compute and store the reference, or why it cannot be had on this device.

    Raises QuantlabError where the weights are not those prepared, a logit is not finite, or the head does not
    give the model's logits back."""
    prepared, recipe = Prepared(root, model), checked_recipe(root / "recipes" / f"{model}.yaml")
    prepared.require_unchanged()
    made: ReferenceInfo | NoReference
    with new_folder(folder_of(root, model)) as folder:
        try:
            made = _make(prepared, recipe, folder, device, progress)
        except Exception as error:  # a library may raise anything; what is not expected goes on its way
            failure = as_failure(error)
            if failure is None:
                raise
            made = NoReference(failure=Failure.of(failure), device=device.name)
            for path in list(folder.iterdir()):  # what was written before it failed
                path.unlink()
        prepared.require_unchanged()  # nor did they change while they were read
        write_text(folder / INFO, made.model_dump_json(indent=2) + "\n")
    require_same_settings(root, recipe, "reference")
    return made


def _make(
    prepared: Prepared, recipe: Recipe, folder: Path, device: Device, progress: Progress
) -> ReferenceInfo:
    """Write hidden states and head; the description. Raises CellFailure where the model does not fit."""
    import torch

    from quantlab.models.loading import load_model

    source, dtype = prepared.source(), recipe.reference.dtype
    if dtype == "auto":
        dtype = "float32" if fits_in_float32(source.parameters, device) else source.dtype
    wanted = getattr(torch, dtype)
    require_memory(device, source.parameters * wanted.itemsize, f"the unquantized model in {dtype}")
    offload = Path(os.environ.get(scratch.FOLDER, prepared.root / ".quantlab" / "tmp")) / "offload"
    with progress.step(f"{prepared.model}: loading the reference in {dtype}"):
        places = placement(device.device, str(offload))
        loaded = load_model(prepared.weights, source.trust_remote_code, dtype=wanted, **places)
    token_ids = prepared.token_ids("evaluation")
    computed = _compute(loaded.eval(), token_ids, folder, device, progress)
    shutil.rmtree(offload, ignore_errors=True)
    windows, length = token_ids.shape
    return ReferenceInfo(
        requested_dtype=recipe.reference.dtype,
        device=device.name,
        windows=windows,
        length=length,
        evaluation_sha256=prepared.text().evaluation_sha256,
        source_sha256=prepared.source_sha256,
        revision=source.revision,
        versions=installed(("torch", "transformers")),
        **computed,
    )


def _compute(
    model: Any, token_ids: NDArray[np.int64], folder: Path, device: Device, progress: Progress
) -> dict[str, Any]:
    """Fields of the info that the run gives."""
    import numpy as np
    import torch

    module = model.get_output_embeddings()
    caught: list[Any] = []
    module.register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
    head = _head_of(model)
    weight = head.weight
    dtype = str(weight.dtype).removeprefix("torch.")
    kept, (windows, length) = np.dtype("int16" if dtype == "bfloat16" else dtype), token_ids.shape
    states = ArrayFile(folder / HIDDEN, kept, (windows, length, weight.shape[1]))
    rows, difference, nats = scored(length), 0.0, 0.0
    experts = ExpertsWriter(model, folder, windows, rows)
    activations = WatchedActivations(model)
    step_ = progress.step("reference: hidden states of the evaluation text", windows)
    with step_ as step, torch.inference_mode():
        for i, ids in enumerate(token_ids):
            inputs = torch.from_numpy(ids)[None].to(device.places.first)
            logits = model(input_ids=inputs, use_cache=False).logits[0].float().cpu().numpy()
            require_sound(logits, i)
            hidden = packed(caught.pop()[0].to(weight.dtype))
            caught.clear()
            differs_by = _check_head(head, unpacked(hidden, dtype), logits, ids, device)
            difference, nats = max(difference, differs_by[0]), max(nats, differs_by[1])
            states.append(hidden)
            experts.append(length)
            step.advance()
    states.close()
    head.save(folder / HEAD)
    about = {"dtype": dtype, "head": head.spec, "hidden_size": weight.shape[1], "vocabulary": weight.shape[0]}
    about |= {"hidden_sha256": states.sha256, "head_sha256": sha256(folder / HEAD)}
    about |= {"head_max_difference": difference, "head_divergence_nats": nats}
    about |= {"experts": experts.close(), "experts_reason": experts.reason}
    largest = activations.close()
    about |= {"largest_activation": largest.value, "largest_activation_module": largest.module}
    about |= {"head_device": device.first_name if weight.device.type == "cuda" else device.cpu}
    return about | {"bytes_per_scored_token": states.bytes / (windows * (rows.stop - rows.start))}


def _head_of(model: Any) -> Head:
    """The output head of a loaded model."""
    from accelerate.utils import align_module_device

    module = model.get_output_embeddings()
    with align_module_device(module):  # brings a head that was offloaded
        weight, bias = module.weight.detach(), getattr(module, "bias", None)
        return Head(weight, None if bias is None else bias.detach(), spec_of(model.config))


def _check_head(
    head: Head,
    hidden: NDArray[np.float32],
    logits: NDArray[np.float32],
    token_ids: NDArray[np.int64],
    device: Device,
) -> tuple[float, float]:
    """Largest difference of a logit through the head alone, and mean divergence in nats (0 where nothing
    differs)."""
    import numpy as np

    own = head.logits(hidden)
    np.subtract(own, logits, out=own)
    difference = max(float(own.max()), -float(own.min()))
    if not difference <= _tolerance(head, logits, device):
        raise QuantlabError(
            f"the head alone does not give this model's logits back (largest difference {difference:.3g}):"
            " its architecture is not supported"
        )
    return difference, (
        abs(float(window_values(logits, head.logits(hidden), token_ids).kl.mean())) if difference else 0.0
    )


def _tolerance(head: Head, logits: NDArray[np.float32], device: Device) -> float:
    """None on a CPU. A GPU's library may choose another order of summation at its second call: each rounding
    of the result can then fall on the other side, and float32 sums of n terms differ by about sqrt(n) of
    their precision."""
    import torch

    if not device.places.gpus:
        return 0.0
    largest = max(float(logits.max()), -float(logits.min()))
    single = 8 * math.sqrt(head.weight.shape[1]) * torch.finfo(torch.float32).eps
    return largest * (single + head.roundings * torch.finfo(head.weight.dtype).eps)
