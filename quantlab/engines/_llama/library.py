"""Run llama.cpp in this process: a model file, a context on it, tokens in, logits out.

Flash attention is off wherever logits are compared, for the 16-bit model and the quantized ones alike:
llama.cpp's default lets the backend choose, and the choice moves logits by more than good quantization does.
Only with a quantized key-value cache is it on, because llama.cpp has quantized values in no other way. A
context that is timed may leave the choice to llama.cpp, as a server does."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.architecture.cache_types import is_quantized
from quantlab.environments.install import cuda_build
from quantlab.errors import CellFailure
from quantlab.formats.gguf import block_count
from quantlab.formats.gguf_parts import parts_of
from quantlab.formats.llama_log import Messages, llama, messages
from quantlab.hardware.device import Places, parse_places
from quantlab.hardware.memory import free_vram_bytes
from quantlab.processors import cores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FLASH_ENABLED = "Flash Attention enabled"
"""What llama.cpp says where it chose flash attention by itself (src/llama-context.cpp)."""


def assign(struct: Any, **values: Any) -> None:
    """Set fields of a ctypes structure. An unknown one is a bug of ours: ctypes would accept it without a
    word."""
    known = {name for name, *_ in struct._fields_}
    for name, value in values.items():
        assert name in known, f"{type(struct).__name__} of this llama-cpp-python has no field {name}"
        setattr(struct, name, value)


class Batch(NamedTuple):
    """Tokens for one call, each with its position, the sequences that it belongs to, and whether its logits
    are wanted."""

    tokens: Sequence[int] | NDArray[np.int64]
    positions: Sequence[int] | NDArray[np.int64]
    sequences: Sequence[Sequence[int]]
    wanted: Sequence[bool] | NDArray[np.bool_]


@functools.lru_cache(maxsize=64)
def _floats(count: int) -> Any:
    """The ctypes array of so many floats. Kept: a type made for each token is garbage in a cycle, and its
    collection is timed."""
    return ctypes.c_float * count


class LaidOut(NamedTuple):
    """A batch as llama.cpp reads it. Its tokens and positions may be changed in place, for a next call of the
    same shape.

    `tokens` and `positions` have the shape (tokens,).
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    rows: int
    """Tokens whose logits are wanted."""
    struct: Any
    """llama_batch; it points into the arrays."""
    arrays: tuple[NDArray[Any], ...]
    """What else it points into."""


def laid_out(batch: Batch) -> LaidOut:
    """Copies of the batch's values in llama.cpp's types."""
    import numpy as np

    tokens, positions = np.array(batch.tokens, np.int32), np.array(batch.positions, np.int32)
    wanted = np.array(batch.wanted, np.int8)
    counts = np.fromiter(map(len, batch.sequences), np.int32, len(tokens))
    owners = np.fromiter((s for group in batch.sequences for s in group), np.int32, int(counts.sum()))
    addresses = (owners.ctypes.data + 4 * (np.cumsum(counts, dtype=np.uint64) - counts)).astype(np.uint64)
    struct = llama().llama_batch()
    struct.n_tokens = len(tokens)
    arrays: dict[str, NDArray[Any]] = {
        "token": tokens,
        "pos": positions,
        "n_seq_id": counts,
        "seq_id": addresses,
        "logits": wanted,
    }
    kinds = dict(struct._fields_)
    assign(struct, **{name: ctypes.cast(array.ctypes.data, kinds[name]) for name, array in arrays.items()})
    return LaidOut(tokens, positions, int(wanted.sum()), struct, (counts, owners, addresses, wanted))


def one_sequence(
    token_ids: Sequence[int] | NDArray[np.int64], start: int = 0, sequence: int = 0, all_logits: bool = False
) -> Batch:
    """Tokens (n,) of one sequence from position `start`; the logits of all of them, or of the last."""
    n = len(token_ids)
    return Batch(token_ids, range(start, start + n), [(sequence,)] * n, [all_logits] * (n - 1) + [True])


