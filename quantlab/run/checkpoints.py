"""Find the checkpoints that a run measures: a folder or GGUF file here, or a repository on the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.errors import QuantlabError
from quantlab.methods import _foreign as foreign
from quantlab.models.hub import download, download_file
from quantlab.names import Variant
from quantlab.parsing import as_path
from quantlab.progress import Progress
from quantlab.recipe import SourceSpec

_ON_HUB = re.compile(
    r"(?P<hub>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>[\w./ -]+\.gguf))?"
)


class LocatedCheckpoint(NamedTuple):
    """A checkpoint on this machine, and the repository that it was downloaded from."""

    path: Path
    hub: str | None = None
    commit: str | None = None

    def settings(self) -> dict[str, Any]:
        """What the recipe says of the variant."""
        of_hub = {"hub": self.hub, "revision": self.commit} if self.hub else {}
        return {"checkpoint": str(self.path), **of_hub}


def locate(text: str, trust_remote_code: bool, progress: Progress) -> LocatedCheckpoint:
    """Find a checkpoint by what the user wrote; one on the hub is downloaded, pinned to its commit.

    `org/name@revision` is a repository of safetensors, `org/name@revision:FILE.gguf` a GGUF file in one, all
    its parts if it was split. Raises QuantlabError."""
    path = as_path(text)
    if path.exists():
        # a link keeps its name: the hub's cache links files to names that say nothing
        return LocatedCheckpoint(Path(os.path.normpath(path.absolute())))
    named = _ON_HUB.fullmatch(text)
    if not named or text.startswith(("./", "../")):
        raise QuantlabError(
            f"there is no checkpoint {text}: name a folder or a GGUF file that exists, or a repository on the"
            " hub as org/name@revision, or a file in it as org/name@revision:FILE.gguf"
        )
    spec = SourceSpec(hub=named["hub"], revision=named["revision"], trust_remote_code=trust_remote_code)
    if named["file"]:
        file = download_file(spec, named["file"], progress)
        return LocatedCheckpoint(file.folder / named["file"], spec.hub, file.commit)
    repository = download(spec, progress, source=False)
    return LocatedCheckpoint(repository.folder, spec.hub, repository.commit)


def external_variants(
    texts: Sequence[str], trust_remote_code: bool, progress: Progress
) -> dict[Variant, dict[str, Any]]:
    """The variants that checkpoints become, each with its settings. Raises QuantlabError."""
    located = [locate(text, trust_remote_code, progress) for text in texts]
    return {foreign.identify(one.path, trust_remote_code): one.settings() for one in located}
