"""The architectures that ship: one per open model, each with its source, and in step with models.yaml."""

from __future__ import annotations

import pytest

from quantlab.architecture.counts import count
from quantlab.catalogue.config import known_config, known_configs
from quantlab.catalogue.entry import SHIPPED, read


def test_every_released_model_of_the_catalogue_has_its_config() -> None:
    assert set(known_configs()) == {name for name, entry in read(SHIPPED).items() if entry.exists}
    assert known_config("qwen3.5-72b") is None
    assert known_config("../models") is None


@pytest.mark.parametrize("alias", known_configs())
def test_the_catalogues_facts_are_those_of_the_config(alias: str) -> None:
    known, entry = known_config(alias), read(SHIPPED)[alias]
    assert known is not None
    found = count(known.config)
    assert (entry.parameters, entry.active) == (found.total, found.active)
    text = known.config.get("text_config", known.config)
    assert entry.context == text["max_position_embeddings"]
    assert known.source
    assert bool(known.repository_parameters) == bool(known.repository_parameters_source)
