"""A model that transformers cannot run, or only with the repository's code, is refused before its weights are read."""

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


def test_a_model_that_is_no_causal_language_model_is_refused(model: Path, write_config: Callable[..., None]) -> None:
    write_config(model_type="clip")
    refused(model, "no causal language model")


def test_remote_code_is_refused_with_the_option_that_allows_it(model: Path, write_config: Callable[..., None]) -> None:
    write_config(model_type="x", auto_map=REMOTE, _name_or_path="org/x")
    refused(model, "org/x needs code of its own repository.*--trust-remote-code")
    check_folder(model, trust_remote_code=True)


def test_remote_code_that_transformers_does_not_need_is_no_hindrance(model: Path, write_config: Callable[..., None]) -> None:
    write_config(model_type="llama", auto_map=REMOTE)
    check_folder(model)


def test_a_tokenizer_that_needs_remote_code_is_refused(model: Path, write_config: Callable[..., None]) -> None:
    write_config("tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]}, tokenizer_class="XTokenizer")
    refused(model, "tokenizer XTokenizer is not in transformers.*--trust-remote-code")
    write_config("tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]}, tokenizer_class="LlamaTokenizer")
    check_folder(model)


@pytest.mark.parametrize(("text", "match"), [("{", "is not JSON"), ("[]", "no JSON object"), ("{}", "no model_type")])
def test_a_damaged_config_is_refused(model: Path, text: str, match: str) -> None:
    (model / "config.json").write_text(text)
    refused(model, match)
