"""Note to which experts llama.cpp sends each token, through the callback on the nodes of its graph.

Read are the indices by which a block's experts are multiplied: groups, hash tables and biases have had their
say in them."""

from __future__ import annotations

import collections
import re
from typing import TYPE_CHECKING, Any

from quantlab.engines._llama.node import Node, chosen_experts, operation, weight_name
from quantlab.formats.llama_log import llama

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXPERTS = re.compile(r"blk\.(\d+)\.ffn_down_exps\.")
"""The product that every kind of expert ends with."""


class ChosenExperts:
    """A callback for a context, and what it saw since it was last asked."""

    def __init__(self) -> None:
        self.callback = llama().ggml_backend_sched_eval_callback(self._watch)
        self._seen: dict[int, list[NDArray[np.int32]]] = collections.defaultdict(list)
        self._error: BaseException | None = None

    def take(self, rows: int) -> dict[int, NDArray[np.int32]]:
        """By block, the experts of the last `rows` tokens, shape (rows, per token); what was seen is
        forgotten.

        In its last block llama.cpp computes those tokens alone whose logits are wanted."""
        import numpy as np

        seen, self._seen = self._seen, collections.defaultdict(list)
        if self._error:
            raise self._error
        return {block: np.concatenate(parts)[-rows:] for block, parts in sorted(seen.items())}

    def _watch(self, address: int, ask: bool, _: Any) -> bool:
        """llama.cpp asks first whether a node is of interest; one that is comes again when it was
        computed."""
        try:
            node = Node.from_address(address)
            block = _block(node)
            if not ask and block is not None:
                self._seen[block].append(chosen_experts(node))
        except BaseException as error:  # ctypes would print it and go on
            self._error = self._error or error
            return True
        return not ask or block is not None


def _block(node: Node) -> int | None:
    """The number of the block whose experts a node multiplies; None for any other node."""
    if operation(node.op) != "MUL_MAT_ID":
        return None
    named = EXPERTS.match(weight_name(node.src[0].contents))
    return int(named[1]) if named else None
