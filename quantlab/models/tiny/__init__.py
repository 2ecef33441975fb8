"""Make a tiny random model of a family, as its release stores it: for tests, `quantlab doctor --verify` and
benchmarks.

It has every kind of layer that the release has, in its proportions, and takes a second to make; it says
nothing that makes sense. The same family gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantlab.errors import QuantlabError
from quantlab.files import new_folder
from quantlab.models.tiny.families import Family, families, family
from quantlab.models.tiny.tokenizer import write_tokenizer
from quantlab.models.tiny.weights import fill

__all__ = ["Family", "families", "family", "write_model", "write_tiny_model"]


def write_tiny_model(name: str, folder: Path) -> Path:
    """Write the family's tiny model into a new folder: config, safetensors, tokenizer, generation config.

    Raises QuantlabError for an unknown family, or one that cannot be built here."""
    chosen = family(name)
    if chosen.unavailable:
        raise QuantlabError(f"no tiny model of {name}: {chosen.unavailable}")
    return write_model(chosen, folder)


def write_model(chosen: Family, folder: Path) -> Path:
    """The same of a family whose fields may be others than those of the table, and so of any size."""
    with new_folder(folder) as partial:
        _save(build(chosen), partial)
        _rename(partial / "model.safetensors", chosen.renamed)
        write_tokenizer(partial, chosen.pieces, chosen.special)
        _name(partial, chosen)
    return folder


def build(chosen: Family) -> Any:
    """The model in memory, in float32, with weights that bfloat16 holds exactly."""
    import torch
    from transformers import AutoConfig

    from quantlab.models.wrappers import auto_class

    config = AutoConfig.for_model(chosen.kind, **json.loads(json.dumps(chosen.fields)))
    kind: Any = auto_class(config.to_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind.from_config(config, dtype=torch.float32)
    text = config.get_text_config(decoder=True)
    fill(model, text)
    model.generation_config.update(
        bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
    )
    return model.eval()


def _save(model: Any, folder: Path) -> None:
    """In bfloat16, but for tables and corrections, which releases keep in float32."""
    import torch

    parts = (getattr(model.config, key) for key in model.config.sub_configs)
    for config in (model.config, *(part for part in parts if part is not None)):
        config.dtype = "bfloat16"
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(folder)


def _rename(path: Path, renamed: Mapping[str, str]) -> None:
    """Give tensors the release's names where transformers saves others."""
    from safetensors.torch import load_file, save_file

    if renamed:
        tensors = load_file(path)
        for part, released in renamed.items():
            tensors = {name.replace(part, released): tensor for name, tensor in tensors.items()}
        save_file(tensors, path, {"format": "pt"})


def _name(folder: Path, chosen: Family) -> None:
    """Say in config.json what it is."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["_name_or_path"] = f"tiny-{chosen.name}"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
