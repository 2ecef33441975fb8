"""Count, beside the divergence, how many experts of each token are others than the unquantized model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quantlab.analysis.divergence import WindowValues, scored
from quantlab.analysis.routing import replaced, summarize
from quantlab.engines import Chosen, OpenCheckpoint
from quantlab.records import RoutingChanges
from quantlab.reference.experts import StoredExperts
from quantlab.reference.store import Reference
from quantlab.workspace.cell import Cell
from quantlab.workspace.checkpoint import Checkpoint
from quantlab.workspace.columns import Columns, Shape
from quantlab.workspace.items import Items

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RoutedWindows:
    """The windows of one checkpoint: their divergences and, of a mixture, the replaced experts beside them.
    `key` is a hash of everything that decides both.

    A window is finished when both are written. Why an engine does not tell is kept as well, so that finished
    windows are not run again to learn it."""

    def __init__(
        self, cell: Cell, checkpoint: Checkpoint, key: str, reference: Reference, engine: OpenCheckpoint
    ) -> None:
        info, rows = reference.info, scored(reference.info.length)
        self._reference, self._engine, self._first = reference, engine, rows.start
        self._kept, self._key = Items(cell.root, checkpoint.sha256, "routing"), key
        self.reason: str | None = info.experts_reason or self._kept.get(key)
        self._stored = None if self.reason else info.experts
        self._chosen = Chosen()

        def columns(what: str, number: int) -> Columns:
            shape = Shape(number, info.windows, rows.stop - rows.start)
            return Columns(cell.root, checkpoint.sha256, what, key, shape)

        self.divergences = columns("divergence", len(WindowValues._fields))
        self._counts = columns("routing", len(self._stored.blocks)) if self._stored else None

    def logits(self, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The engine's logits of the scored rows and the last one; of a mixture its choices are
        remembered."""
        if self._counts is None:
            return self._engine.logits(token_ids, self._first)
        routed = self._engine.routed_logits(token_ids, self._first)
        self._chosen = routed.chosen
        return routed.logits

    def has(self, window: int) -> bool:
        """Whether a window is finished."""
        return self.divergences.has(window) and (self._counts is None or self._counts.has(window))

    def put(self, window: int, values: Sequence[NDArray[Any]]) -> None:
        """Write the divergences of the window whose logits were asked for last, and its replaced experts."""
        if self._counts is not None:
            self._count(window)
        self.divergences.put(window, values)

    def _count(self, window: int) -> None:
        assert self._stored is not None and self._counts is not None
        if reason := self._chosen.reason or _other_blocks(self._stored, self._chosen):
            self.reason, self._counts = reason, None
            self._kept.add({self._key: reason})
            return
        import numpy as np

        # the last row has no next token and is not scored
        together = np.stack([self._chosen.by_block[block][:-1] for block in self._stored.blocks], axis=1)
        self._counts.put(window, list(replaced(self._reference.experts(window), together).T))

    def changes(self) -> RoutingChanges | None:
        """Of all windows; None for a model without experts, and where there is a `reason`."""
        if self._counts is None or self._stored is None:
            return None
        stored = self._stored
        return summarize(self._counts.read(), stored.blocks, stored.experts, stored.experts_per_token)


def _other_blocks(stored: StoredExperts, chosen: Chosen) -> str | None:
    """Why choices cannot be compared with those of the reference; None where they can."""
    if chosen.by_block.keys() != set(stored.blocks):
        return f"it has experts in blocks {sorted(chosen.by_block)}, the model in {list(stored.blocks)}"
    numbers = {rows.shape[1] for rows in chosen.by_block.values()}
    if numbers != {stored.experts_per_token}:
        return f"its tokens pass {max(numbers)} experts, the model's {stored.experts_per_token}"
    return None
