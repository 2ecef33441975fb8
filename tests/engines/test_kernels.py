"""Kernels of packed layers are chosen by what can be built on this machine, on GPUs that are pretended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quantlab.engines._transformers import as_stored, kernels
from quantlab.engines._transformers.kernels import Choice, Layer, choice_for, choose, choose_for_auto_round
from quantlab.errors import CellFailure
from quantlab.files import write_json

GPTQ4 = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
AWQ4 = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
ROUNDED = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}
ROUNDED |= {"packing_format": "auto_round:auto_gptq"}
LAYERS = (Layer(4096, 4096, 4), Layer(4096, 14336, 4))
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A GPU of a capability, with or without nvcc and a C compiler; what nvcc builds."""
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear, marlin, marlin_awq
    from gptqmodel.utils import importer

    def forget() -> None:
        vars(BaseQuantLinear)["cached_validate_once"].__func__.cache_clear()
        importer.clear_validation_cache()

    def pretend(
        capability: tuple[int, int] = (8, 6),
        nvcc: bool = False,
        cc: bool = True,
        builds: tuple[str, ...] = (),
    ) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        for module in (marlin, marlin_awq):
            monkeypatch.setattr(module, "marlin_import_exception", None)  # asked when it was imported
        monkeypatch.setattr(kernels, "nvcc", lambda: "/usr/local/cuda/bin/nvcc" if nvcc else None)
        monkeypatch.setattr(kernels, "c_compiler", lambda: "gcc" if cc else None)
        monkeypatch.setattr(kernels, "built", lambda extension: extension in builds)
        forget()

    yield pretend
    monkeypatch.undo()
    forget()


def test_gpu_row_1_gptqmodel_by_itself_takes_what_cannot_be_built(machine: Machine) -> None:
    from gptqmodel.utils.importer import hf_select_quant_linear_v2

    machine(capability=(8, 6))
    kind = hf_select_quant_linear_v2(
        bits=4,
        group_size=128,
        desc_act=False,
        sym=True,
        format="gptq",
        quant_method="gptq",
        pack=False,
        device_map={"": "cuda:0"},
    )
    assert kind.__name__ == "MarlinLinear"


def test_gpu_row_1_without_nvcc_triton_runs_gptq_and_awq(machine: Machine) -> None:
    machine()
    assert choose(GPTQ4, LAYERS, "cuda:0", "bfloat16") == Choice(
        "triton", ("marlin: nvcc is missing", "exllama_v2: nvcc is missing")
    )
    assert choose(AWQ4, LAYERS, "cuda:0", "float16") == Choice(
        "gemm_triton", ("marlin: nvcc is missing", "gemm: nvcc is missing")
    )


def test_gpu_row_1_marlin_where_it_builds(machine: Machine) -> None:
    machine(nvcc=True, builds=("marlin_bf16", "marlin_fp16"))
    assert choose(GPTQ4, LAYERS, "cuda:0", "bfloat16") == Choice("marlin", ())
    assert choose(AWQ4, LAYERS, "cuda:0", "float16") == Choice("marlin", ())


def test_gpu_row_1_a_hopper_downloads_no_machete(machine: Machine) -> None:
    machine(capability=(9, 0))
    assert choose(GPTQ4, LAYERS, "cuda:0", "bfloat16").backend == "triton"


