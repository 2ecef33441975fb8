"""Turn the user's name of a model into the config.json that a plan is made from; look at no weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.architecture.counts import count, stated
from quantlab.architecture.parameters import ParameterCount
from quantlab.catalogue import Entry, entries
from quantlab.catalogue.config import known_config
from quantlab.errors import QuantlabError
from quantlab.formats.json_file import read_object
from quantlab.models.resolved import ResolvedModel, resolve
from quantlab.names import model_slug
from quantlab.parsing import as_path
from quantlab.recipe import SourceSpec


class Target(NamedTuple):
    """A model to be planned."""

    slug: str
    config: Mapping[str, Any] | None
    """The contents of config.json; None for a name that no release bears: plan it from its stated
    parameters."""
    source: str
    """Where the config is from, in words."""
    entry: Entry | None
    warnings: tuple[str, ...] = ()
    folder: Path | None = None
    """Where the config lies on this machine, a tokenizer maybe beside it."""

    def parameters(self) -> ParameterCount:
        """Its parameters, from the config or as stated. Raises QuantlabError where there is neither."""
        if self.config is not None:
            return count(self.config)
        if not (self.entry and self.entry.parameters):
            raise QuantlabError(
                f"nothing is known of {self.slug} but its name: name a folder with its config.json"
            )
        why = (
            f"No release named {self.slug} is known: only the {self.entry.parameters / 1e9:g}B parameters"
            " that its name states were taken."
        )
        return stated(self.entry.parameters, self.entry.active, why)


def target(name: str) -> Target:
    """The model called `name`: an alias, `org/name[@revision]`, a folder, or a config.json.

    A name that people use and no release bears resolves to itself with a warning and no config. Raises
    QuantlabError for a name that nothing bears, a file without a config, and a hub that cannot be reached.
    """
    known, alias = entries(), "-".join(name.lower().split())
    if alias in known and not known[alias].exists:
        return Target(alias, None, "the name itself", known[alias], (_warning(alias, known[alias]),))
    path = as_path(name)
    if path.is_file() and path.suffix == ".json":
        slug = model_slug(path.stem if path.stem != "config" else path.resolve().parent.name)
        return Target(slug, read_object(path), str(path), None, (), path.parent)
    if (name.startswith((".", "/", "~")) or path.suffix in (".json", ".gguf")) and not path.exists():
        raise QuantlabError(
            f"{name} does not exist: name a model's config.json, the folder that has it, a GGUF file, or an"
            " alias"
        )
    return _with_config(name, resolve(name), known)


def _with_config(name: str, resolved: ResolvedModel, known: Mapping[str, Entry]) -> Target:
    """A model that exists, with its config: the catalogue's, the folder's or the hub's."""
    slug, spec, entry, warnings = resolved
    shipped = None if spec.revision else _shipped(slug, entry, known)
    if shipped:
        note = (shipped.note,) if shipped.note.startswith("not the original") else ()
        return Target(slug, shipped.config, f"the catalogue: {shipped.source}", entry, (*warnings, *note))
    if spec.path:
        folder = Path(spec.path)
        return Target(slug, read_object(_file_in(folder)), spec.path, entry, warnings, folder)
    if spec.hub:
        return Target(slug, read_object(_from_hub(spec)), _place(spec), entry, warnings)
    raise QuantlabError(
        f"{name} has no config.json that a plan could be made from: name a folder that has one"
    )


def _shipped(slug: str, entry: Entry | None, known: Mapping[str, Entry]) -> Any:
    """The catalogue's config, unless the user's own file points the alias elsewhere."""
    from quantlab.catalogue.entry import shipped

    if entry is None:
        return None
    alias = next((a for a, e in known.items() if e == entry), slug)
    original = shipped().get(alias)
    return known_config(alias) if original and original.place == entry.place else None


def _warning(alias: str, entry: Entry) -> str:
    near = f"; the nearest real ones are {', '.join(entry.nearest)}" if entry.nearest else ""
    return (
        f"no release named {alias} is known{near}: what follows is estimated from the parameters that the"
        " name states"
    )


def _file_in(path: Path) -> Path:
    if path.is_file():
        raise QuantlabError(
            f"{path} does not hold a config: a plan is made from the config.json of the original model, so"
            " name its folder"
        )
    if not (path / "config.json").is_file():
        raise QuantlabError(
            f"{path} has no config.json: name a folder of a transformers model, or the file itself"
        )
    return path / "config.json"


def _place(spec: SourceSpec) -> str:
    return f"{spec.hub}@{spec.revision}" if spec.revision else str(spec.hub)


def _from_hub(spec: SourceSpec) -> Path:
    """config.json of a hub repository, from the hub or as downloaded before."""
    import huggingface_hub
    import huggingface_hub.errors as errors

    unreachable = (
        errors.HfHubHTTPError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        errors.HFValidationError,
    )
    try:
        return Path(huggingface_hub.hf_hub_download(str(spec.hub), "config.json", revision=spec.revision))
    except (*unreachable, OSError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise QuantlabError(
            f"cannot get config.json of {_place(spec)} from the hub ({reason}): check the name and the"
            " network, or name a folder with it"
        ) from None