class Model:
    """A loaded GGUF file."""

    def __init__(self, path: Path, device: str = "cpu", cache: str = "f16") -> None:
        """`cache` is the type of keys and values in every context on it.

        Raises CellFailure where llama.cpp cannot load the file or was not built for the device.
        """
        api = llama()
        parameters = api.llama_model_default_params()
        places = parse_places(device)
        if places.gpus:
            if not api.llama_supports_gpu_offload():
                raise CellFailure("not_installed", f"llama-cpp-python was built without CUDA: {cuda_build()}")
            self._split = _place(parameters, places, path)
        else:
            # An empty list of devices keeps a build with CUDA off the GPU.
            self._no_devices = (ctypes.c_void_p * 1)(None)
            assign(parameters, n_gpu_layers=0, devices=ctypes.cast(self._no_devices, ctypes.c_void_p))
        with messages() as said:
            self.handle = api.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.handle:
            raise _load_failure(path, said)
        self.device, self.cache = device, cache
        self.vocabulary = int(api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.handle)))
        self.trained_context = int(api.llama_model_n_ctx_train(self.handle))
        self.recurrent = bool(
            api.llama_model_is_recurrent(self.handle) or api.llama_model_is_hybrid(self.handle)
        )
        self.sliding_window = int(api.llama_model_n_swa(self.handle))
        """Tokens that layers with sliding-window attention look back, 0 where none has it."""
        self.weights_bytes = said.mebibytes("model buffer") or int(api.llama_model_size(self.handle))
        """Buffers of the weights as llama.cpp logs them, repacked copies included."""
        self.bytes_by_device = said.by_device("model buffer") if places.several else {}
        self.repacked_bytes = said.mebibytes(r"\w*REPACK model buffer")

    def metadata(self, ending: str) -> str | None:
        """The value of the header's first key that ends so, such as `.expert_used_count`; None without
        one."""
        api, text = llama(), ctypes.create_string_buffer(256)
        for i in range(api.llama_model_meta_count(self.handle)):
            api.llama_model_meta_key_by_index(self.handle, i, text, len(text))
            if text.value.decode().endswith(ending):
                api.llama_model_meta_val_str_by_index(self.handle, i, text, len(text))
                return text.value.decode()
        return None

    def close(self) -> None:
        if self.handle:
            llama().llama_model_free(self.handle)
            self.handle = None


def _place(parameters: Any, places: Places, path: Path) -> Any:
    """Put all layers on one GPU, or spread them over several by their free memory, the rest on the CPU where
    it is named.

    Returns what must live as long as the model. Spreading has not run on any GPU.
    """
    api = llama()
    if not places.several:
        assign(parameters, n_gpu_layers=-1, split_mode=api.LLAMA_SPLIT_MODE_NONE, main_gpu=places.gpus[0])
        return None
    if places.disk:
        raise CellFailure(
            "unsupported",
            "llama.cpp reads a file that does not fit into memory from the disk by itself: leave disk out",
        )
    free = free_vram_bytes(places.gpus)
    share = (ctypes.c_float * int(api.llama_max_devices()))(*[0.0] * int(api.llama_max_devices()))
    for gpu, size in free.items():
        share[gpu] = size / sum(free.values())
    room = 0.9 * sum(free.values()) / sum(part.stat().st_size for part in parts_of(path))
    layers = int(room * (block_count(path) + 1)) if places.cpu and room < 1 else -1
    assign(parameters, n_gpu_layers=layers, split_mode=api.LLAMA_SPLIT_MODE_LAYER, main_gpu=places.gpus[0])
    assign(parameters, tensor_split=ctypes.cast(share, dict(parameters._fields_)["tensor_split"]))
    return share


def _load_failure(path: Path, said: Messages) -> CellFailure:
    text = "".join(said.lines)
    reason = said.reason("llama.cpp gave no reason")
    if "unknown model architecture" in text or "unknown pre-tokenizer" in text:
        return CellFailure("unsupported", f"llama.cpp does not run this model: {reason}")
    if "failed to allocate" in text or "unable to allocate" in text or "out of memory" in text:
        return CellFailure("out_of_memory", f"llama.cpp could not load {path.name}: {reason}")
    return CellFailure("broken_checkpoint", f"llama.cpp cannot load {path.name}: {reason}")


