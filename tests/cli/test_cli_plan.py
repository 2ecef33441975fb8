"""`quantlab plan`."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from quantlab.catalogue.config import known_config

EXAMPLE = Path(__file__).parents[2] / "reports" / "examples"
Run = Callable[..., Result]


def llama() -> dict[str, Any]:
    found = known_config("llama-3.1-8b")
    assert found is not None
    return found.config


@pytest.fixture
def config(here: Path) -> Path:
    path = here / "config.json"
    path.write_text(json.dumps(llama()))
    return path


def test_any_config_by_path_gives_exact_bytes(config: Path, quantlab: Run) -> None:
    found = json.loads(quantlab("plan", str(config), "--context", "32k", "--json").stdout)
    assert found["total_parameters"] == found["active_parameters"] == 8_030_261_248
    assert found["cache_bytes_per_sequence"] == 131_072 * 32_768
    assert (found["context_tokens"], found["cache_dtype"], found["certain"]) == (32_768, "bfloat16", True)
    assert found["weight_bytes"]["baseline"]["16"] == 2 * 8_030_261_248
    assert found["weight_bytes"]["gptq"]["4"] < found["weight_bytes"]["gptq"]["8"]
    assert {row["method"] for row in found["variants"]} == set(found["weight_bytes"])


def test_a_table_per_set_of_gpus_with_verdicts(quantlab: Run) -> None:
    shown = quantlab(
        "plan",
        "llama-3.1-8b",
        "--gpu",
        "h100:2",
        "--gpu",
        "rtx-4090",
        "--methods",
        "gptq-4,baseline",
        "--batch",
        "8",
    ).stdout
    for part in (
        "2 × h100-sxm-80gb",
        "1 × rtx-4090",
        "gptq-4",
        "baseline-16",
        "fits +",
        "no −",
        "8,192 tokens",
    ):
        assert part in shown


def test_without_gpus_the_smallest_sets(quantlab: Run) -> None:
    result = quantlab("plan", "llama-3.1-70b", "--methods", "gptq-4")
    assert result.exit_code == 0
    assert "smallest sets" in result.stdout
    assert "1 × h100-sxm-80gb" in result.stdout


def test_a_name_that_no_release_bears_is_planned_with_a_warning(quantlab: Run) -> None:
    found = json.loads(quantlab("plan", "Qwen3.5-72B", "--gpu", "h100", "--json").stdout)
    assert found["total_parameters"] == 72 * 10**9
    assert found["certain"] is False
    assert found["cache_bytes_per_sequence"] is None
    assert any("qwen3.5-27b" in warning for warning in found["warnings"])


@pytest.mark.slow
def test_a_gguf_file_is_planned_from_its_header(here: Path, quantlab: Run) -> None:
    path = here / "tiny.gguf"
    path.write_bytes(
        gguf({"llama.block_count": 4, "llama.embedding_length": 64, "llama.feed_forward_length": 128})
    )
    found = json.loads(
        quantlab(
            "plan", "tiny.gguf", "--methods", "gguf-4", "--context", "100", "--policy", "exact", "--json"
        ).stdout
    )
    assert found["model"] == "tiny"
    assert found["cache_bytes_per_sequence"] == 2 * 2 * 16 * 4 * 100 * 2


def gguf(metadata: dict[str, int]) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    numbers = metadata | {
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.context_length": 256,
    }
    pairs = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    pairs += [text(key) + struct.pack("<II", 4, value) for key, value in numbers.items()]
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 64, 320, 1, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs) + tensor


@pytest.mark.parametrize("context", ["0", "-1", "10^15", "32x", "1.5", "", "9" * 30])
def test_contexts_that_are_none(context: str, refused: Callable[..., str]) -> None:
    assert "cannot be a context" in refused("plan", "llama-3.1-8b", f"--context={context}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a MODEL"),
        (("llama-3.1-8b", "--gpu", "h1000"), "h100"),
        (("llama-3.1-8b", "--gpu", "h100:0"), "h100:0"),
        (("llama-3.1-8b", "--gpu", "h100:-2"), "h100:-2"),
        (("llama-3.1-8b", "--batch", "0"), "batch"),
        (("llama-3.1-8b", "--methods", "gtpq"), "gptq"),
        (("llama-3.1-8b", "--cache-dtype", "int1"), "int8"),
        (("llama-3.1-8b", "--policy", "hope"), "exact"),
        (("deepseek-v3.5",), "deepseek-v3.2"),
        (("no/such-model",), "hub"),
        (("missing.json",), "missing.json"),
        (("--against", "missing"), "no records"),
    ],
)
def test_misuse_is_one_line(arguments: tuple[str, ...], said: str, refused: Callable[..., str]) -> None:
    assert said in refused("plan", *arguments)


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        "{}",
        "3",
        '{"hidden_size": 0}',
        '{"model_type": "llama"}',
        json.dumps(llama() | {"num_attention_heads": 0}),
        json.dumps(llama() | {"num_key_value_heads": 5}),
        json.dumps(llama() | {"hidden_size": -4096}),
        json.dumps(llama() | {"num_hidden_layers": 10**12}),
        json.dumps(llama() | {"vocab_size": "many"}),
    ],
)
def test_configs_that_are_none(content: str, here: Path, refused: Callable[..., str]) -> None:
    (here / "config.json").write_text(content)
    refused("plan", "config.json")


def test_a_damaged_gguf_is_refused(here: Path, refused: Callable[..., str]) -> None:
    (here / "cut.gguf").write_bytes(gguf({})[:60])
    assert "truncated or damaged" in refused("plan", "cut.gguf")


@pytest.mark.slow
def test_an_unknown_architecture_is_planned_and_never_certain(here: Path, quantlab: Run) -> None:
    (here / "config.json").write_text(json.dumps(llama() | {"model_type": "novel_net"}))
    found = json.loads(quantlab("plan", "config.json", "--json", "--methods", "gptq-4").stdout)
    assert found["certain"] is False
    assert any("novel_net" in doubt for doubt in found["doubts"])


def test_planning_imports_no_torch(config: Path) -> None:
    code = (
        f"import sys; from quantlab.cli import main\ntry: main(['plan', {str(config)!r}, '--gpu', 'h100:2',"
        " '--json'])\nexcept SystemExit as end: print([m for m in ('torch', 'transformers') if m in"
        " sys.modules], end.code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[] 0"


def test_predictions_stand_beside_measurements(quantlab: Run) -> None:
    found = json.loads(quantlab("plan", "--against", str(EXAMPLE), "--json").stdout)
    errors: dict[str, list[float]] = {}
    for row in found["rows"]:
        assert row["error"] == pytest.approx(row["predicted"] / row["measured"] - 1)
        errors.setdefault(row["quantity"], []).append(abs(row["error"]))
    assert set(errors) >= {"tensors", "all files", "resident weights", "cache", "peak"}
    assert max(errors["tensors"]) < 0.01
    assert max(errors["cache"]) < 0.01
    assert abs(found["largest_error"]["peak"]["error"]) == max(errors["peak"])
    shown = quantlab("plan", "--against", str(EXAMPLE)).stdout
    assert "largest error in peak" in shown
