"""Write the commands that serve a checkpoint, as its method and engine give them, and the one that measures
it."""

from __future__ import annotations

import shlex

from quantlab import engines, methods
from quantlab.engines import Served, ServeTarget
from quantlab.names import Variant


def serve(
    variant: Variant,
    checkpoint: str,
    source: str,
    name: str,
    context_tokens: int,
    gpus: int = 1,
    not_parallel: str = "",
) -> Served:
    """How to serve a checkpoint's folder with so many tokens of context on so many GPUs; 0 GPUs mean the CPU.

    `not_parallel` says why the GPUs cannot share its layers, where they cannot: each then gets whole layers.
    `source` is where the unquantized weights are, as vLLM names them; `name` is what the served model is
    called. What a server cannot load is said instead of a command that fails."""
    method = methods.load(variant.method)
    engine, how = engines.load(method.served_by), method.serving(variant.bits, source)
    if not how.loads:
        return Served(None, notes=how.notes)
    split = gpus if how.several_gpus else min(gpus, 1)
    target = ServeTarget(
        method.served_path(checkpoint, source), name, context_tokens, split, how.flags, not_parallel
    )
    served = engine.serve(target)
    alone = f"{engine.title} does not split a checkpoint that {variant.method} quantized over several GPUs"
    notes = (*how.notes, *served.notes, *([alone] if split < gpus else []))
    return served._replace(notes=notes)


def serve_release(
    source: str, name: str, context_tokens: int, gpus: int = 1, not_parallel: str = ""
) -> Served:
    """How to serve a release that is stored quantized: vLLM finds the format in its config.json."""
    served = engines.for_releases().serve(
        ServeTarget(source, name, context_tokens, gpus, not_parallel=not_parallel)
    )
    return served._replace(notes=("vLLM finds the release's format in its config.json", *served.notes))


def measure(model: str, variant: Variant) -> str:
    """The command that measures the variant."""
    if variant.label:
        return shlex.join(["quantlab", "run", model, "--variant", variant.slug])
    return shlex.join(["quantlab", "run", model, "--method", variant.method, "--bits", str(variant.bits)])
