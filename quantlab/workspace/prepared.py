"""Find the prepared model: what `prepare` and `convert` write to `models/<model>/` for every later stage.

models/<model>/source/source.json     what the weights are and where: here, or in the place that the user named
models/<model>/source/*.safetensors   only where they had to be made (dequantized from a GGUF file)
models/<model>/text/                  calibration.npy, evaluation.npy (token ids), text.json
models/<model>/gguf/                  f16.gguf, imatrix.gguf, gguf.json (only for models with GGUF variants)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pydantic import ValidationError

from quantlab.errors import QuantlabError
from quantlab.formats import GGUF
from quantlab.frozen import Frozen
from quantlab.records import Failure
from quantlab.workspace.checkpoint import FileEntry
from quantlab.workspace.contents import content_sha256
from quantlab.workspace.release import Release

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Source(Frozen):
    """The unquantized model, pinned."""

    schema_version: int = 1
    model: str
    kind: str
    """`hub`, `folder`, `gguf` or `pypi`."""
    name: str
    revision: str | None = None
    """Commit of a hub repository, or sha256 of a package or GGUF file."""
    weights: str = "."
    """Folder of the weights, from the folder of source.json."""
    files: dict[str, FileEntry]
    parameters: int
    dtype: str
    vocabulary: int
    trust_remote_code: bool = False
    notes: tuple[str, ...] = ()
    quantized_as: str | None = None
    """The format that the weights were quantized to before they came here, such as Q4_K_M; None where they
    were not."""
    release: Release | None = None
    """The multimodal release that the text model was taken out of; None for a model that is text alone."""


class Text(Frozen):
    """The token ids' provenance."""

    calibration: str
    evaluation: str
    calibration_sha256: str
    evaluation_sha256: str
    bos_token_id: int | None


class Gguf(Frozen):
    """The F16 GGUF and its importance matrix, or why there is none."""

    failure: Failure | None = None
    imatrix_tokens: int = 0
    files: dict[str, FileEntry] = {}
    """f16.gguf and imatrix.gguf; empty where there is none."""
    notes: tuple[str, ...] = ()


class Prepared(NamedTuple):
    """The places of one model in a workspace."""

    root: Path
    model: str

    @property
    def folder(self) -> Path:
        return self.root / "models" / self.model

    @property
    def source_folder(self) -> Path:
        return self.folder / "source"

    @property
    def text_folder(self) -> Path:
        return self.folder / "text"

    @property
    def gguf_folder(self) -> Path:
        return self.folder / GGUF

    def source(self) -> Source:
        """Read source.json. Raises QuantlabError where the model is not prepared."""
        return _read(self.source_folder / "source.json", Source)

    def text(self) -> Text:
        return _read(self.text_folder / "text.json", Text)

    def gguf(self) -> Gguf:
        return _read(self.gguf_folder / "gguf.json", Gguf)

    @property
    def weights(self) -> Path:
        """Folder with the unquantized weights and the tokenizer."""
        return Path(os.path.normpath(self.source_folder / self.source().weights))

    @property
    def origin(self) -> Path:
        """Folder that the user named: the multimodal release where there is one, else the weights."""
        release = self.source().release
        return Path(os.path.normpath(self.source_folder / release.weights)) if release else self.weights

    @property
    def source_sha256(self) -> str:
        """Hash of source.json, which names every weight file with its own."""
        return hashlib.sha256((self.source_folder / "source.json").read_bytes()).hexdigest()

    def require_unchanged(self, weights: bool = True) -> None:
        """Raise QuantlabError where a file is no longer what `prepare` hashed; without `weights` those files
        are left out.

        A file is read again only where it was put in place or written since it was last read.
        """
        source = self.source()
        self._require_unchanged(self.weights, source.files, weights)
        if source.release:
            self._require_unchanged(self.origin, source.release.files, weights)

    def _require_unchanged(self, folder: Path, files: Mapping[str, FileEntry], weights: bool) -> None:
        for name, entry in files.items():
            path = folder / name
            if not weights and name.endswith(".safetensors"):
                continue
            if not (
                path.is_file() and path.stat().st_size == entry.bytes and content_sha256(path) == entry.sha256
            ):
                raise QuantlabError(
                    f"{path} is not what it was when {self.model} was prepared: run `quantlab prepare` again"
                )

    def require_sound(self) -> None:
        """Raise QuantlabError where source.json cannot be read, or a file that `prepare` made is no longer
        what it was."""
        if self.source().weights == ".":
            self.require_unchanged()

    def require_gguf(self) -> None:
        """Raise QuantlabError where the F16 GGUF or its importance matrix is not what `convert` wrote."""
        for name, entry in self.gguf().files.items():
            path = self.gguf_folder / name
            if not path.is_file() or content_sha256(path) != entry.sha256:
                raise QuantlabError(f"{path} is not what was converted: run `quantlab convert` again")

    def token_ids(self, purpose: str) -> NDArray[np.int64]:
        """The windows of `calibration` or `evaluation`, shape (windows, length). Raises QuantlabError where
        they were changed."""
        import numpy as np

        path = self.text_folder / f"{purpose}.npy"
        try:
            ids: NDArray[np.int64] = np.load(path, allow_pickle=False)
            same = hashlib.sha256(ids.tobytes()).hexdigest() == getattr(self.text(), f"{purpose}_sha256")
        except (OSError, ValueError, EOFError):
            same = False
        if not same:
            raise QuantlabError(
                f"{path} is not what `quantlab prepare` wrote (truncated, changed or gone): run `quantlab"
                " prepare` again"
            )
        return ids


T = TypeVar("T", bound=Frozen)


def _read(path: Path, kind: type[T]) -> T:
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise QuantlabError(
            f"there is no {path}: run `quantlab prepare` (or `convert`) for this model first"
        ) from None
    except ValidationError:
        raise QuantlabError(
            f"{path} was written by another version of quantlab: remove its folder and prepare again"
        ) from None
