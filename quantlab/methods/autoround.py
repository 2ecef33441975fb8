"""Learn rounding and clipping by signed gradient descent (Cheng et al. 2024), through auto-round.

At 2 bits it does not collapse where GPTQ does; it takes the role that QuIP# has in people's tables.
"""

from __future__ import annotations

import traceback
from typing import Any, Literal

from pydantic import Field

from quantlab.architecture.fields import experts_of
from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.errors import CellFailure
from quantlab.frozen import Frozen
from quantlab.methods._autoround_blocks import each_its_own, loss_of_streams
from quantlab.methods._by_block import needs_by_block
from quantlab.methods._contract import Grid, InMemory, Job, Method, Needs, Serving
from quantlab.methods._counted_experts import CountedExperts
from quantlab.methods._grouped import grouped_bytes
from quantlab.outside import as_failure, is_own

_MULTIPLE = 32
"""Both sides of a quantized layer are a multiple of it (layer_config_resolver.py)."""
_FEW_ARE = "auto-round learns their rounding from those few, and rounds to nearest where there are none"


class Settings(Frozen):
    """What a recipe may set."""

    group_size: Literal[32, 64, 128] = 128
    iterations: int = Field(default=200, ge=1)
    """Steps of gradient descent per block."""
    samples: int = Field(default=128, ge=1)
    """Calibration windows at the most."""
    batch_size: int = Field(default=4, ge=1)


class AutoRound(Method):
    """auto-round in its own format."""

    name = "autoround"
    summary = "learned rounding with calibration text, through auto-round; good at 2 bits"
    bits = (4, 3, 2)
    extra = "autoround"
    requires = ("auto-round", "torch", "transformers")
    Settings = Settings
    loaded_by = ("auto_round",)
    marks = ("auto-round", "autoround", "intel/auto-round")

    def quantize(self, job: Job) -> InMemory:
        """Learn the rounding of each block on the calibration windows.

        Raises CellFailure for what auto-round refuses or stops at."""
        from quantlab.methods._loss import model_loss
        from quantlab.models.auto_round_experts import complete_replacements, note_for
        from quantlab.models.loading import only_trusted_code

        complete_replacements()
        model, windows = _loaded(job)
        kind = str(model.config.model_type)
        experts = experts_of(model.config.get_text_config(decoder=True))
        counted = CountedExperts(experts, job.calibration[: len(windows)].size)
        step = f"auto-round: {job.bits} bits, {job.settings.iterations} steps per block"
        try:
            with job.progress.step(step), only_trusted_code(job.trust_remote_code), counted:
                with each_its_own(model, _blocks(model), windows), loss_of_streams():
                    rounding = _rounding(job, model, windows)
                    quantized, _ = rounding.quantize()
                # saving packs the layers in place and frees them: the model in memory is asked before
                loss = None if job.check_tokens is None else model_loss(quantized)(job.check_tokens)
                rounding.save_quantized(str(job.destination), format="auto_round")
        except Exception as error:  # the library raises whatever a model leads it to
            known = as_failure(error)
            if known is None and is_own(error, "auto_round", "transformers"):
                raise
            if known is None:
                traceback.print_exc()  # for the log
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise known or CellFailure("unsupported", f"auto-round stops at this model: {text}") from error
        packed = frozenset(name for name, layer in quantized.named_modules() if hasattr(layer, "qweight"))
        tokens = counted.tokens_of(quantized, _FEW_ARE)
        return InMemory(
            None if loss is None else lambda _: loss,
            len(packed),
            notes=note_for(kind) + (tokens.note if tokens else ()),
            layers=packed,
            expert_tokens=tokens,
        )

    def grid(self, settings: Any) -> Grid:
        """Of its scheme, which has no zero points."""
        return super().grid(settings)._replace(symmetric=True)

    def memory(self, parameters: int, bits: int) -> Needs:
        """The unquantized model in the machine's memory, one block at a time on the device."""
        return needs_by_block(parameters, bits)

    def why_left(self, count: ParameterCount, matrix: Matrix) -> str | None:
        """Why a matrix stays in 16 bits."""
        if matrix.role in ("linear", "expert") and (
            matrix.out_features % _MULTIPLE or matrix.in_features % _MULTIPLE
        ):
            return f"a side is no multiple of {_MULTIPLE}"
        return super().why_left(count, matrix)

    def matrix_bytes(self, matrix: Matrix, bits: int, settings: Any) -> int:
        """Bytes of qweight, qzeros and scales."""
        return grouped_bytes(matrix, bits, settings.group_size)

    def remarks(self, count: ParameterCount, settings: Any) -> tuple[str, ...]:
        """What a reader of the bytes must know."""
        fused = any(m.fused for m in count.tensors)
        said = (
            "It is taken for granted that auto-round takes the experts apart; not tried on this architecture."
        )
        return (*([said] if fused else []), *super().remarks(count, settings))

    def serving(self, bits: int, source: str) -> Serving:
        """vLLM finds the format by itself, at 4 bits."""
        if bits != 4:
            return self.no_kernel(bits)
        return Serving(
            notes=("vLLM finds AutoRound's format in the checkpoint's config.json, without a flag",)
        )


def _loaded(job: Job) -> tuple[Any, list[Any]]:
    """The unquantized model, and the calibration windows (1, length)."""
    import torch

    from quantlab.models.loading import load_model

    windows = [torch.from_numpy(ids)[None] for ids in job.calibration[: job.settings.samples]]
    return load_model(job.source, job.trust_remote_code, dtype="auto"), windows


def _blocks(model: Any) -> list[str]:
    """Names of the blocks that auto-round quantizes one after the other."""
    from auto_round.utils import get_block_names

    return [name for group in get_block_names(model) for name in group]


def _rounding(job: Job, model: Any, windows: list[Any]) -> Any:
    """auto-round's own object."""
    from auto_round import AutoRound as Rounder

    from quantlab.models.loading import load_tokenizer

    settings: Settings = job.settings
    return Rounder(
        model,
        load_tokenizer(job.source, job.trust_remote_code),
        scheme=scheme(job.bits, settings.group_size),
        iters=settings.iterations,
        nsamples=len(windows),
        seqlen=job.calibration.shape[1],
        batch_size=min(settings.batch_size, len(windows)),
        dataset=windows,
        device_map=job.device,
        enable_torch_compile=False,
        low_cpu_mem_usage=False,
        seed=job.seed,
    )


def scheme(bits: int, group_size: int) -> Any:
    """auto-round's scheme of a width and a group: its presets have names for some of them alone."""
    from auto_round.schemes import QuantizationScheme

    return QuantizationScheme(bits=bits, group_size=group_size, sym=True, data_type="int", act_bits=16)


METHOD = AutoRound()
