"""List the tensors of a built model by role: matrices with their shapes, experts, routers, norms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from quantlab.architecture.parameters import Role

_NOT_TEXT = re.compile(
    r"(^|\.)(vision|visual|audio|image|multi_modal|multimodal|mm_|embed_vision|embed_audio|sam_|siglip|patch_merg)"
)
_ROUTERS = ("router", "gate", "shared_expert_gate")


class Piece(NamedTuple):
    """One tensor of the model."""

    role: Role
    module: str
    parameters: int
    matrices: tuple[tuple[str, int, int, int], ...] = ()
    """Name, out_features, in_features, how many: an expert tensor holds several."""
    bias: bool = False
    fused: bool = False


def pieces(model: Any) -> Iterator[Piece]:
    """Every parameter, tied ones once."""
    return (piece for _, piece in named_pieces(model))


def named_pieces(model: Any) -> Iterator[tuple[str, Piece]]:
    """Every parameter by its name, tied ones once."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    hidden = model.config.get_text_config().hidden_size
    seen: set[int] = set()
    for name, module in model.named_modules():
        for key, tensor in module._parameters.items():
            if tensor is None or id(tensor) in seen:
                continue
            seen.add(id(tensor))
            whole = f"{name}.{key}" if name else key
            yield whole, _piece(name, module, key, tensor, embedding, head, hidden)


def buffers(model: Any) -> tuple[int, int]:
    """Elements and bytes of the buffers that are saved with the model: routers' corrections, tables of
    hashes."""
    kept = {
        id(b): b
        for m in model.modules()
        for n, b in m._buffers.items()
        if b is not None and n not in m._non_persistent_buffers_set
    }.values()
    return sum(b.numel() for b in kept), sum(b.numel() * b.element_size() for b in kept)


def _piece(name: str, module: Any, key: str, tensor: Any, embedding: Any, head: Any, hidden: int) -> Piece:
    from torch import nn

    tensor = _released(module, tensor)
    size, last = tensor.numel(), name.rpartition(".")[2]
    bias = getattr(module, "bias", None) is not None
    if _NOT_TEXT.search(name):
        return Piece("vision", name, size)
    if module is embedding or module is head:
        role: Role = "embedding" if module is embedding else "head"
        return Piece(role, name, size, ((name, *tensor.shape, 1),) if tensor.dim() == 2 else ())
    if name.endswith(("router.layer", "router.proj")) and tensor.dim() == 2:
        return Piece("router", name, size, ((name, *tensor.shape, 1),), bias)
    if (expert := _expert(name, module, key, tensor, hidden)) is not None:
        return expert
    if (
        last in _ROUTERS
        and tensor.dim() == 2
        and min(tensor.shape) < hidden
        and key == "weight"
        and "mlp.gate_proj" not in name
    ):
        return Piece("router", name, size, ((name, *tensor.shape, 1),), bias)
    if type(module).__name__ == "Conv1D" and tensor.dim() == 2:  # GPT-2's linear, stored (in, out)
        return Piece("linear", name, size, ((name, tensor.shape[1], tensor.shape[0], 1),), bias)
    if isinstance(module, nn.Linear) and tensor.dim() == 2:
        return Piece("linear", name, size, ((name, *tensor.shape, 1),), bias)
    if "norm" in type(module).__name__.lower():
        return Piece("norm", name, size)
    return Piece("router" if last in _ROUTERS else "other", name, size)


def _released(module: Any, tensor: Any) -> Any:
    """A tensor without the rows of LongCat's experts that do nothing: no release stores them."""
    idle = getattr(module, "zero_expert_num", 0) or 0
    if idle and tensor.shape[0] == module.num_routed_experts + idle:
        return tensor[: module.num_routed_experts]
    return tensor


def _expert(name: str, module: Any, key: str, tensor: Any, hidden: int) -> Piece | None:
    """A tensor of one expert or of all; None for any other."""
    size, bias = tensor.numel(), getattr(module, "bias", None) is not None
    held = _several(module)
    if held and tensor.dim() in (2, 3) and not (tensor.dim() == 2 and key == "weight"):
        of_one = tensor.dim() == 3 or tensor.shape[0] % held == 0
        matrices = tuple(_of_several(name, key, tensor, held)) if of_one else ()
        return Piece("expert", name, size, matrices, fused=True)
    if "expert" in name.rpartition(".")[2] and tensor.dim() == 3:
        matrices = tuple(_of_experts(f"{name}.*", key, module, tensor, hidden))
        return Piece("expert", name, size, matrices, fused=True)
    if re.search(r"\bexperts(\.\d+)?(\.|$)", name) and "shared" not in name:
        matrices = ((name, *tensor.shape, 1),) if tensor.dim() == 2 and key == "weight" else ()
        return Piece("expert", name, size, matrices, bias)
    return None


def _several(module: Any) -> int:
    """How many experts a module holds that is named after them by its class alone: JetMoE's ParallelExperts
    (n, out, in) and DBRX's ExpertGLU (n × channels, hidden); 0 for any other."""
    if not re.search(r"ParallelExperts$|ExpertGLU$", type(module).__name__):
        return 0
    return int(getattr(module, "num_experts", 0) or getattr(module, "moe_num_experts", 0))


def _of_several(name: str, key: str, tensor: Any, n: int) -> Iterator[tuple[str, int, int, int]]:
    rows, columns = tensor.shape[-2:]
    if tensor.dim() == 3:
        yield f"{name}.*", rows, columns, n
    elif key == "w2":  # of the second projection the transpose is used
        yield f"{name}.*.{key}", columns, rows // n, n
    else:
        yield f"{name}.*.{key}", rows // n, columns, n


def _of_experts(
    name: str, key: str, module: Any, tensor: Any, hidden: int
) -> Iterator[tuple[str, int, int, int]]:
    """The matrices in a tensor of all experts: (experts, out, in), or (experts, in, out) where the module
    says so."""
    n, rows, columns = tensor.shape
    transposed = getattr(module, "is_transposed", None)
    if transposed is None:
        transposed = (
            (rows == hidden and columns != hidden) if "up" in key else (columns == hidden and rows != hidden)
        )
    out, into = (columns, rows) if transposed else (rows, columns)
    if "gate_up" in key:  # methods and file formats take the two apart
        yield f"{name}.gate_proj", out // 2, into, n
        yield f"{name}.up_proj", out // 2, into, n
    else:
        yield f"{name}.{key}", out, into, n
