"""What a reference is not made of: logits that are not finite, and heads that are more than their matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from quantlab.errors import QuantlabError
from quantlab.hardware.device import find
from quantlab.progress import Progress
from quantlab.stages import reference

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": 64,
}
IDS = np.arange(3 * 16).reshape(3, 16)


def _compute(model: Any, folder: Path) -> dict[str, Any]:
    return reference._compute(model, IDS, folder, find("cpu"), Progress(quiet=True))


def _model() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False)).eval()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_window_that_is_not_finite_is_named(bad: float, tmp_path: Path) -> None:
    model = _model()
    assert _compute(model, tmp_path)["head_max_difference"] == 0
    with torch.no_grad():
        model.get_input_embeddings().weight[IDS[1, 4]] = bad
    with pytest.raises(QuantlabError, match="logits of window 2 of the evaluation text are not finite"):
        _compute(model, tmp_path)


@pytest.mark.parametrize("window", [0, 2])
def test_a_head_that_is_more_than_its_matrix_is_refused_in_any_window(window: int, tmp_path: Path) -> None:
    model = _model()

    def more(_module: Any, inputs: Any, output: Any) -> None:
        if int(inputs["input_ids"][0, 0]) == IDS[window, 0]:
            output.logits[0, 3, 5] += 1e-4

    model.register_forward_hook(
        lambda module, _args, kwargs, output: more(module, kwargs, output), with_kwargs=True
    )
    with pytest.raises(
        QuantlabError,
        match=r"the head alone does not give this model's logits back \(largest difference 0.0001\)",
    ):
        _compute(model, tmp_path)


def test_what_a_gpu_may_differ_by_is_what_rounding_explains() -> None:
    from quantlab.reference.head import Head, HeadSpec

    gpu = find("cpu").model_copy(update={"device": "cuda:0"})
    logits = np.array([[-20.0, 10.0]], np.float32)

    def allowed(dtype: torch.dtype, softcap: float | None = None) -> float:
        return reference._tolerance(
            Head(torch.zeros(8, 4096, dtype=dtype), None, HeadSpec(softcap=softcap)), logits, gpu
        )

    assert reference._tolerance(Head(torch.zeros(8, 4096), None, HeadSpec()), logits, find("cpu")) == 0
    assert allowed(torch.float32) < 20 * 1e-4 < allowed(torch.float16) < allowed(torch.bfloat16) < 20 * 0.01
    assert allowed(torch.bfloat16) < allowed(torch.bfloat16, 30.0) < 20 * 0.05
