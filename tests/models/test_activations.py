"""How large a model's activations become, and what float16 makes of those that it does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wide_activations import write_wide

from quantlab.models.activations import FLOAT16_LARGEST, WatchedActivations, largest_activation
from quantlab.models.loading import load_model
from quantlab.models.tiny import build, family

TOKENS = np.arange(4, 36, dtype=np.int64)


def _logits(model: Any) -> Any:
    with torch.inference_mode():
        return model(input_ids=torch.from_numpy(TOKENS)[None]).logits


def test_the_largest_value_is_the_one_that_a_hook_on_every_layer_sees() -> None:
    model = build(family("llama"))
    seen = dict[str, float]()

    def keep(name: str) -> Any:
        return lambda _module, given, out: seen.update(
            {name: max(float(t.abs().max()) for t in (*given, out) if torch.is_floating_point(t))}
        )

    hooks = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    _logits(model)
    for hook in hooks:
        hook.remove()
    found = largest_activation(model, TOKENS)
    assert found.value >= max(seen.values()) > 1 and found.fits_float16 and found.module
    assert not any(module._forward_hooks for module in model.modules())


def test_activations_beyond_float16_are_found_and_are_no_numbers_in_it(tmp_path: Path) -> None:
    folder = write_wide(tmp_path / "wide")
    model = load_model(folder, False, dtype=torch.bfloat16).eval()
    found = largest_activation(model, TOKENS)
    assert found.value > FLOAT16_LARGEST and not found.fits_float16 and "model.layers." in found.module
    assert found.said() == f"activations reach {found.value:,.0f} ({found.module}), float16 holds 65,504"
    assert _logits(model).isfinite().all()
    assert not _logits(model.half()).isfinite().all()


def test_masks_of_infinities_are_no_activations() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(2, 2))
    watched = WatchedActivations(layer)
    layer(torch.tensor([[float("-inf"), 1.0]]))
    layer(torch.tensor([[3.0, -5.0]]))
    assert watched.close().value == pytest.approx(5.0)
