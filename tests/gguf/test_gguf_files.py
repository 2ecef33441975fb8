"""Converting, the importance matrix and quantizing, on a tiny random Llama: known answers and relations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantlab.engines._llama.library import Model
from quantlab.errors import CellFailure, QuantlabError
from quantlab.methods._gguf import converter, importance, quantizer
from quantlab.progress import Progress

pytestmark = pytest.mark.slow
LAYERS = 2 * 7


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def divergence(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean Kullback-Leibler divergence in nats."""
    p, q = log_softmax(reference), log_softmax(other)
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def test_f16_has_the_float32_models_logits(
    prepared: Path, dense: Any, token_ids: NDArray[np.int64], open_engine: Any
) -> None:
    import torch

    engine = open_engine(prepared / "f16.gguf")
    for window in token_ids[:2]:
        with torch.inference_mode():
            expected = dense(torch.from_numpy(window)[None]).logits[0].numpy()
        got = engine.logits(window)
        assert got.shape == expected.shape and got.dtype == np.float32
        assert divergence(expected, got) < 1e-4


def test_fewer_bits_are_fewer_bytes_and_not_less_divergence(
    prepared: Path, quantized: Callable[..., Path], token_ids: NDArray[np.int64], open_engine: Any
) -> None:
    reference = open_engine(prepared / "f16.gguf").logits(token_ids[0])
    sizes, divergences = [], []
    for bits in (16, 8, 6, 5, 4, 3, 2):
        file = quantized(bits)
        assert len(quantizer.quantized(file)) == (LAYERS if bits < 16 else 0)
        sizes.append(file.stat().st_size)
        divergences.append(divergence(reference, open_engine(file).logits(token_ids[0])))
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    assert divergences == sorted(divergences) and divergences[0] == 0 < divergences[1]


@pytest.mark.parametrize(
    ("bits", "settings"), [(4, {}), (4, {"type": "IQ4_XS"}), (2, {"type": "iq2_xs"}), (8, {})]
)
def test_the_same_settings_give_the_same_bytes(
    bits: int, settings: dict[str, Any], quantized: Callable[..., Path]
) -> None:
    assert quantized(bits, **settings).read_bytes() == quantized(bits, **settings).read_bytes()


def test_the_threads_do_not_change_the_bytes(prepared: Path, tmp_path: Path) -> None:
    matrix = importance.load(prepared / "imatrix.gguf")
    for threads in (1, 3):
        quantizer.quantize_file(
            prepared / "f16.gguf", tmp_path / f"{threads}.gguf", "Q4_K_M", matrix, threads
        )
    assert (tmp_path / "1.gguf").read_bytes() == (tmp_path / "3.gguf").read_bytes()


def test_the_importance_matrix_is_used_at_six_bits_and_below(quantized: Callable[..., Path]) -> None:
    assert quantized(4).read_bytes() != quantized(4, imatrix=False).read_bytes()
    assert quantized(8).read_bytes() == quantized(8, imatrix=False).read_bytes()


def test_sixteen_bits_are_the_file_itself(prepared: Path, quantized: Callable[..., Path]) -> None:
    assert quantized(16).read_bytes() == (prepared / "f16.gguf").read_bytes()


def test_the_importance_matrix_holds_squared_inputs(
    prepared: Path, dense: Any, token_ids: NDArray[np.int64]
) -> None:
    import torch

    found = importance.load(prepared / "imatrix.gguf")
    seen: list[torch.Tensor] = []
    layer = dense.model.layers[1]
    hooks = [
        part.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        for part in (layer.self_attn.q_proj, layer.mlp.down_proj)
    ]
    with torch.inference_mode():
        dense(torch.from_numpy(token_ids))
    for hook in hooks:
        hook.remove()
    assert len(found.entries) == LAYERS and (found.windows, found.length) == token_ids.shape
    for name, inputs in zip(("attn_q", "ffn_down"), seen, strict=True):
        entry = found.entries[f"blk.1.{name}.weight"]
        assert entry.counts.tolist() == [token_ids.size]
        np.testing.assert_allclose(entry.sums[0], inputs.square().sum(dim=(0, 1)), rtol=0.01)


def test_the_importance_matrix_is_read_back_as_written(prepared: Path, tmp_path: Path) -> None:
    found = importance.load(prepared / "imatrix.gguf")
    importance.save(found, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (prepared / "imatrix.gguf").read_bytes()
    types = quantizer.tensor_types(tmp_path / "again.gguf")
    assert types == {"F32": 2 * LAYERS}


def test_the_importance_matrix_of_experts_counts_the_tokens_that_reached_them(
    tmp_path: Path, token_ids: NDArray[np.int64]
) -> None:
    import torch
    from tiny_llama import ARCHITECTURE, write_tokenizer
    from transformers import MixtralConfig, MixtralForCausalLM

    source = tmp_path / "tiny-mixtral"
    vocabulary = len(write_tokenizer(source))
    torch.manual_seed(0)
    model = MixtralForCausalLM(
        MixtralConfig(vocab_size=vocabulary, num_local_experts=4, num_experts_per_tok=2, **ARCHITECTURE)
    ).eval()
    model.save_pretrained(source)
    converter.convert(source, tmp_path / "f16.gguf", tmp_path / "log.txt")
    inputs: list[torch.Tensor] = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.inference_mode():
        model(torch.from_numpy(token_ids))
    entry = importance.compute(tmp_path / "f16.gguf", token_ids, Progress(quiet=True)).entries[
        "blk.0.ffn_gate_exps.weight"
    ]
    assert entry.sums.shape == (4, 256) and entry.counts.sum() == 2 * token_ids.size
    np.testing.assert_allclose(entry.sums.sum(axis=0), 2 * inputs[0].square().sum(dim=(0, 1)), rtol=0.01)
    quantizer.quantize_file(
        tmp_path / "f16.gguf",
        tmp_path / "q2.gguf",
        "IQ2_XS",
        importance.compute(tmp_path / "f16.gguf", token_ids, Progress(True)),
        2,
    )
    assert (
        len(quantizer.quantized(tmp_path / "q2.gguf"))
        == len(quantizer.quantizable(tmp_path / "f16.gguf"))
        == 2 * (4 + 3)
    )


def test_what_llama_cpp_refuses_leaves_no_file(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(CellFailure, match="requires an imatrix") as raised:
        quantizer.quantize_file(prepared / "f16.gguf", tmp_path / "out.gguf", "IQ2_XS", None, 2)
    assert raised.value.kind == "unsupported" and not list(tmp_path.iterdir())
    with pytest.raises(QuantlabError, match="Q4_K_M"):
        quantizer.quantize_file(prepared / "f16.gguf", tmp_path / "out.gguf", "Q4_K_X", None, 2)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_off_file_is_a_broken_checkpoint(kept: float, prepared: Path, tmp_path: Path) -> None:
    whole, broken = (prepared / "f16.gguf").read_bytes(), tmp_path / "broken.gguf"
    broken.write_bytes(whole[: int(len(whole) * kept)])
    for read in (Model, quantizer.stored_tensors):
        with pytest.raises(CellFailure) as raised:
            read(broken)
        assert raised.value.kind == "broken_checkpoint"


def test_the_header_says_what_the_gguf_package_says(quantized: Callable[..., Path]) -> None:
    from gguf import GGUFReader

    file = quantized(3)
    expected = [
        (t.name, t.tensor_type.name, int(t.n_bytes), int(t.n_elements)) for t in GGUFReader(file).tensors
    ]
    assert [tensor[:4] for tensor in quantizer.stored_tensors(file)] == expected
    assert sum(quantizer.tensor_types(file).values()) == len(expected)
