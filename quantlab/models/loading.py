"""Load configurations, tokenizers and models with transformers: trust is always explicit, and weights are
complete.

transformers only warns where tensors are missing, have another shape or belong to nothing, and goes on with
what it initialised at random. Here that is refused with the tensors' names. Tied weights are not missing, and
what a model's class says may be absent or ignored (`_keys_to_ignore_on_load_*`, rotary frequencies) is not
counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantlab.errors import CellFailure, QuantlabError
from quantlab.formats.json_file import read_object
from quantlab.formats.packed import nested_missing, parts_missing, without_effect
from quantlab.formats.safetensors import header, weight_files
from quantlab.formats.stored import safetensors

NAMED = 3
"""Tensors that a message names."""


def broken_checkpoint(why: str) -> CellFailure:
    """The failure of a cell whose checkpoint is not whole; the `error` of `load_model` there."""
    return CellFailure("broken_checkpoint", why)


def load_config(
    folder: Path, trust_remote_code: bool, error: Callable[[str], Exception] = QuantlabError
) -> Any:
    """The configuration of a model's folder. Raises what `error` makes of a text where transformers cannot
    read it."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as raised:  # transformers raises whatever the file leads it to
        raise error(
            f"transformers cannot read {folder / 'config.json'}: {_said(raised)}; mend it or save it again"
        ) from raised


def load_plain_config(
    folder: Path, trust_remote_code: bool, error: Callable[[str], Exception] = QuantlabError
) -> Any:
    """The same without what it says of a quantization, of its language part too: a model that is built of it
    has plain layers."""
    config = load_config(folder, trust_remote_code, error)
    for part in (config, config.get_text_config(decoder=True)):
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    return config


def load_tokenizer(folder: Path, trust_remote_code: bool, **options: Any) -> Any:
    """The tokenizer of a model's folder. Raises QuantlabError where transformers cannot read it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, **options)
    except Exception as error:  # transformers raises whatever the files lead it to
        raise QuantlabError(
            f"the tokenizer in {folder} cannot be read: {_said(error)}; download or save it again"
        ) from error


def build_model(
    config: Any, trust_remote_code: bool, error: Callable[[str], Exception] = QuantlabError, **options: Any
) -> Any:
    """A model of a configuration without weights. Raises what `error` makes of a text where transformers
    cannot build it."""
    from quantlab.models.wrappers import auto_class

    try:
        kind = auto_class(config.to_dict(), trust_remote_code)
        return kind.from_config(config, trust_remote_code=trust_remote_code, **options)
    except (
        Exception
    ) as raised:  # an activation that does not exist, heads that do not divide a size: each in its own words
        raise error(
            f"transformers cannot build the model that its config.json describes: {_said(raised)}"
        ) from raised


def load_model(
    folder: Path,
    trust_remote_code: bool,
    error: Callable[[str], Exception] = QuantlabError,
    safetensors: bool = True,
    left_over: bool = False,
    **options: Any,
) -> Any:
    """A causal language model with all its weights, or a multimodal release with its towers; `options` are
    those of `from_pretrained`.

    Raises what `error` makes of a text where tensors are missing, of another shape, or belong to nothing.
    `left_over` lets biases of zeros pass, which old tools wrote beside packed layers."""
    from quantlab.models.wrappers import auto_class

    options |= {"use_safetensors": True} if safetensors else {}
    said = read_object(folder / "config.json") if safetensors else {}
    kind = auto_class(said, trust_remote_code)
    return _load(kind, folder, error, left_over, options | {"trust_remote_code": trust_remote_code})


def load_state(
    config: Any,
    state: dict[str, Any],
    trust_remote_code: bool,
    error: Callable[[str], Exception],
    **options: Any,
) -> Any:
    """The model of a configuration with tensors named as files name them. Raises what `error` makes of a text
    where they are not all of the model's."""
    kind = type(build_on_meta(config, trust_remote_code, error))
    return _load(kind, None, error, False, options | {"config": config, "state_dict": state})


