"""Names become folders and DVC keys: what is not safe is refused."""

from __future__ import annotations

import pytest

from quantlab.errors import QuantlabError
from quantlab.names import Variant, check_model_name, model_slug, parse_variant


@pytest.mark.parametrize("slug", ["gptq-4", "gguf-4-iq4_xs", "baseline-16", "gptq-4-ext_0a1b2c"])
def test_a_variant_is_read_as_it_is_written(slug: str) -> None:
    assert parse_variant(slug).slug == slug


@pytest.mark.parametrize(
    "slug", ["gptq", "gptq-", "gptq-4-", "GPTQ-4", "gptq-4-a.b", "../gptq-4", "gptq-4-a-b", "gptq-100", ""]
)
def test_what_is_no_variant_is_refused(slug: str) -> None:
    with pytest.raises(QuantlabError, match="not a variant"):
        parse_variant(slug)


def test_external_variants_are_told_apart() -> None:
    assert Variant("gptq", 4, "ext_0a1b2c").external and not Variant("gptq", 4, "g32").external


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Qwen/Qwen3.5-27B", "qwen3.5-27b"), ("./My Model/", "my-model"), ("a/x.Q4_K_M.gguf", "x.q4_k_m")],
)
def test_a_name_becomes_a_folder(name: str, slug: str) -> None:
    assert model_slug(name) == slug


@pytest.mark.parametrize("name", ["a--b", "..", "a/b", "", "A", ".hidden", "a..b"])
def test_unsafe_model_names_are_refused(name: str) -> None:
    with pytest.raises(QuantlabError):
        check_model_name(name)
