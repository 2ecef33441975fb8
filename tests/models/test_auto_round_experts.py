"""Experts that auto-round takes apart compute what the model computed."""

from __future__ import annotations

import pytest
import torch

from quantlab.models.auto_round_experts import complete_replacements, note_for
from quantlab.models.tiny import build, family


@pytest.mark.parametrize("name", ["gpt_oss", "llama4_text"])
def test_a_model_taken_apart_has_the_same_logits(name: str) -> None:
    from auto_round.modeling.fused_moe.replace_modules import materialize_model_
    from auto_round.special_model_handler import update_module

    model = build(family(name))
    ids = torch.randint(5, 900, (1, 24), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = model(input_ids=ids, use_cache=False).logits
    complete_replacements()
    complete_replacements()
    apart = update_module(model, cleanup_original=False)
    materialize_model_(apart)
    names = {part for part, layer in apart.named_modules() if isinstance(layer, torch.nn.Linear)}
    mixtures = 4 if name == "gpt_oss" else 2
    assert sum(part.endswith("gate_proj") and ".experts." in part for part in names) == 8 * mixtures
    with torch.inference_mode():
        assert torch.allclose(apart(input_ids=ids, use_cache=False).logits, exact, atol=1e-4)


def test_the_gate_of_gpt_oss_is_in_the_gate_projection() -> None:
    """The even columns of what interleaves gate and up, in the checkpoint that is saved."""
    from auto_round.modeling.fused_moe.replace_modules import materialize_model_
    from auto_round.special_model_handler import update_module

    model = build(family("gpt_oss"))
    interleaved = model.model.layers[0].mlp.experts.gate_up_proj[3].detach().clone()
    complete_replacements()
    apart = update_module(model, cleanup_original=False)
    materialize_model_(apart)
    gate = apart.get_submodule("model.layers.0.mlp.experts.3.gate_proj").weight
    assert torch.equal(gate.float(), interleaved[:, ::2].T)
    assert "mixes up" in note_for("gpt_oss")[0] and note_for("llama") == ()
