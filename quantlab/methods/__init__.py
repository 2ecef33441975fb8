"""The methods: one file each, the file's name is the method's name.

A method is a module with

- `SUMMARY`: one line for `quantlab list methods`
- `BITS`: the widths that it offers
- `FORMAT`: what it writes, `safetensors` or `gguf`
- `FROM`: what it starts from, `source` (safetensors of the unquantized model) or `gguf` (its F16 GGUF)
- `EXTRA`: the pip extra that brings its library, and `REQUIRES`: the distributions in it whose versions decide the result
- `ENV`: environment variables that its stage runs with
- `Settings`: a frozen pydantic model of what a recipe may set, with defaults
- optionally `STORES_TOKENIZER = False` where its library saves no tokenizer beside the weights
- `quantize(job: Job) -> InMemory`: writes a loadable checkpoint into `job.destination`
- optionally `effective(settings, bits) -> dict`: what the settings come to at that width, for the report's reader

Heavy imports stand inside `quantize`, so that listing methods imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from pydantic import BaseModel, ValidationError

from quantlab import registry
from quantlab.errors import QuantlabError
from quantlab.names import Variant

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantlab.progress import Progress


@dataclass(frozen=True)
class Job:
    """All that a method needs to make one checkpoint."""

    source: Path
    """Folder of the unquantized model: safetensors and tokenizer, or the F16 GGUF and its importance matrix."""
    bits: int
    settings: Any
    """The method's own Settings."""
    calibration: NDArray[np.int64]
    """Token ids, shape (windows, length)."""
    destination: Path
    """An empty folder; it becomes the checkpoint only if everything goes well."""
    device: str
    """A torch device, `cpu` or `cuda:0`."""
    seed: int
    progress: Progress
    trust_remote_code: bool = False
    check_tokens: NDArray[np.int64] | None = None
    """Token ids (length,) that the loss in memory will be asked for, for a library whose model does not survive saving."""


class InMemory(NamedTuple):
    """The quantized model as it stood in memory after saving."""

    loss: Callable[[NDArray[np.int64]], float] | None
    """Mean negative log-likelihood in nats of token ids (length,), by the quantized model in memory;
    None where the library quantizes file to file and never holds a model that runs."""
    expected_layers: int | None
    """How many layers were asked to be quantized; None where nobody here asked (somebody else's checkpoint)."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers must know, one sentence each."""


class Method(Protocol):
    """The shape of a module in this folder."""

    SUMMARY: str
    BITS: tuple[int, ...]
    FORMAT: str
    FROM: str
    EXTRA: str | None
    REQUIRES: tuple[str, ...]
    ENV: Mapping[str, str]
    Settings: type[BaseModel]

    def quantize(self, job: Job) -> InMemory: ...


def names() -> tuple[str, ...]:
    """Every method's name."""
    return registry.names(__path__)


def load(name: str) -> Method:
    """The method's module. Raises QuantlabError for an unknown name."""
    return cast(Method, registry.load(__name__, __path__, "method", name))


def effective(variant: Variant, settings: BaseModel) -> dict[str, Any]:
    """What a variant's settings come to at its width: the method's own account, else the settings."""
    own = getattr(load(variant.method), "effective", None)
    found: dict[str, Any] = own(settings, variant.bits) if own else settings.model_dump(mode="json")
    return found


def settings_of(variant: Variant, given: Mapping[str, Any]) -> Any:
    """Check a variant's settings. Raises QuantlabError for unknown keys or wrong types."""
    from quantlab.recipe import explain

    if variant.external:
        from quantlab.foreign import Settings
    else:
        Settings = load(variant.method).Settings  # type: ignore[assignment,misc]  # noqa: N806 - a class
    try:
        return Settings.model_validate(dict(given), strict=True)
    except ValidationError as error:
        known = ", ".join([*Settings.model_fields, "cache"])
        raise QuantlabError(f"{explain(error)} (settings of {variant.method}: {known})") from None
