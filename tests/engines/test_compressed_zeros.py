"""Zero points of compressed-tensors: laid out as they are stored, and those of experts checked by headers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quantlab.engines._transformers.compressed_zeros import wrong_zeros, zeros_packed


def _scheme(bits: int = 4, group: int = -1, symmetric: bool = False) -> Any:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    weights = QuantizationArgs(num_bits=bits, group_size=group, symmetric=symmetric)
    return QuantizationScheme(targets=["Linear"], weights=weights, format="pack-quantized")


def _compressed(scheme: Any, device: str, rows: int) -> dict[str, torch.Tensor]:
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor

    groups = 1 if scheme.weights.group_size == -1 else 64 // scheme.weights.group_size
    state = {
        "weight": torch.ones(rows, 64, device=device),
        "weight_scale": torch.ones(rows, groups, device=device),
        "weight_zero_point": torch.zeros(rows, groups, dtype=torch.int8, device=device),
    }
    made: dict[str, torch.Tensor] = PackedQuantizationCompressor.compress(state, scheme)
    return made


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [-1, 32])
@pytest.mark.parametrize("rows", [12, 64])
def test_a_layer_without_memory_has_the_shapes_of_a_stored_one(bits: int, group: int, rows: int) -> None:
    scheme = _scheme(bits, group)
    stored = {name: (part.shape, part.dtype) for name, part in _compressed(scheme, "cpu", rows).items()}
    with zeros_packed():
        laid_out = {n: (part.shape, part.dtype) for n, part in _compressed(scheme, "meta", rows).items()}
        assert _compressed(scheme, "cpu", rows)["weight_zero_point"].shape == stored["weight_zero_point"][0]
    assert laid_out == stored
    # the library's own again
    assert _compressed(scheme, "meta", rows)["weight_zero_point"].dtype == torch.int8


def test_a_symmetric_layer_has_no_zero_points() -> None:
    with zeros_packed():
        assert "weight_zero_point" not in _compressed(_scheme(symmetric=True), "meta", 64)


def _experts(zeros: list[int]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for layer in (f"model.layers.0.mlp.experts.{n}.up_proj" for n in range(2)):
        entries[f"{layer}.weight_packed"] = {"shape": [64, 8]}
        entries[f"{layer}.weight_scale"] = {"shape": [64, 2]}
        entries[f"{layer}.weight_zero_point"] = {"shape": zeros}
    return entries


@pytest.mark.parametrize(
    ("zeros", "wrong"), [([8, 2], False), ([64, 2], True), ([8, 1], True), ([9, 2], True)]
)
def test_zero_points_of_experts_have_one_shape(zeros: list[int], wrong: bool) -> None:
    said = wrong_zeros(_experts(zeros), "mlp.experts.*.up_proj", _scheme(group=32))
    assert said.startswith("2 tensors are of another shape: model.layers.0.mlp.experts.0.up_proj") == wrong
    assert bool(said) == wrong
    assert not wrong_zeros(_experts(zeros), "mlp.experts.*.up_proj", _scheme(group=32, symmetric=True))


def test_a_zero_point_that_an_expert_lacks_is_named() -> None:
    entries = _experts([8, 2])
    del entries["model.layers.0.mlp.experts.1.up_proj.weight_zero_point"]
    said = wrong_zeros(entries, "mlp.experts.*.up_proj", _scheme(group=32))
    assert said == "1 tensors are missing: model.layers.0.mlp.experts.1.up_proj.weight_zero_point"
    assert not wrong_zeros(entries, "mlp.experts.*.gate_proj", _scheme(group=32))
