"""Describe a model's parameters: matrices by role, name and shape, and their totals."""

from __future__ import annotations

from typing import Literal

from quantlab.frozen import Frozen

LAYERS_LIMIT = 10_000
"""No model has more layers; a larger number is a mistake."""
Role = Literal["embedding", "head", "linear", "expert", "router", "norm", "vision", "mtp", "other"]


class Matrix(Frozen):
    """Equal weight matrices of a model: one name, one shape, and in which layers they stand."""

    role: Role
    name: str
    """The module's name with `*` for the numbers in it, such as `model.layers.*.self_attn.q_proj`."""
    out_features: int
    in_features: int
    """Of one matrix; an expert's own, also where transformers holds all experts in one three-dimensional
    tensor."""
    how_many: int
    layers: tuple[int, ...] = ()
    """Numbers of the layers that have it; () outside the blocks."""
    bias: bool = False
    fused: bool = False
    """Whether it lies in a three-dimensional tensor, which is not a torch Linear: some methods leave it
    alone."""

    @property
    def parameters(self) -> int:
        """Weights of all of them, without biases."""
        return self.out_features * self.in_features * self.how_many


class ParameterCount(Frozen):
    """How many parameters a model has, and where. Tied tensors are counted once."""

    architecture: str
    """The class that was built, such as LlamaForCausalLM; `estimate` where none could be."""
    total: int
    """Without layers for multi-token prediction, with the vision tower where the config has one."""
    active: int
    """Used for one token of text: the total without the vision tower, with experts_per_token / experts of the
    experts."""
    active_without_embedding: int
    """The same without the input embedding; where that is tied it is the head, and stays in."""
    embedding: int
    head: int
    """0 where it is tied to the embedding."""
    tied: bool
    layers: int = 0
    hidden: int = 0
    query_per_kv: int = 1
    """Query heads that share one key-value head."""
    model_type: str = ""
    experts: int = 0
    """Routed experts in a layer; 0 for a dense model."""
    experts_per_token: int = 0
    by_role: dict[Role, int]
    """Adds up to `total`, but for `mtp`, which is apart."""
    tensors: tuple[Matrix, ...] = ()
    """Every weight matrix of the text model: linears, experts, routers, embedding and head. () where only a
    number is known."""
    vectors: int = 0
    """Parameters of the text model outside matrices (norms, biases, state-space constants), which stay
    unquantized."""
    buffers: int = 0
    """Elements of saved tensors that are no parameters, such as routers' corrections; in no total."""
    buffer_bytes: int = 0
    certain: bool = True
    """False where it was estimated: show it with its doubts, never as an exact figure."""
    doubts: tuple[str, ...] = ()
    """What a reader of the figures must know, one sentence each."""
