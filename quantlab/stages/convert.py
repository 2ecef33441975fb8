"""Convert the unquantized model to F16 GGUF and compute its importance matrix, once for all GGUF variants.

A stage of its own beside prepare, so that a model without GGUF variants is never converted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from quantlab.environments.install import bring
from quantlab.environments.versions import installed
from quantlab.errors import CellFailure
from quantlab.files import new_folder, write_text
from quantlab.formats.gguf import stored_tensors
from quantlab.formats.half_precision import beyond_f16
from quantlab.formats.llama_log import llama
from quantlab.hardware.device import Device
from quantlab.hardware.memory import free_vram_bytes
from quantlab.models.text import embedded_passages
from quantlab.outside import as_failure
from quantlab.progress import Progress
from quantlab.records import Failure
from quantlab.workspace.checkpoint import list_files
from quantlab.workspace.prepared import Gguf, Prepared

_BUFFER_BYTES = 2**30
"""For llama.cpp's context of CUDA and its compute buffers, per GPU."""
_LOGIT_BYTES = 4


def run(
    root: Path,
    model: str,
    log: Path,
    progress: Progress,
    device: Device | None = None,
    rehearse: Callable[[], None] | None = None,
) -> Gguf:
    """Convert one model; its importance matrix is computed on the device's GPUs where it fits there.

    What llama.cpp cannot do with it is recorded, so that its other variants go on. `rehearse` tries it on the
    first layers and raises CellFailure where that fails.

    Raises QuantlabError where the weights are not those prepared.
    """
    prepared = Prepared(root, model)
    prepared.require_unchanged()
    with new_folder(prepared.gguf_folder) as folder:
        try:
            if rehearse:
                rehearse()
            made = _make(prepared, folder, log, progress, device)
        except Exception as error:  # a library may raise anything; what is not expected goes on its way
            failure = as_failure(error)
            if failure is None:
                raise
            made = Gguf(failure=Failure.of(failure))
        prepared.require_unchanged()  # nor did they change while they were read
        write_text(folder / "gguf.json", made.model_dump_json(indent=2) + "\n")
    return made


def _make(prepared: Prepared, folder: Path, log: Path, progress: Progress, device: Device | None) -> Gguf:
    if not installed(["llama-cpp-python"]):
        raise CellFailure("not_installed", f"llama-cpp-python is not installed: {bring('llama-cpp-python')}")
    from quantlab.methods._gguf import converter
    from quantlab.methods._gguf.importance_apart import compute_apart

    with progress.step(f"{prepared.model}: converting to F16 GGUF"):
        trust, dtype = prepared.source().trust_remote_code, _dtype_for(prepared.weights)
        by_rule = converter.convert(prepared.weights, folder / "f16.gguf", log, dtype.name, trust)
        if by_rule:
            _require_same_tokens(prepared, folder / "f16.gguf", by_rule)
    kept = _kept_in_bf16(folder / "f16.gguf", dtype.name)
    windows, words = prepared.token_ids("calibration"), prepared.source().vocabulary or 0
    place = place_of_importance(device, folder / "f16.gguf", int(windows.shape[1]), words)
    compute_apart(
        *(folder / "f16.gguf", prepared.text_folder / "calibration.npy", folder / "imatrix.gguf"),
        *(log, progress, place),
    )
    said = (f"Its importance matrix was computed on {device.name}.",) if device and place != "cpu" else ()
    return Gguf(
        imatrix_tokens=int(windows.size), files=list_files(folder), notes=(*dtype.notes, *kept, *said)
    )


def place_of_importance(device: Device | None, file: Path, window: int, words: int) -> str:
    """The GPUs of the device where the unquantized file fits beside the logits of a window, else `cpu`.

    No GPU has run it: the room for llama.cpp's buffers is an assumption."""
    if device is None or not device.places.gpus or not llama().llama_supports_gpu_offload():
        return "cpu"
    gpus = device.places.gpus
    room = len(gpus) * _BUFFER_BYTES + 2 * window * words * _LOGIT_BYTES
    fits = file.stat().st_size + room <= sum(free_vram_bytes(gpus).values())
    return f"cuda:{','.join(map(str, gpus))}" if fits else "cpu"


class _Dtype(NamedTuple):
    name: str
    notes: tuple[str, ...] = ()


def _dtype_for(weights: Path) -> _Dtype:
    """The converter's name of the dtype for the unquantized GGUF: F16 where it holds every matrix."""
    beyond = beyond_f16(weights)
    if not beyond:
        return _Dtype("f16")
    name = "bf16" if all(matrix.dtype == "BF16" for matrix in beyond) else "f32"
    first, more = beyond[0], f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
    note = f"Its unquantized GGUF is {name.upper()}: in F16 weights of {first.name}{more} would {first.how}."
    return _Dtype(name, (note,))


def _kept_in_bf16(gguf: Path, asked: str) -> tuple[str, ...]:
    """A note where the converter kept matrices in bfloat16 that were asked for in another dtype, as it does
    for DeepSeek V4: with these llama.cpp rounds what enters them on a CPU, to 2e-3 of its size."""
    if asked == "bf16":
        return ()
    kept = sum(tensor.type == "BF16" for tensor in stored_tensors(gguf))
    if not kept:
        return ()
    return (
        f"llama.cpp's converter keeps {kept} matrices of this architecture in BF16, whatever is asked: on a"
        " CPU what enters them is rounded to bfloat16, and close calls of routers fall otherwise than in"
        " transformers.",
    )


def _require_same_tokens(prepared: Prepared, gguf: Path, name: str) -> None:
    """Raise CellFailure where llama.cpp, with a pre-tokenizer named by its rules, gives other token ids than
    the tokenizer."""
    from quantlab.models.dequantize import tokenization_differences
    from quantlab.models.loading import load_tokenizer

    passages = embedded_passages("evaluation")[:100]
    tokenizer = load_tokenizer(prepared.weights, prepared.source().trust_remote_code)
    differing = tokenization_differences(gguf, tokenizer, passages)
    if differing:
        raise CellFailure(
            "unsupported",
            f"llama.cpp does not know this vocabulary's pre-tokenizer, and {name}, which has its rules,"
            f" splits {differing} of {len(passages)} passages differently",
        )
