"""Where a checkpoint's files describe its quantization."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantlab.formats.quantization import quantization_config, section_of

SAID = {"quant_method": "compressed-tensors", "format": "pack-quantized"}


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"quantization_config": SAID}, "quantization_config"),
        ({"compression_config": SAID}, "compression_config"),
        ({"text_config": {"quantization_config": SAID}}, "quantization_config"),
        (
            {"quantization_config": SAID, "text_config": {"quantization_config": {"other": 1}}},
            "quantization_config",
        ),
    ],
)
def test_the_section_of_the_whole_or_of_the_language_part(
    config: dict[str, Any], key: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert quantization_config(tmp_path) == SAID and section_of(config) == (key, SAID)


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"text_config": None}])
def test_none(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert quantization_config(tmp_path) == {} and section_of(config) == ("", None)
