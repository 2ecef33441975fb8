"""Check names that become folders, table rows and DVC keys: models, variants, cells."""

from __future__ import annotations

import re
from typing import NamedTuple

from quantlab.errors import QuantlabError

BASELINE = "baseline-16"
"""The unquantized model, whose quality every variant is compared with."""

LONGEST_MODEL, LONGEST_LABEL = 100, 60
"""Characters: two names and a suffix together must stay below the 255 bytes that a file's name may have."""
_MODEL = re.compile(r"[a-z0-9][a-z0-9._-]*")
_VARIANT = re.compile(r"([a-z][a-z0-9_]*)-(0|[1-9][0-9]?)(?:-([a-z0-9_]+))?")


class Variant(NamedTuple):
    """A method at a bit width, with a label for other settings at the same width."""

    method: str
    bits: int
    label: str | None = None

    @property
    def slug(self) -> str:
        return f"{self.method}-{self.bits}" + (f"-{self.label}" if self.label else "")

    @property
    def external(self) -> bool:
        """Whether somebody else made the checkpoint."""
        return bool(self.label and self.label.startswith("ext_"))


def parse_variant(slug: str) -> Variant:
    """Split `method-bits[-label]`. Raises QuantlabError where it is not of that form."""
    match = _VARIANT.fullmatch(slug)
    if not match:
        raise QuantlabError(
            f"{slug!r} is not a variant: write method-bits or method-bits-label, such as gptq-4 or"
            " gguf-4-iq4_xs"
        )
    if len(slug) > LONGEST_LABEL + 20:
        raise QuantlabError(
            f"{slug[:40]!r}... is too long for a variant: its label may have at most {LONGEST_LABEL}"
            " characters"
        )
    return Variant(match[1], int(match[2]), match[3])


def check_model_name(name: str) -> str:
    """The name itself where it can be a folder and a DVC key, else QuantlabError."""
    if len(name) > LONGEST_MODEL:
        raise QuantlabError(
            f"{name[:40]!r}... is too long to name a model here: use at most {LONGEST_MODEL} characters"
        )
    if not _MODEL.fullmatch(name) or "--" in name or ".." in name:
        raise QuantlabError(
            f"{name!r} cannot name a model here: use a-z, 0-9, '.', '_' and single '-', beginning with a"
            " letter or digit"
        )
    return name


def model_slug(name: str) -> str:
    """A folder name for a hub repository, a folder or a file: `Qwen/Qwen3.5-27B` gives `qwen3.5-27b`."""
    last = name.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf").lower()
    slug = re.sub(r"-{2,}", "-", re.sub(r"\.{2,}", ".", re.sub(r"[^a-z0-9._-]+", "-", last))).strip("-._")
    return check_model_name(slug)


def cell_name(model: str, variant: str) -> str:
    """The name of a cell, `model--variant`."""
    return f"{model}--{variant}"
