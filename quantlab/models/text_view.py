"""Show a release's checkpoint as its text model alone, to a library that does not know the release's class.

The tensors of the language part are copied into a temporary folder, under the text model's names."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantlab import scratch
from quantlab.files import write_json
from quantlab.formats.json_file import read_object
from quantlab.formats.quantization import quantization_config
from quantlab.models.loading import broken_checkpoint, build_on_meta, load_config
from quantlab.models.stacked import sizes_of
from quantlab.models.text_part import copy_tokenizer, names_of, text_config, write_weights
from quantlab.models.wrappers import Parts, is_release, is_tied, parts_of

QUANTIZED = "quantize_config.json"


@contextmanager
def text_view(weights: Path, trust_remote_code: bool) -> Iterator[Path]:
    """A folder with the text model of a checkpoint; the checkpoint itself where it is text alone."""
    config = read_object(weights / "config.json")
    if not is_release(config):
        yield weights
        return
    place = os.environ.get(scratch.FOLDER)
    with tempfile.TemporaryDirectory(prefix="quantlab-text-", dir=place) as name:
        folder = Path(name)
        whole = load_config(weights, trust_remote_code, broken_checkpoint)
        model = build_on_meta(whole, trust_remote_code, broken_checkpoint)
        text = text_config(whole, weights, is_tied(model))
        copy_tokenizer(weights, folder)
        stacked = sizes_of(whole.get_text_config(decoder=True))
        write_weights(weights, folder, names_of(weights, is_tied(model)), stacked)
        parts = parts_of(model)
        said = text.to_dict() | {"quantization_config": _of_text(quantization_config(weights), parts)}
        write_json(folder / "config.json", said)
        if (weights / QUANTIZED).is_file():
            write_json(folder / QUANTIZED, _of_text(read_object(weights / QUANTIZED), parts))
        yield folder


def _of_text(section: dict[str, Any], parts: Parts) -> dict[str, Any]:
    """A quantization's description with the text model's names of modules. Towers stay in it."""
    text = json.dumps(section).replace(f"{parts.body}.", "model.").replace(parts.head, "lm_head")
    renamed: dict[str, Any] = json.loads(text)
    return renamed
