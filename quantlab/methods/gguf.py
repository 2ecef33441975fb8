"""GGUF through llama.cpp: k-quants and i-quants, from file to file, with an importance matrix where it pays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import field_validator, model_validator

from quantlab.errors import QuantlabError
from quantlab.formats.gguf_types import NEED_IMPORTANCE, file_type, is_plain
from quantlab.frozen import Frozen
from quantlab.methods import InMemory, Job

SUMMARY = "GGUF by llama.cpp: k-quants and i-quants, 8 to 2 bits, and F16"
BITS = (16, 8, 6, 5, 4, 3, 2)
FORMAT = "gguf"
FROM = "gguf"
EXTRA = "gguf"
REQUIRES = ("llama-cpp-python", "gguf")
ENV: dict[str, str] = {}

TYPES = {16: "F16", 8: "Q8_0", 6: "Q6_K", 5: "Q5_K_M", 4: "Q4_K_M", 3: "Q3_K_M", 2: "Q2_K"}
_IMPORTANCE_UP_TO_BITS = 6  # without it Q5_K_M read 0.077 nats on SmolLM2, more than Q4_K_M with it (0.036)
FILE = "model.gguf"


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
            raise ValueError(f"{self.type} needs an importance matrix: leave imatrix out, or choose another type")
        return self


def effective(settings: Settings, bits: int) -> dict[str, Any]:
    """What the settings come to at the width."""
    name = settings.type or TYPES[bits]
    return {"type": name} | ({} if is_plain(name) else {"imatrix": _weighed(settings, bits)})


def quantize(job: Job) -> InMemory:
    """Write `model.gguf`. `job.source` holds f16.gguf and imatrix.gguf. Raises CellFailure where llama.cpp refuses."""
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
    note = f"{wider} tensors are stored in another type: their rows are no multiple of the 256 columns of {name}'s blocks."
    return InMemory(loss=None, expected_layers=0 if is_plain(name) else len(quantizer.quantizable(source)), notes=(note,) if wider else ())


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
