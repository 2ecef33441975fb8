"""Read the stored reference: its description, its logits window by window, and checks that it is current."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from quantlab.analysis.divergence import is_finite, scored
from quantlab.analysis.routing import kept_type
from quantlab.errors import CellFailure, QuantlabError
from quantlab.files import sha256
from quantlab.frozen import Frozen
from quantlab.hardware.device import Device, find
from quantlab.models.activations import Largest
from quantlab.records import Failure
from quantlab.reference.arrays import is_stored
from quantlab.reference.experts import EXPERTS, StoredExperts, read_experts
from quantlab.reference.head import HeadSpec, load_head
from quantlab.workspace.cell import Cell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INFO, HIDDEN, HEAD = "reference.json", "hidden.npy", "head.safetensors"


class ReferenceInfo(Frozen):
    """What the reference is."""

    schema_version: Literal[4] = 4
    dtype: str
    """That the model ran in."""
    requested_dtype: str
    """That the recipe asked for."""
    device: str
    head_device: str | None = None
    """The one device that the head ran on, where the model lay on several; None in older references: the
    same."""
    head: HeadSpec
    windows: int
    length: int
    hidden_size: int
    evaluation_sha256: str
    source_sha256: str
    """Of source.json, which names every weight file with its hash."""
    hidden_sha256: str
    """Of the states alone, without the file's header."""
    head_sha256: str
    """Of the head's file."""
    vocabulary: int
    revision: str | None
    """Of the source."""
    versions: dict[str, str]
    head_max_difference: float
    """Largest |logit through the stored head - logit of the model itself| over all windows; 0 on a CPU."""
    head_divergence_nats: float
    """Mean divergence between the two in the window where it is largest; 0 where all logits are the same."""
    bytes_per_scored_token: float
    """Of the stored hidden states; llama.cpp's logits take 2 × vocabulary."""
    largest_activation: float | None = None
    """The largest absolute value that a module gave or was given; None in older references."""
    largest_activation_module: str = ""
    experts: StoredExperts | None = None
    """To which experts the scored tokens were sent; None for a model without any, and where it is not
    known."""
    experts_reason: str | None = None
    """Why it is not known; None where it is, and for a model without experts."""


class NoReference(Frozen):
    """Why there is no reference."""

    schema_version: int = 3
    failure: Failure
    device: str


class Reference:
    """The stored reference of a model, read window by window.

    Its head runs on `device` where the reference's ran on such a one, else on the CPU. Raises QuantlabError
    where there is none, CellFailure where it could not be computed."""

    def __init__(self, folder: Path, device: Device | None = None) -> None:
        path = folder / INFO
        if not path.exists():
            raise QuantlabError(f"there is no {path}: run `quantlab reference` first")
        content = path.read_bytes()
        if none := _why_none(content):
            raise CellFailure("not_measured", f"there is no reference: {none.kind}: {none.reason}")
        try:
            self.info = ReferenceInfo.model_validate_json(content)
        except ValidationError:
            raise QuantlabError(
                f"{path} is of another version of quantlab: run `quantlab reference` again"
            ) from None
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._folder, self._hidden = folder, folder / HIDDEN
        _require_stored(folder, self.info)
        before = self.info.head_device or self.info.device
        used = device if device is not None and device.first_name == before else find("cpu")
        self._head = load_head(folder / HEAD, self.info.head, used.places.first)
        self.notes: tuple[str, ...] = ()
        if used.first_name != before:
            self.notes = (
                (
                    f"The reference's head ran on {before} and is applied on {used.first_name}: its logits"
                    " differ by rounding."
                ),
            )
        if not (largest := self.largest_activation).fits_float16:
            self.notes += (
                f"The unquantized model's {largest.said()}: what computes in float16 gives no numbers on it.",
            )

    @property
    def largest_activation(self) -> Largest:
        """Over all windows; 0 in older references, which do not say it."""
        return Largest(self.info.largest_activation or 0.0, self.info.largest_activation_module)

    def logits(self, window: int) -> NDArray[np.float32]:
        """Exact logits (length, vocabulary) of one window."""
        import numpy as np

        # mapped anew each time: pages that stay mapped count as the process's memory
        stored = np.array(np.load(self._hidden, mmap_mode="r", allow_pickle=False)[window])
        return self._head.logits(unpacked(stored, self.info.dtype))

    def experts(self, window: int) -> NDArray[np.integer[Any]]:
        """The experts of the scored tokens of one window, sets (tokens, blocks, experts per token)."""
        assert self.info.experts is not None, "the reference of a mixture alone has them"
        return read_experts(self._folder, window)

    def require_current(self, cell: Cell) -> None:
        """Raise QuantlabError where the cell's text, weights, revision or precision are not the
        reference's."""
        info, prepared, asked = self.info, cell.prepared, cell.recipe.reference.dtype
        reasons: dict[str, Callable[[], bool]] = {
            "was computed on another text": lambda: (
                info.evaluation_sha256 != prepared.text().evaluation_sha256
            ),
            "was computed on other windows of the text": lambda: (
                (info.windows, info.length) != prepared.token_ids("evaluation").shape
            ),
            "is of another revision of the model": lambda: info.revision != prepared.source().revision,
            "is of other weights than those prepared now": lambda: (
                info.source_sha256 != prepared.source_sha256
            ),
            f"was computed in {info.dtype}, the recipe asks for {asked}": lambda: (
                asked not in (info.requested_dtype, info.dtype)
            ),
        }
        for reason, differs in reasons.items():
            if differs():
                raise QuantlabError(f"the reference of {cell.model} {reason}: run `quantlab reference` again")


