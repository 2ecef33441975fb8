"""The commands that serve a checkpoint: `vllm serve`, `llama-server`, an Ollama Modelfile.

Flags as in vLLM's vllm/model_executor/layers/quantization (auto_gptq.py, auto_awq.py, fp8.py) and llama.cpp's
tools/server/README.md. What a server cannot load is said instead of a command that fails.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple

from quantlab import methods
from quantlab.formats import GGUF
from quantlab.methods.gguf import FILE
from quantlab.names import Variant
from quantlab.planning.rig import BY_LAYERS

_ALL_LAYERS = 999
"""llama-server takes it for all layers, in old and new versions; `all` is understood by new ones alone."""


class Served(NamedTuple):
    """How a checkpoint is served."""

    command: str | None
    """None where no known server loads it; `notes` say why."""
    modelfile: str | None = None
    """Text of an Ollama Modelfile that lies beside the checkpoint's folder."""
    create: str | None = None
    """The command that makes Ollama's model of it."""
    notes: tuple[str, ...] = ()


def serve(variant: Variant, checkpoint: str, source: str, name: str, context_tokens: int, gpus: int = 1, not_parallel: str = "") -> Served:
    """How to serve a checkpoint's folder with so many tokens of context on so many GPUs; 0 GPUs mean the CPU.

    `not_parallel` says why the GPUs cannot share its layers, where they cannot: each then gets whole layers.
    `source` is where the unquantized weights are, as vLLM names them; `name` is what the served model is called.
    """
    method = methods.load(variant.method)
    if method.format == GGUF:
        return _llama(f"{checkpoint}/{FILE}", name, context_tokens, gpus)
    how = method.serving(variant.bits, source)
    if not how.loads:
        return Served(None, notes=how.notes)
    size, notes = max(gpus, 1) if how.several_gpus else 1, how.notes
    words = ["vllm", "serve", source if how.points_at_source else checkpoint, *how.flags, *_split(size, not_parallel)]
    words += ["--max-model-len", str(context_tokens), "--served-model-name", name]
    if size > 1 and not_parallel:
        notes = (*notes, f"{not_parallel}: {BY_LAYERS}")
    if not how.several_gpus and gpus > 1:
        notes = (*notes, f"vLLM does not split a checkpoint that {variant.method} quantized over several GPUs")
    return Served(shlex.join(words), notes=notes)


def serve_release(source: str, name: str, context_tokens: int, gpus: int = 1, not_parallel: str = "") -> Served:
    """How to serve a release that is stored quantized: vLLM finds the format in its config.json."""
    words = ["vllm", "serve", source, *_split(max(gpus, 1), not_parallel), "--max-model-len", str(context_tokens)]
    notes = ("vLLM finds the release's format in its config.json", *([f"{not_parallel}: {BY_LAYERS}"] if not_parallel else []))
    return Served(shlex.join([*words, "--served-model-name", name]), notes=notes)


def _split(gpus: int, not_parallel: str) -> list[str]:
    return ["--pipeline-parallel-size" if not_parallel and gpus > 1 else "--tensor-parallel-size", str(gpus)]


def measure(model: str, variant: Variant) -> str:
    """The command that measures the variant."""
    if variant.label:
        return shlex.join(["quantlab", "run", model, "--variant", variant.slug])
    return shlex.join(["quantlab", "run", model, "--method", variant.method, "--bits", str(variant.bits)])


def _llama(path: str, name: str, context_tokens: int, gpus: int) -> Served:
    words = ["llama-server", "--model", path, "--ctx-size", str(context_tokens), "--gpu-layers", str(_ALL_LAYERS if gpus else 0)]
    return Served(
        shlex.join([*words, "--parallel", "1", "--alias", name]),
        modelfile=f"FROM {path}\nPARAMETER num_ctx {context_tokens}\n",
        create=shlex.join(["ollama", "create", name, "-f", "Modelfile"]),
        notes=("llama-server shares the context among its slots: with --parallel N give N times as much",),
    )
