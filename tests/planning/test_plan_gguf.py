"""GGUF files are planned from their own tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gguf_headers
import pytest
from gguf_headers import write_header

from quantlab.architecture.gguf_model import read_gguf
from quantlab.architecture.kvcache import cache_bytes
from quantlab.catalogue.gpu import parse_gpus
from quantlab.errors import QuantlabError
from quantlab.models.ingredients import ingredients
from quantlab.planning.fit import PlannedWorkload, plan_model
from quantlab.planning.plan import ModelPlan

MIB = 2**20


class Release(NamedTuple):
    """What is right of a release's file at 8,192 tokens."""

    write: Callable[[Path], Path]
    parameters: int
    keys_and_values_mib: float
    state_mib: float


RELEASES = (
    Release(gguf_headers.gemma4_31b, 30_697_345_340, 1840, 0),
    Release(gguf_headers.deepseek_v2_lite, 15_706_484_224, 27 * 16 * (192 + 128) * 8192 * 2 / MIB, 0),
    Release(gguf_headers.lfm2_1_2b, 1_170_340_608, 96, 10 * 2048 * 2 * 4 / MIB),
    Release(
        gguf_headers.nemotron_3_nano,
        31_577_940_288,
        48,
        23 * 4 * (4096 * 128 + 3 * (4096 + 2 * 8 * 128)) / MIB,
    ),
    Release(
        gguf_headers.granite_4_h_small,
        32_207_337_984,
        128,
        36 * 4 * (8192 * 128 + 3 * (8192 + 2 * 128)) / MIB,
    ),
)


def plan(path: Path, context: int = 8192, **asked: str) -> ModelPlan:
    known = ingredients(str(path))
    workload = PlannedWorkload(context_tokens=context, **asked)
    return plan_model(
        known.config, name=known.name, file=known.file, workload=workload, rigs=[parse_gpus("rtx-4090")]
    )


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.write.__name__)
def test_parameters_and_cache_are_those_of_the_files_tensors(release: Release, tmp_path: Path) -> None:
    found = plan(release.write(tmp_path / "model.gguf"))
    assert found.total_parameters == release.parameters and found.certain
    cache = found.cache_bytes_per_sequence or 0
    assert found.state_bytes / MIB == pytest.approx(release.state_mib, abs=1e-9)
    assert (cache - found.state_bytes) / MIB == release.keys_and_values_mib


def test_a_quantized_cache_at_a_long_context(tmp_path: Path) -> None:
    path = gguf_headers.gemma4_31b(tmp_path / "model.gguf")
    full = plan(path, 120064, cache_dtype="q5_0").cache_bytes_by_kind["full"]
    assert round(full / MIB, 2) == 3224.38 and full == 10 * 2 * 4 * 512 * 120064 * 22 // 32


def test_the_file_is_itself_a_row(tmp_path: Path) -> None:
    path = gguf_headers.lfm2_1_2b(tmp_path / "model.gguf")
    first, *others = plan(path).variants
    matrices = 1_170_340_608 - 16 * 2 * 2048 - 2048 - 6 * 128 - 10 * 3 * 2048
    assert first.slug == "as stored (gguf)" and first.stored
    assert first.weight_bytes == matrices * 144 // 256 + (1_170_340_608 - matrices) * 4
    assert first.checkpoint_bytes == path.stat().st_size
    assert first.rigs[0].verdict == "fits" and first.rigs[0].weights_bytes == first.weight_bytes
    assert {"gguf-4", "baseline-16"} <= {variant.slug for variant in others}


def test_a_policy_that_is_named_holds(tmp_path: Path) -> None:
    path = gguf_headers.gemma4_31b(tmp_path / "model.gguf")
    assert plan(path).policy == "llama_cpp"
    exact = plan(path, policy="exact")
    assert exact.cache_bytes_per_sequence == 10 * 2 * 4 * 512 * 8192 * 2 + 50 * 2 * 16 * 256 * 1024 * 2


def kimi_linear(path: Path) -> Path:
    """Two layers: delta attention with a gate per channel, and latent attention."""
    shapes = (
        ("token_embd.weight", (2304, 1000)),
        ("output_norm.weight", (2304,)),
        ("blk.0.attn_q.weight", (2304, 4096)),
        ("blk.0.attn_k.weight", (2304, 4096)),
        ("blk.0.attn_v.weight", (2304, 4096)),
        ("blk.0.ssm_conv1d_q.weight", (4, 4096)),
        ("blk.0.attn_output.weight", (4096, 2304)),
        ("blk.1.attn_q.weight", (2304, 6144)),
        ("blk.1.attn_kv_a_mqa.weight", (2304, 576)),
        ("blk.1.attn_k_b.weight", (128, 512, 32)),
        ("blk.1.attn_v_b.weight", (512, 128, 32)),
        ("blk.1.attn_output.weight", (4096, 2304)),
    )
    keys = {
        "block_count": 2,
        "embedding_length": 2304,
        "attention.head_count": 32,
        "attention.head_count_kv": [0, 32],
        "attention.kv_lora_rank": 512,
        "kda.head_dim": 128,
        "ssm.conv_kernel": 4,
    }
    return write_header(path, "kimi-linear", keys, iter(shapes))