def _load(
    kind: Any,
    folder: Path | None,
    error: Callable[[str], Exception],
    left_over: bool,
    options: dict[str, Any],
) -> Any:
    where, trust = folder or "the checkpoint", bool(options.pop("trust_remote_code", False))
    if folder and "gguf_file" not in options and (lacking := nested_missing(folder)):
        raise error(
            f"the weights of {where} are not those of its config.json: {len(lacking)} tensors are missing:"
            f" {_listed(lacking)}"
        )
    try:
        loaded: Any = kind.from_pretrained(
            folder,
            trust_remote_code=trust,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except Exception as raised:  # where parts of a packed layer are missing, each library in its own words
        if folder and "gguf_file" not in options and (lacking := _lacking(folder, trust)):
            many = f"{len(lacking)} tensors are missing: {_listed(lacking)}"
            raise error(f"the weights of {where} are not those of its config.json: {many}") from raised
        if isinstance(raised, RuntimeError) and "conversion of the weights" in str(raised):
            raise error(
                f"the tensors of {where} cannot be put together to the layers of its config.json: see the log"
            ) from raised
        raise
    model, info = loaded
    unexpected = set(info["unexpected_keys"])
    if left_over and folder and unexpected:
        unexpected -= without_effect(folder, unexpected)
    if wrong := wrong_tensors(info | {"unexpected_keys": unexpected}):
        raise error(f"the weights of {where} are not those of its config.json: {wrong}")
    return model


def _lacking(folder: Path, trust: bool) -> list[str]:
    """Tensors that packed layers lack in the files; empty where nothing is packed."""
    from quantlab.models.quantized import quantized_by_files

    if quantized_by_files(folder) is None:
        return []
    lacking = parts_missing(folder)
    stored = {name for path in weight_files(folder) for name in header(path)}
    model = build_on_meta(load_plain_config(folder, trust), trust)
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear" and not any(key.startswith(f"{name}.") for key in stored):
            lacking.append(f"{name}.weight")
    return sorted(set(lacking))


def wrong_tensors(info: Mapping[str, Any]) -> str:
    """What is wrong with the weights by transformers' account of the loading, in words; empty where nothing
    is."""
    shapes = [
        f"{name} is {_shape(stored)} in the files and {_shape(expected)} by config.json"
        for name, stored, expected in info["mismatched_keys"]
    ]
    kinds = (
        ("missing", info["missing_keys"]),
        ("left over", info["unexpected_keys"]),
        ("of another shape", shapes),
    )
    return "; ".join(f"{len(names)} tensors are {how}: {_listed(names)}" for how, names in kinds if names)


def require_whole(folder: Path, trust_remote_code: bool) -> None:
    """Raise QuantlabError where a folder's weights are not those of its config.json; nothing stays in memory.

    transformers itself loads them onto its device without memory ("meta"), so that its renaming and merging
    of tensors counts."""
    build_on_meta(load_config(folder, trust_remote_code), trust_remote_code)
    load_model(folder, trust_remote_code, device_map={"": "meta"})


def ignored_tensors(folder: Path, trust_remote_code: bool) -> dict[str, int]:
    """Tensors that the model's class ignores by name, such as layers that predict further tokens, with their
    elements: they are not in what is measured."""
    model = build_on_meta(load_config(folder, trust_remote_code), trust_remote_code)
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return {
        tensor.name: tensor.elements
        for tensor in safetensors(folder)
        if any(re.search(pattern, tensor.name) for pattern in patterns)
    }


def ignored_note(ignored: Mapping[str, int]) -> tuple[str, ...]:
    """What a reader of the counts must know of them."""
    if not ignored:
        return ()
    return (f"{len(ignored)} tensors of its files are ignored and not counted: {_listed(ignored)}.",)


def build_on_meta(
    config: Any, trust_remote_code: bool, error: Callable[[str], Exception] = QuantlabError
) -> Any:
    """The model without memory for its weights. Raises what `error` makes of a text where transformers cannot
    build it."""
    import torch

    with torch.device("meta"):
        return build_model(config, trust_remote_code, error)


@contextmanager
def only_trusted_code(trust_remote_code: bool) -> Iterator[None]:
    """Refuse a folder's code during the block, whatever a library in it asks transformers for.

    GPTQModel and auto-round trust every folder in some of their model families.
    """
    from transformers import dynamic_module_utils

    before = dynamic_module_utils.get_class_in_module
    if not trust_remote_code:
        dynamic_module_utils.get_class_in_module = _refuse_code
    try:
        yield
    finally:
        dynamic_module_utils.get_class_in_module = before


def _refuse_code(class_name: str, module_path: Any, **_: Any) -> Any:
    raise CellFailure(
        "unsupported",
        f"a library would run {class_name} of the model's own code ({Path(module_path).name}), which is not"
        " trusted",
    )


def _listed(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:NAMED]) + (f" and {len(listed) - NAMED} more" if len(listed) > NAMED else "")


def _shape(sizes: Iterable[int]) -> str:
    return " × ".join(map(str, sizes)) or "a number"


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]
