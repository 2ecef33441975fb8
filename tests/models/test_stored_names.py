"""What stands in a model's files is found in transformers' class, whatever both call it."""

from __future__ import annotations

import pytest

from quantlab.models.loading import build_on_meta
from quantlab.models.stored_names import places_of


def _model(name: str) -> object:
    from transformers import AutoConfig

    from quantlab.models.tiny.families import family

    return build_on_meta(AutoConfig.for_model(family(name).kind, **family(name).fields), False)


@pytest.mark.parametrize(
    ("family", "stored", "parameter", "renamed_only"),
    [
        ("llama", "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight", True),
        ("llama", "layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight", True),
        (
            "mixtral",
            "model.layers.1.block_sparse_moe.experts.7.w3.weight",
            "model.layers.1.mlp.experts.gate_up_proj",
            False,
        ),
        ("mixtral", "model.layers.1.block_sparse_moe.gate.weight", "model.layers.1.mlp.gate.weight", True),
        ("deepseek_v4", "layers.0.attn.wq_a.weight", "model.layers.0.self_attn.q_a_proj.weight", True),
    ],
)
def test_a_stored_tensors_place(family: str, stored: str, parameter: str, renamed_only: bool) -> None:
    [place] = places_of(_model(family), [stored]).values()
    assert place.parameter == parameter and place.renamed_only == renamed_only


def test_a_layer_that_predicts_further_tokens_has_no_place() -> None:
    assert places_of(_model("llama"), ["mtp.layers.0.mlp.up_proj.weight"]) == {}