def test_gpu_row_1_what_does_not_build_is_left_out(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(nvcc=True)
    monkeypatch.setattr(kernels, "_refusal", lambda *_: None)
    found = choose(GPTQ4, LAYERS, "cuda:0", "bfloat16")
    assert found.backend == "triton" and found.left_out[0] == "marlin: it cannot be built here, see the log"


@pytest.mark.parametrize(
    ("config", "layers", "capability", "backend"),
    [
        (GPTQ4 | {"bits": 3}, (Layer(4096, 4096, 3),), (8, 6), "torch"),
        (GPTQ4, (Layer(4096, 4100, 4),), (8, 6), "torch"),
        (GPTQ4, (*LAYERS, Layer(4096, 4096, 3)), (8, 6), "torch"),
        (GPTQ4 | {"bits": 8}, (Layer(4096, 4096, 8),), (8, 6), "triton"),
        (AWQ4 | {"bits": 3}, (Layer(4096, 4096, 3),), (8, 6), "torch_awq"),
        (AWQ4 | {"group_size": 16}, LAYERS, (8, 6), "torch_awq"),
    ],
    ids=["3 bits", "another shape", "one layer of 3 bits", "8 bits", "AWQ of 3 bits", "groups of 16"],
)
def test_gpu_row_1_every_layer_has_to_be_taken(
    config: dict[str, Any],
    layers: tuple[Layer, ...],
    capability: tuple[int, int],
    backend: str,
    machine: Machine,
) -> None:
    machine(capability=capability)
    assert choose(config, layers, "cuda:0", "float16").backend == backend


def test_gpu_row_1_an_old_gpu_has_no_marlin(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(capability=(7, 0), nvcc=True, builds=("marlin_fp16",))
    real = kernels._refusal
    monkeypatch.setattr(
        kernels, "_refusal", lambda k, *rest: "not here" if k.backend == "exllama_v2" else real(k, *rest)
    )
    found = choose(GPTQ4, LAYERS, "cuda:0", "float16")
    assert found.backend == "triton" and "does not support device" in found.left_out[0]


def test_gpu_row_1_without_a_c_compiler_torch_is_left(machine: Machine) -> None:
    machine(cc=False)
    found = choose(GPTQ4, LAYERS, "cuda:0", "float16")
    assert found.backend == "torch" and found.said().endswith("not triton: Triton needs a C compiler")


def test_gpu_row_1_layers_that_no_kernel_takes_are_refused(machine: Machine) -> None:
    machine()
    with pytest.raises(CellFailure, match=r"no kernel on cuda:0 runs these layers \(marlin: nvcc is missing"):
        choose(AWQ4, (Layer(4096, 4097, 4),), "cuda:0", "float16")


def test_gpu_row_1_auto_rounds_own_triton_without_nvcc(machine: Machine) -> None:
    machine()
    found = choose_for_auto_round(ROUNDED, LAYERS)
    assert found.backend == "auto_round:tritonv2_zp"
    assert "gptqmodel:marlin_zp: nvcc is missing" in found.left_out
    machine(nvcc=True, builds=("marlin_fp16",))
    assert choose_for_auto_round(ROUNDED, LAYERS) == Choice("gptqmodel:marlin_zp", ())


def test_gpu_row_1_the_choice_goes_into_the_loading_and_the_record(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file
    from transformers.quantizers.auto import AutoHfQuantizer

    from quantlab.models import loading

    machine()
    words = {"a.qweight": torch.zeros(512, 4096, dtype=torch.int32)}
    save_file(words | {"a.g_idx": torch.zeros(4096, dtype=torch.int32)}, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", {"dtype": "bfloat16", "quantization_config": GPTQ4})
    assert kernels._layers(tmp_path, GPTQ4) == {Layer(4096, 4096, 4)}
    assert choice_for(tmp_path, "cpu") is None
    choice = choice_for(tmp_path, "cuda:0")
    assert choice is not None and choice.said() == (
        "backend triton; not marlin: nvcc is missing; not exllama_v2: nvcc is missing"
    )
    asked: dict[str, Any] = {}
    monkeypatch.setattr(as_stored, "needs_gptqmodel", lambda *_: False)
    monkeypatch.setattr(as_stored, "check_disk", lambda *_: True)
    monkeypatch.setattr(loading, "load_model", lambda *_, **given: asked.update(given))
    as_stored.load_as_stored(as_stored.Wanted(tmp_path, "cuda:0"), GPTQ4)
    merged = AutoHfQuantizer.merge_quantization_configs(dict(GPTQ4), asked["quantization_config"])
    assert merged.backend == "triton" and merged.group_size == 128


def test_gpu_row_1_compilers_are_found_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert kernels.c_compiler() is None
    for made in (tmp_path / "gcc", tmp_path / "cuda" / "bin" / "nvcc"):
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text("#!/bin/sh\n")
        made.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert kernels.nvcc() == str(tmp_path / "cuda" / "bin" / "nvcc")
    assert kernels.c_compiler() == str(tmp_path / "gcc")
