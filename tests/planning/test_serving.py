"""Serving commands: the flags of each method, quoting, and what no server loads."""

from __future__ import annotations

import shlex

import pytest

from quantlab import methods
from quantlab.names import Variant
from quantlab.planning.serving import measure, serve, serve_release


def _serve(method: str, bits: int, gpus: int = 1, folder: str = "runs/m/checkpoints/m/v") -> list[str]:
    command = serve(Variant(method, bits), folder, "org/Name", "m-served", 32_768, gpus).command
    assert command
    return shlex.split(command)


@pytest.mark.parametrize(
    ("method", "bits", "flag"),
    [
        ("gptq", 4, "gptq_marlin"),
        ("gptq", 8, "gptq_marlin"),
        ("awq", 4, "awq_marlin"),
        ("bitsandbytes", 4, "bitsandbytes"),
        ("fp8", 8, "compressed-tensors"),
    ],
)
def test_vllm_gets_the_quantization_the_context_and_the_gpus(method: str, bits: int, flag: str) -> None:
    words = _serve(method, bits)
    assert words[:3] == ["vllm", "serve", "runs/m/checkpoints/m/v"]
    assert words[words.index("--quantization") + 1] == flag
    assert words[words.index("--max-model-len") + 1] == "32768"
    assert words[words.index("--tensor-parallel-size") + 1] == "1"


def _parallel(method: str) -> str:
    words = _serve(method, 4, gpus=4)
    return words[words.index("--tensor-parallel-size") + 1]


def test_gpus_become_tensor_parallelism_but_not_for_bitsandbytes() -> None:
    assert _parallel("gptq") == "4"
    assert _parallel("bitsandbytes") == "1"


def test_the_baseline_is_its_source() -> None:
    assert _serve("baseline", 16)[2] == "org/Name"
    assert "--quantization" not in _serve("baseline", 16)


def test_a_release_needs_no_flag() -> None:
    assert (
        serve_release("openai/gpt-oss-20b", "gpt-oss-20b", 8192, 2).command
        == "vllm serve openai/gpt-oss-20b --tensor-parallel-size 2 --max-model-len 8192 --served-model-name"
        " gpt-oss-20b"
    )


def test_gguf_is_served_by_llama_server_and_ollama() -> None:
    found = serve(Variant("gguf", 4), "runs/m/checkpoints/m/gguf-4", "org/Name", "m-gguf-4", 8192)
    assert (
        found.command
        == "llama-server --model runs/m/checkpoints/m/gguf-4/model.gguf --ctx-size 8192 --gpu-layers 999"
        " --parallel 1 --alias m-gguf-4"
    )
    assert found.modelfile == "FROM runs/m/checkpoints/m/gguf-4/model.gguf\nPARAMETER num_ctx 8192\n"
    assert found.create == "ollama create m-gguf-4 -f Modelfile"
    assert "--gpu-layers 0" in (serve(Variant("gguf", 4), "c", "s", "n", 8192, gpus=0).command or "")


@pytest.mark.parametrize(("method", "bits"), [("gptq", 3), ("gptq", 2), ("awq", 3), ("autoround", 2)])
def test_what_vllm_cannot_load_is_said(method: str, bits: int) -> None:
    found = serve(Variant(method, bits), "c", "s", "n", 8192)
    assert found.command is None and f"do not take {bits} bits" in found.notes[0]


def test_every_method_and_width_has_a_command_or_a_reason() -> None:
    for name in methods.names():
        for bits in methods.load(name).bits:
            found = serve(Variant(name, bits), "c", "s", "n", 8192)
            assert found.command or found.notes, (name, bits)


def test_a_folder_with_blanks_stays_one_word() -> None:
    assert _serve("gptq", 4, folder="my models/it's")[2] == "my models/it's"


def test_the_measuring_command_is_one_that_run_understands() -> None:
    assert measure("qwen3.5-27b", Variant("gguf", 4)) == "quantlab run qwen3.5-27b --method gguf --bits 4"
    assert measure("m", Variant("gptq", 4, "g32")) == "quantlab run m --variant gptq-4-g32"


def test_gpus_that_cannot_share_the_layers_get_whole_ones() -> None:
    why = "32 attention heads cannot be split over 3 GPUs"
    for found in (
        serve(Variant("gptq", 4), "folder", "org/Name", "m", 8192, 3, why),
        serve_release("openai/gpt-oss-20b", "gpt-oss-20b", 8192, 3, why),
    ):
        assert (
            found.command and "--pipeline-parallel-size 3" in found.command and "tensor" not in found.command
        )
        assert any(why in note for note in found.notes)
    assert "--tensor-parallel-size 1" in (
        serve(Variant("bitsandbytes", 4), "folder", "org/Name", "m", 8192, 3, why).command or ""
    )
