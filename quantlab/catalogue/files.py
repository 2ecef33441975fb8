"""Find a catalogue's data: the shipped file, the user's own, and one in the current folder; the later one
wins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from quantlab.errors import QuantlabError
from quantlab.parsing import read_yaml
from quantlab.recipe import explain

HERE = Path(__file__).parent
Model = TypeVar("Model", bound=BaseModel)


def own_file(name: str, variable: str) -> Path:
    """The user's own file: what the environment variable names, else `name` in quantlab's user configuration
    folder."""
    import platformdirs

    given = os.environ.get(variable)
    return (
        Path(given).expanduser()
        if given
        else Path(platformdirs.user_config_dir("quantlab", appauthor=False)) / name
    )


def catalogue_files(name: str, variable: str) -> list[Path]:
    """The files that there are, the strongest last. Raises QuantlabError where the variable names none."""
    own = own_file(name, variable)
    if os.environ.get(variable) and not own.is_file():
        raise QuantlabError(
            f"there is no file {own}, which {variable} names: write it, or unset the variable"
        )
    return [path for path in (HERE / name, own, Path(name)) if path.is_file()]


def mapping(path: Path, what: str) -> dict[str, Any]:
    """A YAML file that is a mapping or empty. Raises QuantlabError with `what`, an example of its form."""
    data = read_yaml(path)
    if data is not None and not isinstance(data, dict):
        raise QuantlabError(f"{path} holds something else: write {what}")
    return {str(key): value for key, value in (data or {}).items()}


def checked(model: type[Model], fields: Any, origin: str) -> Model:
    """The fields as a record. Raises QuantlabError that says where they stand."""
    try:
        return model.model_validate(dict(fields) if isinstance(fields, Mapping) else fields)
    except ValidationError as error:
        raise QuantlabError(f"{origin}: {explain(error)}") from None
