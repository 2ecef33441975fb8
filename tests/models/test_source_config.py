"""A model that transformers cannot run, or only with the repository's code, is refused before its weights are
read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantlab.errors import QuantlabError
from quantlab.models import check_config, check_folder

REMOTE = {"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "modeling_x.XModel"}


def refused(folder: Path, match: str) -> None:
    with pytest.raises(QuantlabError, match=match) as raised:
        check_config(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["llama", "qwen3_5", "qwen3_5_moe", "deepseek_v3", "gemma3", "gpt_oss"])
def test_types_that_transformers_has_pass(model: Path, write_config: Callable[..., None], kind: str) -> None:
    write_config(model_type=kind)
    check_folder(model)


def test_a_type_that_nobody_knows_lists_the_nearest(model: Path, write_config: Callable[..., None]) -> None:
    write_config(model_type="lama")
    refused(model, "unknown model type 'lama': known are llama, ")


def test_a_model_that_is_no_causal_language_model_is_refused(
    model: Path, write_config: Callable[..., None]
) -> None:
    write_config(model_type="clip")
    refused(model, "for which transformers has neither a causal language model nor a multimodal one")


@pytest.mark.parametrize("trusted", [False, True])
def test_a_tower_of_timm_is_refused_with_the_way_out(
    model: Path, write_config: Callable[..., None], trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers builds Gemma 3n's tower of timm, which quantlab does not install."""
    write_config(model_type="gemma3n", _name_or_path="google/gemma-3n-E2B-it")
    monkeypatch.setattr("transformers.utils.import_utils.is_timm_available", lambda: False)
    with pytest.raises(QuantlabError) as raised:
        check_config(model, trusted)
    assert str(raised.value) == (
        "the vision tower of google/gemma-3n-E2B-it is built by timm, which is not installed: pip install timm,"
        " or name a text-only copy of it"
    )
    write_config(model_type="gemma3", vision_config={"model_type": "siglip_vision_model"})
    check_config(model, trusted)
    write_config(model_type="gemma3", vision_config={"model_type": "timm_wrapper"})
    with pytest.raises(QuantlabError, match="built by timm"):
        check_config(model, trusted)
    monkeypatch.setattr("transformers.utils.import_utils.is_timm_available", lambda: True)
    check_config(model, trusted)


def test_remote_code_is_refused_with_the_option_that_allows_it(
    model: Path, write_config: Callable[..., None]
) -> None:
    write_config(model_type="x", auto_map=REMOTE, _name_or_path="org/x")
    refused(model, "org/x needs code of its own repository.*--trust-remote-code")
    check_folder(model, trust_remote_code=True)


def test_an_auto_map_that_leads_nowhere_is_no_hindrance(
    model: Path, write_config: Callable[..., None]
) -> None:
    """A release keeps it after transformers has the model of its own; its Python files are not downloaded."""
    write_config(model_type="llama", auto_map=REMOTE)
    write_config(
        "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["tokenization_x.X", None]},
        tokenizer_class="LlamaTokenizer",
    )
    check_folder(model)


def test_a_tokenizer_that_needs_remote_code_is_refused(
    model: Path, write_config: Callable[..., None]
) -> None:
    write_config(
        "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["tokenization_x.X", None]},
        tokenizer_class="XTokenizer",
    )
    refused(model, "tokenizer XTokenizer is not in transformers.*--trust-remote-code")


CODE = {"AutoTokenizer": ["tokenization_x.X", None]}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "auto_map": CODE}),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "LlamaTokenizer", "auto_map": ["tokenization_x.X", None]},
        ),
        ("config.json", {"model_type": "llama", "auto_map": {"AutoConfig": "tokenization_x.X"}}),
        (
            "config.json",
            {"model_type": "llama", "text_config": {"auto_map": {"AutoConfig": "tokenization_x.X"}}},
        ),
        ("config.json", {"model_type": "llama", "auto_map": {"AutoConfig": "org/else--modeling.X"}}),
        ("config.json", {"model_type": "llama", "attn_implementation": "org/kernel:attention"}),
        (
            "config.json",
            {
                "model_type": "llama",
                "custom_pipelines": {"x": {"impl": "tokenization_x.X", "pt": ["AutoModel"]}},
            },
        ),
        ("processor_config.json", {"auto_map": {"AutoProcessor": "tokenization_x.X"}}),
        ("generation_config.json", {"nested": [{"auto_map": CODE}]}),
        ("anything.json", {"auto_map": CODE}),
    ],
)
def test_code_that_could_be_had_is_refused_unless_trusted(
    model: Path, write_config: Callable[..., None], name: str, fields: dict[str, object]
) -> None:
    (model / "tokenization_x.py").touch()
    write_config(name, **fields)
    refused(
        model, f"would run code that is not quantlab's or transformers': {name} names .*--trust-remote-code"
    )
    check_folder(model, trust_remote_code=True)


def test_kernels_of_transformers_own_are_no_code(model: Path, write_config: Callable[..., None]) -> None:
    write_config(model_type="llama", attn_implementation="sdpa", _attn_implementation="eager")
    check_folder(model)


@pytest.mark.parametrize("beside", ["a base", "nothing"])
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_is_to_be_merged_first(
    model: Path, write_config: Callable[..., None], name: str, beside: str
) -> None:
    """transformers loads it with its base, llama.cpp does not: the two were 0.814 nats apart."""
    write_config(name, base_model_name_or_path="org/base")
    if beside == "nothing":
        (model / "config.json").unlink()
    refused(model, f"has {name}: its weights are changes to another model; merge first")


@pytest.mark.parametrize("named", ["org/x\x1b[2J", "a\nb", 7, "x" * 500])
def test_a_name_that_the_folder_gives_itself_is_repeated_only_where_it_is_one(
    model: Path, write_config: Callable[..., None], named: object
) -> None:
    write_config(model_type="x", auto_map=REMOTE, _name_or_path=named)
    refused(model, f"^{model} needs code")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "is not JSON"),
        ("[]", "does not hold a JSON object"),
        ("{}", "no model_type"),
        ('{"model_type": []}', "model_type other than text"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("\0" * 9, "is not JSON"),
    ],
    ids=["open", "a list", "empty", "type is a list", "deep objects", "deep lists", "zeros"],
)
def test_a_damaged_config_is_refused(model: Path, text: str, match: str) -> None:
    (model / "config.json").write_text(text)
    refused(model, match)
