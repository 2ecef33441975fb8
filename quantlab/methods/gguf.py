"""Quantize through llama.cpp: k-quants and i-quants, file to file, with an importance matrix where it
helps."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import field_validator, model_validator

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.architecture.weight_bytes import WeightBytes, sum_up
from quantlab.errors import QuantlabError
from quantlab.formats import GGUF, ggml
from quantlab.formats.gguf_types import NEED_IMPORTANCE, file_type, is_plain
from quantlab.frozen import Frozen
from quantlab.methods._contract import Grid, InMemory, Job, Method, Serving
from quantlab.methods._gguf import planned

TYPES = {16: "F16", 8: "Q8_0", 6: "Q6_K", 5: "Q5_K_M", 4: "Q4_K_M", 3: "Q3_K_M", 2: "Q2_K"}
_IMPORTANCE_UP_TO_BITS = 6  # without it Q5_K_M read 0.077 nats on SmolLM2, more than Q4_K_M with it (0.036)
FILE = "model.gguf"
_BLOCK_COLUMNS = 32
_TOWER = "The vision tower is not in it: llama.cpp keeps it in a file of its own (mmproj)."
_VECTOR_BYTES = 4
"""Of a norm or bias, which stays in float32."""


class Settings(Frozen):
    """What a recipe may set."""

    type: str | None = None
    """llama.cpp's name of the file type, such as IQ4_XS; None for the width's usual one."""
    imatrix: bool | None = None
    """Whether to weigh errors by the importance matrix; None for yes at 6 bits and below."""

    @field_validator("type")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        try:
            return value and file_type(value)
        except QuantlabError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _needed(self) -> Settings:
        if self.imatrix is False and self.type in NEED_IMPORTANCE:
            raise ValueError(
                f"{self.type} needs an importance matrix: leave imatrix out, or choose another type"
            )
        return self


class Gguf(Method):
    """GGUF files by llama.cpp."""

    name = "gguf"
    summary = "GGUF by llama.cpp: k-quants and i-quants, 8 to 2 bits, and F16"
    bits = (16, 8, 6, 5, 4, 3, 2)
    format = GGUF
    starts_from = "gguf"
    extra = "gguf"
    requires = ("llama-cpp-python", "gguf")
    Settings = Settings
    stores_tower = False
    served_by = "llama_cpp"
    colour = "#0072b2"

    def grid(self, settings: Any) -> Grid:
        """Of llama.cpp's blocks, which store a minimum."""
        return Grid(_BLOCK_COLUMNS, symmetric=False)

    def effective(self, settings: Any, bits: int) -> dict[str, Any]:
        """What the settings come to at the width."""
        name = settings.type or TYPES[bits]
        return {"type": name} | ({} if is_plain(name) else {"imatrix": _weighed(settings, bits)})

    def quantize(self, job: Job) -> InMemory:
        """Write `model.gguf`. `job.source` holds f16.gguf and imatrix.gguf. Raises CellFailure where
        llama.cpp refuses."""
        from quantlab.methods._gguf import importance, quantizer
        from quantlab.processors import cores

        settings: Any = job.settings
        name = settings.type or TYPES[job.bits]
        source, target = job.source / "f16.gguf", job.destination / FILE
        if name == "F16":
            _same_file(source, target)
            return InMemory(loss=None, expected_layers=0)
        matrix = importance.load(job.source / "imatrix.gguf") if _weighed(settings, job.bits) else None
        with job.progress.step(f"quantizing to {name}"):
            wider = quantizer.quantize_file(source, target, name, matrix, cores())
        tokens = importance.expert_tokens(matrix) if matrix else None
        note = (
            f"{wider} tensors are stored in another type: the 256 columns of {name}'s blocks do not divide"
            " their rows."
        )
        return InMemory(
            loss=None,
            expected_layers=0 if is_plain(name) else len(quantizer.quantizable(source)),
            notes=((note,) if wider else ()) + (tokens.note if tokens else ()),
            expert_tokens=tokens,
        )

    def serving(self, bits: int, source: str) -> Serving:
        """llama.cpp's server takes any file."""
        return Serving()

    def served_path(self, checkpoint: str, source: str) -> str:
        """The file in the folder."""
        return f"{checkpoint}/{FILE}"

    def why_left(self, count: ParameterCount, matrix: Matrix) -> str | None:
        """Why a matrix stays unquantized: llama.cpp quantizes embeddings and heads as well, and leaves
        routers in float32."""
        return (
            None
            if matrix.role in ("linear", "expert", "embedding", "head")
            else f"a {matrix.role} stays in float32"
        )

    def weight_bytes(self, count: ParameterCount, bits: int, settings: Any) -> WeightBytes:
        """Bytes of the tensors, each in the type that llama.cpp's mix gives it. Raises QuantlabError for an
        unknown mix."""
        file_type = str(self.effective(settings, bits)["type"])
        if not ggml.known(file_type):
            raise QuantlabError(
                f"the bytes of GGUF type {file_type} cannot be planned: quantize to learn them, or plan"
                " another type"
            )
        parts = list(planned.parts(count, file_type))
        packed = [p for p in parts if not planned.is_plain(p.kind)]
        rest = _VECTOR_BYTES * (count.vectors + count.buffers)
        tower = count.by_role.get("vision", 0)
        return sum_up(
            count,
            quantized_bytes=sum(p.bytes for p in packed),
            unquantized_bytes=sum(p.bytes for p in parts if planned.is_plain(p.kind)) + rest,
            quantized_weights=sum(p.weights for p in packed),
            expert_bytes=sum(p.bytes for p in parts if p.matrix.role == "expert"),
            embedding_bytes=sum(p.bytes for p in parts if p.matrix.role == "embedding"),
            notes=_notes(count, file_type, packed),
            aside=tower,
        )


def _notes(count: ParameterCount, file_type: str, packed: list[planned.Part]) -> tuple[str, ...]:
    notes = [_TOWER] if count.by_role.get("vision") else []
    odd = (
        sum(p.weights for p in packed if p.matrix.in_features % 256 and not p.kind.startswith("Q8"))
        if "K" in file_type
        else 0
    )
    if odd:
        share = f"{odd / max(1, count.total):.0%}"
        notes.append(f"{share} of the weights are in rows that 256 does not divide, and take a larger type.")
    return tuple(notes)


def _weighed(settings: Settings, bits: int) -> bool:
    """Whether the importance matrix is used."""
    if settings.imatrix is not None:
        return settings.imatrix
    return bits <= _IMPORTANCE_UP_TO_BITS or settings.type in NEED_IMPORTANCE


def _same_file(source: Path, target: Path) -> None:
    """A hard link, so that a large model is not stored twice; a copy where the file system has none."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


METHOD = Gguf()
