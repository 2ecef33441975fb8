"""Take the text model out of a multimodal release, as a folder of its own that every library loads.

Only names are changed: tensors are copied byte for byte, and no weights are loaded, but for experts that the
release stores in one tensor and the text model one by one (stacked.py)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.errors import QuantlabError
from quantlab.formats.copying import copy_tensors, name_shards
from quantlab.formats.safetensors import INDEX, header, weight_files
from quantlab.formats.stored import safetensors
from quantlab.models.disk import require_disk
from quantlab.models.loading import build_on_meta, load_config, require_whole
from quantlab.models.stacked import Sizes, is_stacked, sizes_of, write_apart
from quantlab.models.wrappers import PLAIN_TEXT, class_name, is_tied, parts_of
from quantlab.workspace.checkpoint import model_files
from quantlab.workspace.release import Release

_OTHER_PARTS = ("vision", "visual", "audio", "mtp")
_DATA = (".json", ".model", ".txt", ".jinja", ".tiktoken")
_NOT_OF_TEXT = ("processor", INDEX, "quantize_config.json", "quant_log")
"""What is not copied beside the text model, by what a file's name holds."""


class Names(NamedTuple):
    """How a release's files name its language model."""

    body: str
    head: str | None

    def of_text(self, name: str) -> str | None:
        """The text model's name of a tensor of the release; None for one of another part."""
        if self.head and name.startswith(f"{self.head}."):
            return f"lm_head{name.removeprefix(self.head)}"
        return f"model.{name.removeprefix(self.body)}" if name.startswith(self.body) else None


def take_out(release: Path, folder: Path, final: Path, trust_remote_code: bool = False) -> Release:
    """Write the text model of the release into `folder`, which will lie at `final`.

    Raises QuantlabError where the release's weights are not whole, its text model cannot be told, or there is
    no room on the disk."""
    require_whole(release, trust_remote_code)
    config = load_config(release, trust_remote_code)
    model = build_on_meta(config, trust_remote_code)
    names = names_of(release, is_tied(model))
    text = text_config(config, release, is_tied(model))
    require_disk(folder, sum(t.bytes for t in safetensors(release) if names.of_text(t.name)))
    write_weights(release, folder, names, sizes_of(config.get_text_config(decoder=True)))
    text.save_pretrained(folder)
    copy_tokenizer(release, folder)
    require_whole(folder, trust_remote_code)
    return _describe(release, final, config.model_type, names, model)


def names_of(release: Path, tied: bool) -> Names:
    """The names by the embedding, which every language model has. Raises QuantlabError where they cannot be
    told."""
    stored = [tensor.name for tensor in safetensors(release)]
    ends = "embed_tokens.weight"
    bodies = [
        name.removesuffix(ends)
        for name in stored
        if name.endswith(f".{ends}") and not any(part in name for part in _OTHER_PARTS)
    ]
    if len(bodies) != 1:
        raise QuantlabError(
            f"the language part of {release} cannot be told by its tensors: {len(bodies)} of them end in"
            f" {ends}; name a text-only copy of it"
        )
    heads = (f"{bodies[0].removesuffix('model.')}lm_head", "lm_head")
    there = (head for head in heads if any(name.startswith(f"{head}.") for name in stored))
    return Names(bodies[0], None if tied else next(there, None))


def text_config(config: Any, release: Path, tied: bool) -> Any:
    """The configuration of the text model alone. Raises QuantlabError where transformers has no class that
    runs it."""
    from transformers import CONFIG_MAPPING

    text = config.get_text_config(decoder=True)
    kind, more = PLAIN_TEXT.get(text.model_type, (text.model_type, {}))
    name = class_name(kind)
    if name is None:
        raise QuantlabError(
            f"the language part of {release} is of type {text.model_type!r}, which transformers cannot run"
            " alone: name a text-only copy of it"
        )
    if kind != text.model_type:
        said = {k: v for k, v in text.to_dict().items() if k != "model_type"}
        said["rope_parameters"] = {k: v for k, v in said["rope_parameters"].items() if "mrope" not in k}
        text = CONFIG_MAPPING[kind](**(said | more))
    text.architectures = [name]
    text.tie_word_embeddings = tied
    text.dtype = text.dtype or config.dtype
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(text, key, None) is None and getattr(config, key, None) is not None:
            setattr(text, key, getattr(config, key))
    return text


def copy_tokenizer(release: Path, folder: Path) -> None:
    """Copy the tokenizer's files, chat templates and generation settings."""
    for path in release.iterdir():
        of_text = path.suffix in _DATA and not any(part in path.name for part in _NOT_OF_TEXT)
        if of_text and path.name != "config.json":
            shutil.copyfile(path, folder / path.name)


def write_weights(release: Path, folder: Path, names: Names, stacked: Sizes | None) -> None:
    """Write the tensors of the language part into a folder, under the text model's names; experts that are
    `stacked` in the release, one by one."""
    parts = []
    for number, path in enumerate(weight_files(release)):
        wanted = {name: new for name in header(path) if (new := names.of_text(name))}
        whole = {name: wanted.pop(name) for name in [*wanted] if stacked and is_stacked(name)}
        if wanted:
            parts.append(folder / f"part-{number}")
            copy_tensors(path, wanted, parts[-1])
        if stacked and whole:
            parts.append(folder / f"part-{number}-experts")
            write_apart(path, whole, stacked, parts[-1])
    name_shards(folder, parts)


def _describe(release: Path, final: Path, kind: str, names: Names, model: Any) -> Release:
    towers = [t for t in safetensors(release) if names.of_text(t.name) is None]
    inside = release.is_relative_to(final.parent)
    parts = parts_of(model)
    return Release(
        model_type=kind,
        weights=os.path.relpath(release, final) if inside else str(release),
        files=model_files(release),
        body=names.body,
        head=names.head,
        body_module=parts.body,
        head_module=parts.head,
        towers=parts.towers,
        tower_tensors=len(towers),
        tower_parameters=sum(t.elements for t in towers),
        tower_bytes=sum(t.bytes for t in towers),
    )
