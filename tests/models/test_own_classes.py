"""transformers' classes are its own again after GPTQModel loaded a model."""

from __future__ import annotations

import pytest
import torch
from transformers import conversion_mapping
from transformers.models.mixtral import modeling_mixtral

from quantlab.models.own_classes import own_classes
from quantlab.models.tiny import build, family


def _experts_in_one_tensor() -> int:
    return sum(value.ndim == 3 for value in build(family("mixtral")).parameters())


def test_classes_that_defuser_replaced_are_put_back() -> None:
    from defuser import replace_fused_blocks

    before = modeling_mixtral.MixtralSparseMoeBlock, conversion_mapping.get_checkpoint_conversion_mapping
    fused = _experts_in_one_tensor()
    assert fused
    with own_classes("mixtral"):
        assert replace_fused_blocks("mixtral") and _experts_in_one_tensor() == 0
    assert (
        modeling_mixtral.MixtralSparseMoeBlock,
        conversion_mapping.get_checkpoint_conversion_mapping,
    ) == before
    assert _experts_in_one_tensor() == fused


def test_they_are_put_back_where_loading_fails_and_other_families_pass() -> None:
    from defuser import replace_fused_blocks

    before = modeling_mixtral.MixtralSparseMoeBlock
    with pytest.raises(OSError, match="no such model"), own_classes("mixtral"):
        replace_fused_blocks("mixtral")
        raise OSError("no such model")
    assert modeling_mixtral.MixtralSparseMoeBlock is before
    with own_classes("a family that nobody knows"):
        assert torch.is_tensor(next(build(family("mixtral")).parameters()))
