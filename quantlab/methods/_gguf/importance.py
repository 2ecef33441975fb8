"""Compute the importance matrix: the size of the inputs of each weight's columns on a calibration text.

What llama.cpp's llama-imatrix collects (tools/imatrix/imatrix.cpp: sums of squared activations of every
matrix product on a weight of a block), collected here through the callback that llama.cpp calls on each node
of its graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.engines._llama.experts import EXPERTS
from quantlab.engines._llama.library import Context, Model, one_sequence
from quantlab.engines._llama.node import Node, operation, weight_name
from quantlab.errors import CellFailure
from quantlab.formats.llama_log import llama
from quantlab.methods._gguf.squares import dense_squares, expert_squares
from quantlab.records import ExpertTokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantlab.progress import Progress

_FEWEST_ROWS = 16
"""llama-imatrix leaves out smaller products."""
_FEW_ARE = "llama.cpp weighs their columns by those few, and alike where there are none"


class Entry(NamedTuple):
    """One weight's data."""

    sums: NDArray[np.float32]
    """Sums of squared inputs, shape (matrices, columns): one matrix, or one per expert."""
    counts: NDArray[np.float32]
    """Tokens that were added up, shape (1,), or (experts,)."""


class Importance(NamedTuple):
    """The importance matrix of a model."""

    entries: dict[str, Entry]
    """By the weight's name, sorted."""
    windows: int
    length: int


def compute(model: Path, token_ids: NDArray[np.int64], progress: Progress, device: str = "cpu") -> Importance:
    """Run the windows (windows, length) of token ids through a GGUF model and collect its importance matrix.

    Raises CellFailure where llama.cpp cannot run the model.
    """
    windows, length = token_ids.shape
    collector = _Collector()
    loaded = Model(model, device)
    try:
        context = Context(
            loaded, length, length, length, watch=llama().ggml_backend_sched_eval_callback(collector.watch)
        )
        try:
            with progress.step("importance matrix", total=windows) as step:
                for window in token_ids:
                    context.clear()
                    # llama.cpp computes the last layer only for the tokens whose logits are wanted.
                    context.run(one_sequence(window, all_logits=True))
                    collector.check()
                    step.advance()
        finally:
            context.close()
    finally:
        loaded.close()
    return Importance(as_stored(collector.entries(), model), windows, length)


def as_stored(entries: Mapping[str, Entry], model: Path) -> dict[str, Entry]:
    """The entries with one matrix where the file's tensor has one.

    DeepSeek V4 multiplies its attention's output in groups, as slices of one stored matrix, each with inputs
    of its own. llama.cpp quantizes the stored matrix with one weight per column: the mean over the groups."""
    import gguf

    flat = {tensor.name for tensor in gguf.GGUFReader(model).tensors if len(tensor.shape) < 3}
    return {
        name: Entry(entry.sums.sum(axis=0, keepdims=True), entry.counts * len(entry.sums))
        if name in flat and len(entry.sums) > 1
        else entry
        for name, entry in entries.items()
    }


def expert_tokens(importance: Importance) -> ExpertTokens | None:
    """The tokens that each expert was sent, by block; None for a model without experts."""
    by_block = {
        int(named[1]): tuple(int(count) for count in entry.counts)
        for name, entry in importance.entries.items()
        if (named := EXPERTS.match(name))
    }
    if not by_block:
        return None
    tokens = importance.windows * importance.length
    return ExpertTokens(calibration_tokens=tokens, by_block=dict(sorted(by_block.items())), few_are=_FEW_ARE)


class _Collector:
    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, NDArray[np.float64]] = {}
        self._error: BaseException | None = None

    def watch(self, address: int, ask: bool, _: Any) -> bool:
        """llama.cpp asks first whether a node is of interest; a node that is comes again when it has been
        computed."""
        try:
            node = Node.from_address(address)
            if ask:
                return self._wanted(node)
            self._add(node)
        except BaseException as error:  # ctypes would print it and go on
            self._error = self._error or error
        return True

    def check(self) -> None:
        if self._error:
            raise self._error

    def _wanted(self, node: Node) -> bool:
        what = operation(node.op)
        if what == "MUL_MAT_ID":
            return True
        if what != "MUL_MAT":
            return False
        inputs = node.src[1].contents
        return bool(
            inputs.type == 0
            and inputs.ne[1] >= _FEWEST_ROWS
            and weight_name(node.src[0].contents).startswith("blk.")
        )

    def _add(self, node: Node) -> None:
        import numpy as np

        sums, counts = (expert_squares if operation(node.op) == "MUL_MAT_ID" else dense_squares)(node)
        name = weight_name(node.src[0].contents)
        if not np.isfinite(sums.sum()):
            reason = f"the inputs of {name} are not finite on the calibration text"
            raise CellFailure("unsupported", f"llama.cpp has no importance matrix of this model: {reason}")
        self._sums[name] = self._sums.get(name, 0.0) + sums
        self._counts[name] = self._counts.get(name, 0.0) + counts

    def entries(self) -> dict[str, Entry]:
        return {
            name: Entry(self._sums[name].astype("float32"), self._counts[name].astype("float32"))
            for name in sorted(self._sums)
        }


def save(importance: Importance, target: Path) -> None:
    """Write llama.cpp's own GGUF format, which llama-quantize reads; the same matrix gives the same bytes."""
    import gguf

    partial = target.with_name(f".partial-{target.name}")
    writer = gguf.GGUFWriter(partial, arch="imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["quantlab calibration"])
    writer.add_uint32("imatrix.chunk_count", importance.windows)
    writer.add_uint32("imatrix.chunk_size", importance.length)
    for name, entry in importance.entries.items():
        writer.add_tensor(f"{name}.in_sum2", entry.sums)
        writer.add_tensor(f"{name}.counts", entry.counts[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(target)


def load(path: Path) -> Importance:
    """Read an importance matrix, this module's or llama-imatrix's."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(path)
    tensors = {t.name: np.array(t.data, dtype=np.float32) for t in reader.tensors}
    names = sorted(name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2"))
    entries = {}
    for name in names:
        counts = tensors[f"{name}.counts"].reshape(-1)
        entries[name] = Entry(
            tensors[f"{name}.in_sum2"].reshape(-1, tensors[f"{name}.in_sum2"].shape[-1]), counts
        )
    fields = {key: int(reader.fields[f"imatrix.{key}"].contents()) for key in ("chunk_count", "chunk_size")}
    return Importance(entries, fields["chunk_count"], fields["chunk_size"])
