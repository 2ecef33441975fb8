"""Bits per weight and layers, counted from the files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from quantlab.formats import stored


def _folder(path: Path, tensors: dict[str, torch.Tensor]) -> list[stored.Tensor]:
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    return stored.safetensors(path)


def test_known_counts(tmp_path: Path) -> None:
    half = torch.bfloat16
    source = _folder(
        tmp_path / "source",
        {
            "embed.weight": torch.zeros(100, 64, dtype=half),
            "a.weight": torch.zeros(64, 64, dtype=half),
            "a.bias": torch.zeros(64, dtype=half),
            "b.weight": torch.zeros(64, 64, dtype=half),
            "norm.weight": torch.zeros(64, dtype=half),
        },
    )
    packed = _folder(
        tmp_path / "packed",
        {
            "embed.weight": torch.zeros(100, 64, dtype=half),
            "a.qweight": torch.zeros(8, 64, dtype=torch.int32),
            "a.qzeros": torch.zeros(2, 8, dtype=torch.int32),
            "a.scales": torch.zeros(2, 64, dtype=torch.float16),
            "a.bias": torch.zeros(64, dtype=half),
            "b.weight": torch.zeros(64, 64, dtype=half),
            "norm.weight": torch.zeros(64, dtype=half),
        },
    )
    found = stored.of_safetensors(packed, source)
    assert found.quantized_layers == 1 and found.quantized_parameters == 64 * 64
    assert found.quantized_bytes == 8 * 64 * 4 + 2 * 8 * 4 + 2 * 64 * 2
    assert found.total_bytes == found.quantized_bytes + 2 * (6400 + 64 + 4096 + 64)
    assert found.types == {"BF16": 4, "I32": 2, "F16": 1}
    plain = stored.of_safetensors(source, source)
    assert (plain.quantized_layers, plain.quantized_bytes) == (0, 0)


def test_bitsandbytes_keeps_the_weights_name(tmp_path: Path) -> None:
    source = _folder(tmp_path / "source", {"a.weight": torch.zeros(64, 64, dtype=torch.bfloat16)})
    four = {
        "a.weight": torch.zeros(2048, 1, dtype=torch.uint8),
        "a.weight.absmax": torch.zeros(64, dtype=torch.uint8),
    }
    found = stored.of_safetensors(_folder(tmp_path / "four", four), source)
    assert found.quantized_layers == 1 and found.quantized_bytes == 2048 + 64


def _packed(rows: int, columns: int) -> dict[str, torch.Tensor]:
    """A 4-bit layer as GPTQModel stores it."""
    return {
        "qweight": torch.zeros(columns // 8, rows, dtype=torch.int32),
        "scales": torch.zeros(columns // 32, rows, dtype=torch.float16),
        "g_idx": torch.zeros(columns, dtype=torch.int32),
    }


def test_experts_stored_one_by_one_count_under_their_own_names(tmp_path: Path) -> None:
    half, layer = torch.bfloat16, "model.layers.0.mlp"
    fused = {
        f"{layer}.experts.gate_up_proj": torch.zeros(2, 128, 64, dtype=half),
        f"{layer}.gate.weight": torch.zeros(2, 64, dtype=half),
        f"{layer}.gate.tid2eid": torch.zeros(100, 2, dtype=torch.int64),
    }
    source = _folder(tmp_path / "source", fused)
    names = [f"{layer}.experts.{n}.{part}" for n in (0, 1) for part in ("gate_proj", "up_proj")]
    apart = {f"{name}.{part}": tensor for name in names for part, tensor in _packed(64, 64).items()}
    router = {name: tensor for name, tensor in fused.items() if ".gate." in name}
    contents = stored.of_safetensors(_folder(tmp_path / "apart", apart | router), source)
    assert contents.names == frozenset(names) and contents.experts == 4 and contents.routers == ()
    assert contents.quantized_parameters == 2 * 128 * 64
    assert contents.quantized_bytes == 4 * (8 * 64 * 4 + 2 * 64 * 2 + 64 * 4)


def test_a_quantized_router_is_named(tmp_path: Path) -> None:
    packed = {f"model.layers.0.mlp.gate.{part}": tensor for part, tensor in _packed(64, 64).items()}
    packed |= {f"model.layers.0.mlp.gate_proj.{part}": tensor for part, tensor in _packed(64, 64).items()}
    contents = stored.of_safetensors(_folder(tmp_path / "router", packed), [])
    assert contents.routers == ("model.layers.0.mlp.gate",) and contents.quantized_layers == 2
