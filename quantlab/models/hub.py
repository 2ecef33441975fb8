"""Download a model from the hub, pinned to a commit: small files first, weights only if those pass."""

from __future__ import annotations

import fnmatch
import glob
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from quantlab.errors import QuantlabError, unknown
from quantlab.formats.gguf_parts import part_names
from quantlab.formats.safetensors import read_index, weight_names
from quantlab.models.config import check_config, read_config
from quantlab.models.disk import require_disk
from quantlab.models.quantized import require_unquantized
from quantlab.models.tokenizer import check_tokenizer
from quantlab.progress import Progress, Step
from quantlab.recipe import SourceSpec

SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", "tokenizer*")
"""Patterns of configuration and tokenizer files; *.py comes with `trust_remote_code` alone."""
_POLL_SECONDS = 1.0
T = TypeVar("T")


class Download(NamedTuple):
    """A model that lies in the hub's cache on this machine."""

    folder: Path
    commit: str


class Found(NamedTuple):
    """A repository whose small files passed the checks."""

    folder: Path
    """Of its configuration and tokenizer."""
    small: tuple[str, ...]
    weights: tuple[str, ...]
    missing_bytes: int
    """Of weights that are not on this machine yet."""
    parameters: int | None
    """As the hub counts them; None where it does not tell."""


def check(spec: SourceSpec, progress: Progress) -> int | None:
    """Look at a hub repository without downloading its weights; returns its parameters where the hub tells.

    Raises QuantlabError as `download` does.
    """
    answer = _asked(spec, lambda: _find(spec, spec.hub or ""), progress)
    return answer.parameters if isinstance(answer, Found) else None


def download(spec: SourceSpec, progress: Progress, source: bool = True) -> Download:
    """The folder of a hub repository at a commit; a branch or tag is resolved to its commit.

    What was downloaded before is used again, without the hub if it cannot be reached. A `source` is refused
    where it is quantized already, before its weights are downloaded. Raises QuantlabError
    where the repository cannot be had, has no safetensors, needs code that is not trusted, or does not fit on
    the disk."""
    return _asked(spec, lambda: _download(spec, spec.hub or "", progress, source), progress)


def download_file(spec: SourceSpec, name: str, progress: Progress) -> Download:
    """The folder and commit of a hub repository with one GGUF file of it, all its parts if it was split.

    Raises QuantlabError where the repository or the file cannot be had, or the file does not fit on the
    disk."""
    return _asked(spec, lambda: _download_file(spec, spec.hub or "", name, progress), progress)


def _download_file(spec: SourceSpec, repository: str, name: str, progress: Progress) -> Download:
    import huggingface_hub

    info = huggingface_hub.HfApi().model_info(repository, revision=spec.revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if name not in sizes:
        raise unknown(f"file of {repository}", name, (other for other in sizes if other.endswith(".gguf")))
    wanted = [part for part in part_names(name) if part in sizes]
    cached = huggingface_hub.try_to_load_from_cache
    missing = [part for part in wanted if not isinstance(cached(repository, part, revision=info.sha), str)]
    require_disk(Path(huggingface_hub.constants.HF_HUB_CACHE), sum(sizes[part] for part in missing))
    with progress.step(f"downloading {name} ({sum(sizes[part] for part in wanted) / 1e9:.1f} GB)"):
        folder = _get(repository, wanted, info.sha or spec.revision)
    return Download(folder, folder.name)


def _asked(spec: SourceSpec, ask: Callable[[], T], progress: Progress) -> T | Download:
    """What the hub gives, or what was downloaded before where it cannot be reached; its errors in our
    words."""
    import huggingface_hub.errors as errors

    if not spec.hub:
        raise QuantlabError("this source does not come from the hub: write `hub: org/name` into its recipe")
    at = f"{spec.hub}@{spec.revision}" if spec.revision else spec.hub
    unreachable = errors.HTTPError  # type: ignore[attr-defined]  # the base of httpx's errors, whichever httpx the hub's client uses
    try:
        return ask()
    except errors.GatedRepoError:
        raise QuantlabError(
            f"{spec.hub} is gated: accept its licence on its hub page, then set HF_TOKEN to a token of that"
            " account"
        ) from None
    except errors.RepositoryNotFoundError:
        raise QuantlabError(
            f"the hub has no repository {spec.hub}, or it is private: check the name, or set HF_TOKEN to"
            " read it"
        ) from None
    except errors.RevisionNotFoundError:
        raise QuantlabError(
            f"{spec.hub} has no revision {spec.revision}: name a branch, a tag or a commit that is there"
        ) from None
    except errors.HFValidationError as error:
        raise QuantlabError(
            f"the hub does not take {spec.hub} as the name of a repository: {error}"
        ) from None
    except errors.OfflineModeIsEnabled:
        return _downloaded_before(spec, spec.hub, at, "HF_HUB_OFFLINE is set", progress)
    except (unreachable, errors.LocalEntryNotFoundError, ConnectionError) as error:
        return _downloaded_before(
            spec, spec.hub, at, " ".join(str(error).split())[:120] or type(error).__name__, progress
        )


def _get(repository: str, names: Iterable[str], revision: str | None) -> Path:
    import huggingface_hub

    exact = [glob.escape(name) for name in names]
    return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=exact))


