"""Turn the user's name of a model into what a plan needs: a config, or a stated number of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.architecture.counts import stated
from quantlab.architecture.gguf_header import is_gguf
from quantlab.architecture.gguf_model import GgufModel, read_gguf
from quantlab.architecture.parameters import ParameterCount
from quantlab.errors import QuantlabError
from quantlab.models.target import target
from quantlab.names import model_slug
from quantlab.parsing import as_path
from quantlab.parsing.sizes import named_size


class Ingredients(NamedTuple):
    """What `plan_model` starts from."""

    name: str
    config: Mapping[str, Any] | None
    counted: ParameterCount | None
    """Given where no config is known to count from."""
    source: str
    warnings: tuple[str, ...] = ()
    folder: Path | None = None
    """Where the config lies on this machine, a tokenizer maybe beside it."""
    file: GgufModel | None = None
    """What a GGUF file holds: it is planned from its own tensors, without a config."""


def ingredients(name: str) -> Ingredients:
    """The model called `name`: an alias, a hub repository, a folder, a config.json or a GGUF file.

    A name that no release bears is planned from the size that it states. Raises QuantlabError for a name that
    nothing bears, a file that is neither, and a hub that cannot be reached."""
    path = as_path(name)
    if is_gguf(path):
        file = read_gguf(path)
        about = f"{path} holds {file.counted.total:,} parameters in {file.file_bytes:,} bytes"
        return Ingredients(model_slug(path.name), None, file.counted, str(path), (about,), file=file)
    known = target(name)
    if known.config is not None:
        return Ingredients(known.slug, known.config, None, known.source, known.warnings, known.folder)
    if known.entry and known.entry.parameters:
        return Ingredients(known.slug, None, known.parameters(), known.source, known.warnings)
    size = named_size(known.slug)
    if size is None:
        nearest = ", ".join(known.entry.nearest) if known.entry else ""
        raise QuantlabError(
            f"no release named {known.slug} is known and its name states no size: plan"
            f" {nearest or 'a config.json'} instead"
        )
    why = f"Only the {size.total / 1e9:g}B parameters that the name states were taken."
    return Ingredients(known.slug, None, stated(size.total, size.active, why), known.source, known.warnings)
