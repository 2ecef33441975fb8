"""Parameters of an architecture, counted by building it on torch's meta device in a process of its own.

The count is stored in the user's cache folder under the hash of the config, so the second call takes milliseconds, and
the counts of the catalogue's models ship with quantlab. What building cannot know (layers for multi-token prediction,
which transformers never builds) is computed from the shapes and named apart; it is in no total.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from quantlab.records import Frozen

COUNT_VERSION = 1
"""Version of what a count means; part of the cache's key."""

Role = Literal["embedding", "head", "linear", "expert", "router", "norm", "vision", "mtp", "other"]


class Matrix(Frozen):
    """Equal weight matrices of a model: one name, one shape, and in which layers they stand."""

    role: Role
    name: str
    """The module's name with `*` for the numbers in it, such as `model.layers.*.self_attn.q_proj`."""
    out_features: int
    in_features: int
    """Of one matrix; an expert's own, also where transformers holds all experts in one three-dimensional tensor."""
    how_many: int
    layers: tuple[int, ...] = ()
    """Numbers of the layers that have it; () outside the blocks."""
    bias: bool = False
    fused: bool = False
    """Whether it lies in a three-dimensional tensor, which is no torch Linear: some methods leave it alone."""

    @property
    def parameters(self) -> int:
        """Weights of all of them, without biases."""
        return self.out_features * self.in_features * self.how_many


class ParameterCount(Frozen):
    """How many parameters a model has, and where. Tied tensors and persistent buffers are counted once."""

    architecture: str
    """The class that was built, such as LlamaForCausalLM; `estimate` where none could be."""
    total: int
    """Without layers for multi-token prediction, with the vision tower where the config has one."""
    active: int
    """Used for one token of text: the total without the vision tower, with experts_per_token / experts of the experts."""
    active_without_embedding: int
    """The same without the input embedding; where that is tied it is the head, and stays in."""
    embedding: int
    head: int
    """0 where it is tied to the embedding."""
    tied: bool
    layers: int = 0
    hidden: int = 0
    experts: int = 0
    """Routed experts in a layer; 0 for a dense model."""
    experts_per_token: int = 0
    by_role: dict[Role, int]
    """Adds up to `total`, but for `mtp`, which is apart."""
    tensors: tuple[Matrix, ...] = ()
    """Every weight matrix of the text model: linears, experts, routers, embedding and head. () for an estimate."""
    vectors: int = 0
    """Parameters of the text model outside matrices (norms, biases, state-space constants), which stay unquantized."""
    certain: bool = True
    """False where it was estimated: show it with its doubts, never as an exact figure."""
    doubts: tuple[str, ...] = ()
    """What a reader of the figures must know, one sentence each."""


def count(config: Mapping[str, Any]) -> ParameterCount:
    """Parameters of the model that a config.json describes.

    An architecture that transformers does not know is estimated, `certain=False`. Raises QuantlabError for a config
    without the sizes that an estimate needs, or with impossible ones.
    """
    raise NotImplementedError


def stated(total: int, active: int | None = None, why: str = "") -> ParameterCount:
    """A count from a stated number of parameters alone, `certain=False`: for names that have no config."""
    raise NotImplementedError