def _context_parameters(model: Model, choose_flash: bool) -> Any:
    """Parameters of a context that the model's device and type of cache decide."""
    api, gpu = llama(), model.device.startswith("cuda")
    parameters = api.llama_context_default_params()
    flash = api.LLAMA_FLASH_ATTN_TYPE_AUTO if choose_flash else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if is_quantized(model.cache):
        flash = api.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assign(parameters, n_threads=cores(), n_threads_batch=cores(), flash_attn_type=flash)
    kind = getattr(api, f"GGML_TYPE_{model.cache.upper()}")
    assign(parameters, type_k=kind, type_v=kind, offload_kqv=gpu, op_offload=gpu, no_perf=True)
    return parameters


class Context:
    """A key-value cache and compute buffers on a model."""

    def __init__(
        self,
        model: Model,
        cells: int,
        batch: int,
        ubatch: int,
        sequences: int = 1,
        unified: bool = False,
        full_window: bool = True,
        watch: Any = None,
        choose_flash: bool = False,
    ) -> None:
        """`cells` tokens of cache in all, at most `batch` tokens per call, computed `ubatch` at a time.

        `unified` lets tokens belong to several sequences; `full_window` keeps all cells of layers with
        sliding-window attention; `watch` is a ctypes callback on every node of the graph; `choose_flash`
        lets llama.cpp choose flash attention. Raises CellFailure where it does not fit."""
        self.model, self.cells, self.batch = model, cells, batch
        self.sequences, self.unified = sequences, unified
        parameters = _context_parameters(model, choose_flash)
        assign(parameters, n_ctx=cells, n_batch=batch, n_ubatch=min(ubatch, batch))
        assign(parameters, n_seq_max=sequences, kv_unified=unified, swa_full=full_window)
        if watch is not None:
            assign(parameters, cb_eval=watch)
        self._watch = watch
        with messages() as said:
            self.handle = llama().llama_init_from_model(model.handle, parameters)
        if not self.handle:
            reason = f"llama.cpp cannot make a context of {cells} tokens: {said.reason('no reason given')}"
            refused = is_quantized(model.cache) and "alloc" not in reason
            raise CellFailure("unsupported" if refused else "out_of_memory", reason)
        self.flash_attention = is_quantized(model.cache) or _FLASH_ENABLED in "".join(said.lines)
        """Whether this context computes attention that way."""
        self.cache_bytes, self.state_bytes = said.mebibytes("KV buffer"), said.mebibytes("RS buffer")
        """Key-value cache and recurrent states, as llama.cpp logs them: allocated for all cells at once."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute one batch; the wanted logits, (wanted, vocabulary), in the batch's order.

        The array is llama.cpp's own memory: valid until the next call. Raises CellFailure where it fails.
        """
        return self.compute(laid_out(batch))

    def compute(self, batch: LaidOut) -> NDArray[np.float32]:
        """The same of a batch that is laid out already."""
        import numpy as np

        api = llama()
        with messages() as said:
            code = api.llama_decode(self.handle, batch.struct)
        if code:
            raise CellFailure(
                "unsupported", f"llama_decode failed with code {code}: {said.reason('no reason given')}"
            )
        if not batch.rows:
            return np.empty((0, 0), np.float32)
        address = ctypes.addressof(api.llama_get_logits(self.handle).contents)
        logits = _floats(batch.rows * self.model.vocabulary).from_address(address)
        return np.frombuffer(memoryview(logits), np.float32).reshape(batch.rows, self.model.vocabulary)

    def clear(self) -> None:
        """Forget every sequence."""
        api = llama()
        api.llama_memory_clear(api.llama_get_memory(self.handle), False)

    def copy(self, sequence: int, to: int, tokens: int) -> None:
        """Let another sequence begin with so many tokens of one; the cache is unified, so that nothing is
        moved."""
        api = llama()
        api.llama_memory_seq_cp(api.llama_get_memory(self.handle), sequence, to, 0, tokens)

    def forget(self, sequence: int) -> None:
        """Forget one sequence; what it shares with others stays theirs."""
        api = llama()
        api.llama_memory_seq_rm(api.llama_get_memory(self.handle), sequence, -1, -1)

    def wait(self) -> None:
        """Return when the device has finished."""
        llama().llama_synchronize(self.handle)

    def close(self) -> None:
        if self.handle:
            llama().llama_free(self.handle)
            self.handle = None
