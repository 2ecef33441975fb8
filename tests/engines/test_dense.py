"""Packed layers dequantized: known codes, scales and zero points come back as the weights that they stand
for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantlab.engines._transformers.dense import dequantize, dequantize_awq


def _packed(codes: np.ndarray, bits: int) -> torch.Tensor:
    """Codes (rows, columns) as int32 words along the columns, least significant bits first."""
    stream = ((codes[..., None] >> np.arange(bits)) & 1).astype(np.uint8).reshape(codes.shape[0], -1)
    return torch.from_numpy(np.packbits(stream, axis=1, bitorder="little").view(np.int32).copy())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("ordered", [False, True])
def test_gptq(bits: int, offset: int, ordered: bool) -> None:
    random, inputs, outputs, group = np.random.default_rng(0), 64, 32, 32
    codes = random.integers(0, 2**bits, (inputs, outputs))
    zeros = random.integers(0 if not offset else 1, 2**bits, (inputs // group, outputs))
    scales = random.random((inputs // group, outputs), np.float32)
    index = random.permutation(inputs) // group if ordered else np.arange(inputs) // group
    parts = {
        "qweight": _packed(codes.T, bits).T.contiguous(),
        "qzeros": _packed(zeros - offset, bits),
        "scales": torch.from_numpy(scales),
    }
    if ordered:
        parts["g_idx"] = torch.from_numpy(index.astype(np.int32))
    expected = (codes - zeros[index]) * scales[index]
    assert np.array_equal(dequantize(parts, bits, offset).numpy(), expected.T.astype(np.float32))


def test_awq() -> None:
    random, inputs, outputs, group = np.random.default_rng(0), 64, 32, 32
    codes, zeros = (
        random.integers(0, 16, (inputs, outputs)),
        random.integers(0, 16, (inputs // group, outputs)),
    )
    scales = random.random((inputs // group, outputs), np.float32)

    def packed(values: np.ndarray) -> torch.Tensor:
        # AutoAWQ: word i holds outputs 8i + (0, 2, 4, 6, 1, 3, 5, 7) from its low bits up
        order = values.reshape(values.shape[0], -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
        return _packed(order.reshape(values.shape), 4)

    parts = {"qweight": packed(codes), "qzeros": packed(zeros), "scales": torch.from_numpy(scales)}
    expected = (codes - zeros.repeat(group, 0)) * scales.repeat(group, 0)
    assert np.array_equal(dequantize_awq(parts).numpy(), expected.T.astype(np.float32))
