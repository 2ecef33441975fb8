"""Check by a model's config.json whether transformers can run it, and whether that needs the repository's
code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from quantlab.errors import QuantlabError, unknown
from quantlab.formats.json_file import read_object
from quantlab.formats.quantization import section_of
from quantlab.formats.safetensors import FLOATS, header, weight_files
from quantlab.models.code import check_code
from quantlab.models.wrappers import runs

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
_NAME = re.compile(r"[\w./-]{1,120}")
"""What a message repeats of a name that the folder gives itself."""


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model's folder. Raises QuantlabError where there is none or it is not one."""
    path = folder / "config.json"
    if not path.is_file():
        check_adapter(folder)
        raise QuantlabError(
            f"{folder} has no config.json: name the folder that holds a model's config.json and safetensors"
        )
    return read_object(path)


def check_config(folder: Path, trust_remote_code: bool = False, name: str | None = None) -> None:
    """Raise QuantlabError where transformers has no causal language model of this type, or would run the
    folder's code.

    `name` is what the model is called in the message.
    """
    config = read_config(folder)
    check_adapter(folder)
    said = config.get("_name_or_path")
    where = name or (said if isinstance(said, str) and _NAME.fullmatch(said) else str(folder))
    _check_timm(config, where)
    if trust_remote_code:
        return
    _check_model_type(config, where)
    _check_tokenizer(folder, where)
    check_code(folder, where)


def check_adapter(folder: Path) -> None:
    """Raise QuantlabError where a folder holds a LoRA adapter: transformers would load it, llama.cpp would
    not, and the two would be compared."""
    names = [p.name for p in folder.iterdir() if p.name.startswith("adapter_")] if folder.is_dir() else []
    if names:
        raise QuantlabError(
            f"{folder} has {sorted(names)[0]}: its weights are changes to another model; merge first, with"
            " peft's `PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload().save_pretrained(NEW)`, and"
            " name NEW"
        )


def _check_model_type(config: dict[str, Any], where: str) -> None:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise QuantlabError(
            f"config.json of {where} has a model_type other than text: it is damaged; download or save it"
            " again"
        )
    if kind is not None and runs(kind):
        return
    if config.get("auto_map"):
        raise _needs_code(where, f"transformers has no model of type {kind!r} of its own")
    if not kind:
        raise QuantlabError(
            f"config.json of {where} names no model_type: it is damaged, or of another library; save"
            " the model again with save_pretrained"
        )
    if kind in CONFIG_MAPPING:
        raise QuantlabError(
            f"{where} is of type {kind!r}, for which transformers has neither a causal language model nor"
            " a multimodal one with a language part: name a model that continues a text"
        )
    raise unknown(
        "model type",
        str(kind),
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        f"the installed transformers cannot run {where}; try a newer one",
    )


def _check_timm(config: dict[str, Any], where: str) -> None:
    """Raise QuantlabError where a tower is one of timm's and that is not installed: transformers builds the
    whole release before its language part can be taken out."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
    from transformers.utils import import_utils

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING or import_utils.is_timm_available():
        return
    usual = {name: getattr(part, "model_type", "") for name, part in CONFIG_MAPPING[kind].sub_configs.items()}
    said = {name: part.get("model_type") for name in usual if isinstance(part := config.get(name), dict)}
    kinds = {name: str(said.get(name) or usual[name]) for name in usual}
    towers = [name for name, part in kinds.items() if "Timm" in str(MODEL_MAPPING_NAMES.get(part))]
    if towers:
        raise QuantlabError(
            f"the {towers[0].removesuffix('_config')} tower of {where} is built by timm, which is not"
            " installed: pip install timm, or name a text-only copy of it"
        )


def check_stored(config: dict[str, Any], folder: Path) -> None:
    """Raise QuantlabError where config.json and the tensors' types do not describe one model."""
    for key in ("dtype", "torch_dtype"):
        said = config.get(key)
        if said is not None and str(said).removeprefix("torch.") not in DTYPES:
            raise QuantlabError(
                f"{folder / 'config.json'} says {key} {str(said)!r:.60}, which no model runs in: use one of"
                f" {', '.join(DTYPES)}"
            )
    key, method = section_of(config)
    if method and all(
        entry["dtype"] in FLOATS for path in weight_files(folder) for entry in header(path).values()
    ):
        name = method.get("quant_method") if isinstance(method, dict) else method
        raise QuantlabError(
            f"{folder / 'config.json'} says that the weights are quantized ({str(name)!r:.40}) and they are"
            f" plain: take {key} out of it, or save the model again"
        )


def _check_tokenizer(folder: Path, where: str) -> None:
    path = folder / "tokenizer_config.json"
    config = read_object(path) if path.is_file() else {}
    named = config.get("auto_map")
    if not isinstance(named, dict) or "AutoTokenizer" not in named:
        return
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    kind = config.get("tokenizer_class")
    if not kind or tokenizer_class_from_name(str(kind)) is None:
        raise _needs_code(where, f"its tokenizer {kind or ''} is not in transformers".replace("  ", " "))


def _needs_code(where: str, why: str) -> QuantlabError:
    return QuantlabError(
        f"{where} needs code of its own repository to run ({why}): read that code, then add"
        " --trust-remote-code"
    )