def _why_none(content: bytes) -> Failure | None:
    """The failure that stands in place of a reference's description."""
    try:
        return NoReference.model_validate_json(content).failure
    except ValidationError:
        return None


def _require_stored(folder: Path, info: ReferenceInfo) -> None:
    """Raise QuantlabError where hidden states, head or experts are not what was stored; read in pieces."""
    for name, is_same in _stored(folder, info).items():
        try:
            same = is_same()
        except (OSError, ValueError):
            same = False
        if not same:
            raise QuantlabError(
                f"{folder / name} is not what `quantlab reference` stored (truncated, changed or gone): run"
                " `quantlab reference` again"
            )


def _stored(folder: Path, info: ReferenceInfo) -> dict[str, Callable[[], bool]]:
    """By file, whether it is what was stored."""
    import numpy as np

    hidden = (info.windows, info.length, info.hidden_size)
    kind = np.dtype("int16" if info.dtype == "bfloat16" else info.dtype)
    checks: dict[str, Callable[[], bool]] = {
        HIDDEN: lambda: is_stored(folder / HIDDEN, kind, hidden, info.hidden_sha256),
        HEAD: lambda: sha256(folder / HEAD) == info.head_sha256,
    }
    if experts := info.experts:
        rows = scored(info.length)
        sets = (info.windows, rows.stop - rows.start, len(experts.blocks), experts.experts_per_token)
        whole = kept_type(experts.experts)
        checks[EXPERTS] = lambda: is_stored(folder / EXPERTS, whole, sets, experts.sha256)
    return checks


def require_sound(logits: NDArray[np.float32], window: int) -> None:
    """Raise QuantlabError where a logit of the unquantized model is NaN or infinite, with the window."""
    if not is_finite(logits):
        raise QuantlabError(
            f"the unquantized model's logits of window {window + 1} of the evaluation text are not finite: "
            "set another reference.dtype in the recipe, or mend the model, and run `quantlab reference` again"
        )


def packed(hidden: Any) -> NDArray[Any]:
    """A tensor in the precision that it has; numpy has no bfloat16, so that its bits are kept as int16."""
    import torch

    kept: NDArray[Any] = (
        (hidden.view(torch.int16) if hidden.dtype is torch.bfloat16 else hidden).cpu().numpy()
    )
    return kept


def unpacked(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """What `packed` kept, as float32, exactly."""
    import torch

    tensor = torch.from_numpy(stored)
    whole: NDArray[np.float32] = (
        (tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor).float().numpy()
    )
    return whole


def folder_of(root: Path, model: str) -> Path:
    """Where a model's reference lies."""
    return root / "references" / model