def _find(spec: SourceSpec, repository: str, source: bool = True) -> Found:
    import huggingface_hub

    info = huggingface_hub.HfApi().model_info(repository, revision=spec.revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    patterns = (*SMALL_FILES, "*.py") if spec.trust_remote_code else SMALL_FILES
    small = [
        name
        for name in sizes
        if any(fnmatch.fnmatch(name, p) for p in patterns) and ("/" not in name or name.endswith(".jinja"))
    ]
    small = [
        name for name in small if spec.trust_remote_code or not name.endswith(".py")
    ]  # tokenizer* would bring tokenizer.py

    huggingface_hub.utils.disable_progress_bars()  # type: ignore[attr-defined]  # documented, re-exported implicitly
    if "config.json" not in sizes:
        if "adapter_config.json" in sizes:
            raise QuantlabError(
                f"{repository} on the hub is an adapter, changes to another model: merge first, and name the"
                " folder of the whole"
            )
        raise QuantlabError(
            f"{repository} on the hub has no config.json, which transformers needs: name the original"
            " repository"
        )
    check_tokenizer(small, f"{repository} on the hub")
    folder = _get(repository, small, spec.revision)
    check_config(folder, spec.trust_remote_code, repository)
    if source:
        require_unquantized(read_config(folder), repository)
    weights = weight_names(
        [name for name in sizes if "/" not in name], read_index(folder), f"{repository} on the hub"
    )
    missing = sum(sizes[name] for name in weights if not (folder / name).exists())
    counted = getattr(info.safetensors, "total", None)
    return Found(folder, tuple(small), tuple(weights), missing, counted)


def _download(spec: SourceSpec, repository: str, progress: Progress, source: bool) -> Download:
    repository_files = _find(spec, repository, source)
    folder, missing = repository_files.folder, repository_files.missing_bytes
    if missing:
        require_disk(folder, missing)
        with (
            progress.step(f"downloading {repository} ({missing / 1e9:.1f} GB)", missing) as step,
            _watch(folder.parents[1] / "blobs", step),
        ):
            _get(repository, [*repository_files.small, *repository_files.weights], folder.name)
    return Download(folder, folder.name)


def _downloaded_before(spec: SourceSpec, repository: str, at: str, why: str, progress: Progress) -> Download:
    import huggingface_hub
    import huggingface_hub.errors as errors

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repository, revision=spec.revision, allow_patterns="config.json", local_files_only=True
            )
        )
        weight_names([path.name for path in folder.iterdir()], read_index(folder), str(folder))
    except (errors.LocalEntryNotFoundError, QuantlabError):
        raise QuantlabError(
            f"cannot reach the hub ({why}), and {at} is not on this machine in full: check the network and"
            " try again (what was downloaded is kept), or name a local folder of the model"
        ) from None
    progress.say(
        f"the hub cannot be reached ({why}): using {repository} as downloaded before, commit {folder.name}"
    )
    return Download(folder, folder.name)


@contextmanager
def _watch(folder: Path, step: Step) -> Iterator[None]:
    """Advance a step by what grows in a folder; independent of how the hub's client transfers."""
    before, done, stop = _bytes_in(folder), 0, threading.Event()

    def poll() -> None:
        nonlocal done
        while not stop.wait(_POLL_SECONDS):
            now = _bytes_in(folder) - before
            step.advance(max(0, now - done))
            done = max(done, now)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):  # an .incomplete file that was just renamed
            total += path.stat().st_size
    return total
