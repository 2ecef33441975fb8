"""The prepared model: what `prepare` and `convert` leave in `models/<model>/` and every later stage starts from.

models/<model>/source/source.json     what the weights are and where: here, or in the place that the user named
models/<model>/source/*.safetensors   only where they had to be made (dequantized from a GGUF file)
models/<model>/text/                  calibration.npy, evaluation.npy (token ids), text.json
models/<model>/gguf/                  f16.gguf, imatrix.gguf, gguf.json (only for models with GGUF variants)
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pydantic import ValidationError

from quantlab.errors import QuantlabError
from quantlab.files import sha256
from quantlab.formats import GGUF
from quantlab.frozen import Frozen
from quantlab.records import Failure
from quantlab.workspace.checkpoint import FileEntry

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
    def source_sha256(self) -> str:
        """Hash of source.json, which names every weight file with its own."""
        return hashlib.sha256((self.source_folder / "source.json").read_bytes()).hexdigest()

    def require_unchanged(self) -> None:
        """Raise QuantlabError where a weight file is no longer what `prepare` hashed.

        Sizes are checked always, contents where a file was written or put in place after source.json.
        """
        source, written = self.source(), (self.source_folder / "source.json").stat().st_mtime_ns
        for name, entry in source.files.items():
            path = self.weights / name
            found = path.stat() if path.is_file() else None
            same = found is not None and found.st_size == entry.bytes
            if same and found is not None and max(found.st_mtime_ns, found.st_ctime_ns) > written:
                same = sha256(path) == entry.sha256
            if not same:
                raise QuantlabError(f"{path} is not what it was when {self.model} was prepared: run `quantlab prepare` again")

    def token_ids(self, purpose: str) -> NDArray[np.int64]:
        """The windows of `calibration` or `evaluation`, shape (windows, length)."""
        import numpy as np

        ids: NDArray[np.int64] = np.load(self.text_folder / f"{purpose}.npy", allow_pickle=False)
        return ids


T = TypeVar("T", bound=Frozen)


def _read(path: Path, kind: type[T]) -> T:
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise QuantlabError(f"there is no {path}: run `quantlab prepare` (or `convert`) for this model first") from None
    except ValidationError:
        raise QuantlabError(f"{path} was written by another version of quantlab: remove its folder and prepare again") from None