def falcon_h1(path: Path) -> Path:
    """One layer that attends and keeps a state."""
    shapes = (
        ("token_embd.weight", (1024, 1000)),
        ("blk.0.attn_q.weight", (1024, 512)),
        ("blk.0.attn_k.weight", (1024, 128)),
        ("blk.0.attn_v.weight", (1024, 128)),
        ("blk.0.attn_output.weight", (512, 1024)),
        ("blk.0.ssm_in.weight", (1024, 3352)),
        ("blk.0.ssm_conv1d.weight", (4, 1792)),
    )
    keys = {
        "block_count": 1,
        "embedding_length": 1024,
        "attention.head_count": 8,
        "attention.head_count_kv": 2,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 128,
        "ssm.inner_size": 1536,
        "ssm.group_count": 1,
        "ssm.time_step_rank": 24,
    }
    return write_header(path, "falcon-h1", keys, iter(shapes))


@pytest.mark.parametrize(
    ("write", "cached", "state"),
    [
        (kimi_linear, 576, 32 * 128 * 128 + 3 * 3 * 4096),
        (falcon_h1, 2 * 2 * 64, 1536 * 128 + 3 * (1536 + 2 * 128)),
    ],
)
def test_layers_that_keep_a_state(
    write: Callable[[Path], Path], cached: int, state: int, tmp_path: Path
) -> None:
    model = read_gguf(write(tmp_path / "model.gguf"))
    held = cache_bytes(model.architecture, 1024, "float16", "llama_cpp")
    assert (held.total - held.state, held.state) == (cached * 1024 * 2, state * 4)
    assert model.architecture.certain


def test_windows_follow_the_architectures_own_rule(tmp_path: Path) -> None:
    def shapes() -> gguf_headers.Shapes:
        yield "token_embd.weight", (256, 1000)
        for i in range(12):
            for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
                yield f"blk.{i}.{name}.weight", (256, 256)

    keys = {
        "block_count": 12,
        "embedding_length": 256,
        "attention.head_count": 4,
        "attention.head_count_kv": 4,
        "attention.sliding_window": 512,
    }
    kinds = {
        name: read_gguf(write_header(tmp_path / f"{name}.gguf", name, keys, shapes())).architecture.kinds
        for name in ("gemma3", "gpt-oss", "llama")
    }
    assert kinds == {
        "gemma3": {"sliding": 10, "full": 2},
        "gpt-oss": {"sliding": 6, "full": 6},
        "llama": {"full": 12},  # llama.cpp reads no window of it
    }


def test_parts_are_planned_together_or_refused(tmp_path: Path) -> None:
    def shapes(layer: int) -> gguf_headers.Shapes:
        if layer == 0:
            yield "token_embd.weight", (256, 1000)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{layer}.{name}.weight", (256, 256)

    from gguf import GGUFWriter

    keys = {"block_count": 2, "embedding_length": 256, "attention.head_count": 4}
    paths = [tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    add = GGUFWriter.write_header_to_file

    def with_parts(writer: GGUFWriter) -> None:
        writer.add_uint16("split.count", 2)
        add(writer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GGUFWriter, "write_header_to_file", with_parts)
        write_header(paths[0], "llama", keys, shapes(0))
        with pytest.raises(
            QuantlabError, match=r"one of 2 parts, and m-00002-of-00002\.gguf is not beside it"
        ):
            read_gguf(paths[0])
        write_header(paths[1], "llama", keys, shapes(1))
    found = read_gguf(paths[0])
    assert found.counted.total == 1000 * 256 + 2 * 4 * 256**2 and found.counted.certain
    assert found.file_bytes == sum(path.stat().st_size for path in paths)


def test_a_header_without_some_layers_is_not_certain(tmp_path: Path) -> None:
    shapes = (("token_embd.weight", (256, 1000)), ("blk.0.attn_k.weight", (256, 256)))
    keys = {"block_count": 3, "embedding_length": 256, "attention.head_count": 4}
    found = plan(write_header(tmp_path / "m.gguf", "llama", keys, iter(shapes)))
    assert not found.certain and any("no tensors of some layers" in doubt for doubt in found.doubts)
