"""Turn the user's name of a model into the place of its weights."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from quantlab.catalogue.entry import Entry, entries, user_file
from quantlab.errors import QuantlabError, unknown
from quantlab.names import check_model_name, model_slug
from quantlab.parsing import as_path
from quantlab.recipe import SourceSpec

_REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\S+))?")


class ResolvedModel(NamedTuple):
    """A model that the user named."""

    slug: str
    """Its name in folders, tables and DVC keys."""
    spec: SourceSpec
    entry: Entry | None
    """What the catalogue knows of it."""
    warnings: tuple[str, ...] = ()


def resolve(name: str, *, trust_remote_code: bool = False) -> ResolvedModel:
    """The model that is called `name`: an alias, `org/name[@revision]`, a local folder or a GGUF file.

    An alias comes before a folder of the same name, and a folder before a hub repository of the same name.
    Raises QuantlabError for a name that nothing bears; the weights themselves are looked at later.
    """
    if not name.strip():
        raise QuantlabError(
            "name a MODEL: an alias (`quantlab list models`), org/name[@revision], a folder or a GGUF file"
        )
    path = as_path(name)
    known = entries()
    alias, _, revision = name.partition("@")
    alias = "-".join(alias.lower().split())
    if alias in known:
        return _alias(alias, revision, known, trust_remote_code)
    if path.exists():
        whole = os.path.normpath(path.absolute())
        return ResolvedModel(
            model_slug(whole), SourceSpec(path=whole, trust_remote_code=trust_remote_code), None
        )
    if name.startswith((".", "/", "~")) or name.endswith(".gguf"):
        raise QuantlabError(
            f"the file or folder {name} does not exist: name a folder with config.json and safetensors,"
            " or a GGUF file"
        )
    repository = _REPOSITORY.fullmatch(name)
    if not repository:
        raise unknown(
            "model",
            name,
            (n for n, e in known.items() if e.exists),
            "or name a hub repository org/name[@revision], a local folder or a GGUF file",
        )
    return _repository(repository[1], repository[2], known, trust_remote_code)


def _alias(alias: str, revision: str, known: dict[str, Entry], trust_remote_code: bool) -> ResolvedModel:
    entry = known[alias]
    if not entry.exists:
        raise QuantlabError(_no_release(alias, entry))
    spec = entry.spec(trust_remote_code)
    if revision:
        if not entry.hub:
            raise QuantlabError(
                f"{alias} comes from {entry.place}, which has no revisions: leave out @{revision}"
            )
        spec = spec.model_copy(update={"revision": revision})
    shadowed = (
        (f"{alias} is taken as the alias of {entry.place}; write ./{alias} for the folder",)
        if Path(alias).is_dir()
        else ()
    )
    return ResolvedModel(check_model_name(alias), spec, entry, shadowed)


def _no_release(alias: str, entry: Entry) -> str:
    nearest = (
        f"the nearest real models are {', '.join(entry.nearest)}"
        if entry.nearest
        else "see `quantlab list models`"
    )
    return (
        f"no release named {alias} is known: {nearest}; to point the name elsewhere write "
        f"`{alias}: {{path: /folder/of/the/model}}` or `{alias}: {{hub: org/name}}` into {user_file()}"
    )


def _repository(
    repository: str, revision: str | None, known: dict[str, Entry], trust_remote_code: bool
) -> ResolvedModel:
    spec = SourceSpec(hub=repository, revision=revision, trust_remote_code=trust_remote_code)
    slug = model_slug(repository)
    entry = next((e for e in known.values() if e.hub and e.hub.lower() == repository.lower()), None)
    nameless = known.get(slug)
    warnings = (
        (f"no release named {slug} is known to the catalogue",) if nameless and not nameless.exists else ()
    )
    return ResolvedModel(slug, spec, entry, warnings)
