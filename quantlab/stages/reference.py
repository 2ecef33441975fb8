"""reference: what the unquantized model says on the evaluation text, once per model, exact and small.

Stored are the final hidden states of every window in the precision that the model ran in, and the output head; the
exact logits are the head applied to a whole window.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from quantlab.device import Device
from quantlab.engines._placement import placement
from quantlab.errors import QuantlabError
from quantlab.files import new_folder, write_text
from quantlab.head import Head, HeadSpec, load_head, spec_of
from quantlab.prepared import Prepared
from quantlab.progress import Progress
from quantlab.recipe import read_recipe
from quantlab.records import Frozen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ReferenceInfo(Frozen):
    """What the reference is."""

    schema_version: int = 2
    dtype: str
    device: str
    head: HeadSpec
    windows: int
    length: int
    hidden_size: int
    evaluation_sha256: str
    vocabulary: int
    revision: str | None
    """Of the source."""
    bytes_per_scored_token: float
    """Of the stored hidden states; llama.cpp's logits take 2 × vocabulary."""


class Reference:
    """The stored reference of a model, read window by window."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        path = folder / "reference.json"
        if not path.exists():
            raise QuantlabError(f"there is no {path}: run `quantlab reference` first")
        try:
            self.info = ReferenceInfo.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError:
            raise QuantlabError(f"{path} is of another version of quantlab: run `quantlab reference` again") from None
        self._hidden = np.load(folder / "hidden.npy", mmap_mode="r", allow_pickle=False)
        self._head = load_head(folder / "head.safetensors", self.info.head)

    def logits(self, window: int) -> NDArray[np.float32]:
        """Exact logits (length, vocabulary) of one window."""
        import numpy as np

        return self._head.logits(_unpacked(np.array(self._hidden[window]), self.info.dtype))


def _packed(hidden: Any) -> NDArray[Any]:
    """A tensor in the precision that it has; numpy has no bfloat16, so that its bits are kept as int16."""
    import torch

    kept: NDArray[Any] = (hidden.view(torch.int16) if hidden.dtype is torch.bfloat16 else hidden).cpu().numpy()
    return kept


def _unpacked(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    import torch

    tensor = torch.from_numpy(stored)
    whole: NDArray[np.float32] = (tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor).float().numpy()
    return whole


def folder_of(root: Path, model: str) -> Path:
    """Where a model's reference lies."""
    return root / "references" / model


def run(root: Path, model: str, device: Device, progress: Progress) -> ReferenceInfo:
    """Compute and store the reference. Raises QuantlabError where the head does not give the model's logits back."""
    import torch
    from transformers import AutoModelForCausalLM

    prepared, recipe = Prepared(root, model), read_recipe(root / "recipes" / f"{model}.yaml")
    source = prepared.source()
    dtype = recipe.reference.dtype
    if dtype == "auto":
        dtype = "float32" if source.parameters * 4 * 1.3 < device.memory_bytes else source.dtype
    offload = root / ".quantlab" / "offload"
    with progress.step(f"{model}: loading the reference in {dtype}"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            prepared.weights,
            dtype=getattr(torch, dtype),
            **placement(device.device, str(offload)),
            trust_remote_code=source.trust_remote_code,
            use_safetensors=True,
        )
    token_ids = prepared.token_ids("evaluation")
    with new_folder(folder_of(root, model)) as folder:
        info = _compute(loaded.eval(), token_ids, folder, (prepared.text().evaluation_sha256, source.revision), device, progress)
        write_text(folder / "reference.json", info.model_dump_json(indent=2) + "\n")
    shutil.rmtree(offload, ignore_errors=True)
    return info


def _compute(
    model: Any, token_ids: NDArray[np.int64], folder: Path, about: tuple[str, str | None], device: Device, progress: Progress
) -> ReferenceInfo:
    import numpy as np
    import torch
    from accelerate.utils import align_module_device

    digest, revision = about
    module = model.get_output_embeddings()
    caught: list[Any] = []
    module.register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
    with align_module_device(module):  # brings a head that was offloaded
        weight = module.weight.detach().cpu()
        head = Head(weight, None if getattr(module, "bias", None) is None else module.bias.detach().cpu(), spec_of(model.config))
    windows, length = token_ids.shape
    dtype = str(weight.dtype).removeprefix("torch.")
    kept = np.dtype("int16" if dtype == "bfloat16" else dtype)
    hidden = np.lib.format.open_memmap(folder / "hidden.npy", mode="w+", dtype=kept, shape=(windows, length, weight.shape[1]))
    with progress.step("reference: hidden states of the evaluation text", windows) as step, torch.inference_mode():
        for i, ids in enumerate(token_ids):
            logits = model(input_ids=torch.from_numpy(ids)[None].to(device.places.first), use_cache=False).logits[0].float().cpu().numpy()
            hidden[i] = _packed(caught.pop()[0].to(weight.dtype))
            caught.clear()
            if i == 0:
                _check_head(head, _unpacked(np.array(hidden[0]), dtype), logits, device)
            step.advance()
    hidden.flush()
    head.save(folder / "head.safetensors")
    return ReferenceInfo(
        dtype=dtype,
        device=device.name,
        head=head.spec,
        windows=windows,
        length=length,
        hidden_size=weight.shape[1],
        evaluation_sha256=digest,
        vocabulary=weight.shape[0],
        revision=revision,
        bytes_per_scored_token=hidden.nbytes / (windows * (length - 1 - length // 2)),
    )


def _check_head(head: Head, hidden: NDArray[np.float32], logits: NDArray[np.float32], device: Device) -> None:
    import numpy as np

    difference = float(np.abs(head.logits(np.array(hidden)) - logits).max())
    exact = device.device == "cpu"  # a GPU multiplies in another order than the CPU that applies the head later
    if difference > (0.0 if exact else 0.05 * float(np.abs(logits).max())):
        raise QuantlabError(
            f"the head alone does not give this model's logits back (largest difference {difference:.3g}): its architecture "
            "is not supported"
        )
