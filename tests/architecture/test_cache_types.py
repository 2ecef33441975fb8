"""The cache type as a setting of a variant: checked, kept out of the method's settings, in the manifest only
where it is set."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab import methods
from quantlab.errors import QuantlabError
from quantlab.names import parse_variant
from quantlab.recipe import Recipe, parse_recipe


def _recipe(variants: dict[str, Any]) -> Recipe:
    return methods.check_variants(
        parse_recipe({"model": "m", "source": {"path": "/m"}, "variants": variants}, "recipe"), "recipe"
    )


def test_any_method_takes_a_cache_beside_its_own_settings() -> None:
    recipe = _recipe(
        {
            "gguf-4-kv8": {"cache": "q8_0", "type": "IQ4_NL"},
            "gptq-4-kv8": {"cache": "fp8", "group_size": 32},
            "gguf-4": {},
        }
    )
    chosen = [parse_variant(slug) for slug in recipe.variants]
    found = {
        v.slug: (methods.cache_in(recipe, v), methods.settings_in(recipe, v).model_dump()) for v in chosen
    }
    assert found["gguf-4-kv8"] == ("q8_0", {"type": "IQ4_NL", "imatrix": None})
    assert found["gptq-4-kv8"][0] == "fp8" and found["gptq-4-kv8"][1]["group_size"] == 32
    assert found["gguf-4"] == (None, {"type": None, "imatrix": None})


@pytest.mark.parametrize(
    ("slug", "cache"), [("gguf-4-kv8", "fp8"), ("gptq-4-kv8", "q8_0"), ("gguf-4-kv8", 8), ("gguf-4-kv8", "")]
)
def test_an_unknown_cache_names_the_engines_own(slug: str, cache: Any) -> None:
    with pytest.raises(QuantlabError, match=rf"variants\.{slug}: there is no cache .* use "):
        _recipe({slug: {"cache": cache}})
