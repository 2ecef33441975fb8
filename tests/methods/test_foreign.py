"""Somebody else's checkpoint is known by what it says of itself, and named by its contents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from quantlab.errors import CellFailure, QuantlabError
from quantlab.methods._foreign import identify, require_same_layers, require_same_tokenizer, sample


def _checkpoint(folder: Path, config: dict[str, Any] | None, value: float = 0.0) -> Path:
    folder.mkdir(exist_ok=True)
    full = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]} | (
        {"quantization_config": config} if config else {}
    )
    (folder / "config.json").write_text(json.dumps(full))
    stored = {"a.weight": torch.full((4, 4), value)} | (
        {"b.qweight": torch.zeros(4, 4, dtype=torch.int32)} if config else {}
    )
    save_file(stored, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("config", "method", "bits"),
    [
        ({"quant_method": "gptq", "bits": 3}, "gptq", 3),
        ({"quant_method": "awq", "bits": 4, "version": "gemm"}, "awq", 4),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes", 8),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 4),
        ({"quant_method": "auto-round", "bits": 2}, "autoround", 2),
        ({"quant_method": "fp8"}, "fp8", 8),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 8}}}},
            "compressed_tensors",
            8,
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt", 4),
        ({"quant_method": "mxfp4"}, "mxfp4", 4),
    ],
)
def test_methods_and_widths(config: dict[str, Any], method: str, bits: int, tmp_path: Path) -> None:
    found = identify(_checkpoint(tmp_path / "c", config))
    assert (found.method, found.bits) == (method, bits) and found.external


def test_the_name_is_of_the_contents(tmp_path: Path) -> None:
    config = {"quant_method": "gptq", "bits": 4}
    first, same, other = (
        _checkpoint(tmp_path / name, config, value) for name, value in (("a", 0.0), ("b", 0.0), ("c", 1.0))
    )
    assert identify(first) == identify(same) != identify(other)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "is not quantized"),
        ({"quant_method": "hqq", "bits": 4}, "unknown quantization format 'hqq'"),
        ({"quant_method": "gptq", "bits": 7}, "says 7 bits of gptq: known are 8, 4, 3, 2"),
        ({"quant_method": "gptq", "bits": "four"}, "says four bits of gptq: known are 8, 4, 3, 2"),
        ({"quant_method": "awq", "bits": [4]}, "says .* bits of awq: known are 1, 2, 3, 4, 5, .*, 16$"),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_refused(
    config: dict[str, Any] | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(QuantlabError, match=said):
        identify(_checkpoint(tmp_path / "c", config))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quant_method": "compressed-tensors", "format": "marlin-24"}, "its format marlin-24 is not read"),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "dense",
                "sparsity_config": {"format": "sparse-24-bitmask"},
            },
            "stored sparsely .sparse-24-bitmask.",
        ),
        *(
            (
                {
                    "quant_method": "compressed-tensors",
                    "format": "pack-quantized",
                    "config_groups": {"group_0": {"weights": {"num_bits": 4, "actorder": order}}},
                },
                "in groups of an order of their own .actorder group, weight_g_idx.",
            )
            for order in ("group", "dynamic", True)
        ),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "it says W4A8_AWQ, which quantlab does not"),
        ({"quant_method": "modelopt"}, "it says no quant_algo"),
        ({"quant_method": "fbgemm_fp8"}, "unknown quantization format 'fbgemm_fp8'"),
        (
            {"quant_method": "hqq"},
            "unknown quantization format 'hqq': known are .*modelopt",
        ),
    ],
)
def test_a_published_format_that_cannot_be_measured_is_refused_by_name(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(QuantlabError, match=said):
        identify(_checkpoint(tmp_path / "c", config))


@pytest.mark.parametrize("order", [None, False, "weight", "static"])
def test_an_order_of_columns_that_ends_with_the_calibration_is_read(order: object, tmp_path: Path) -> None:
    weights = {"num_bits": 4, "actorder": order}
    config = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}
    assert identify(_checkpoint(tmp_path / "c", config)).bits == 4


def _layered(folder: Path, says: int, stored: range, prefix: str = "model.layers") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": says}))
    save_file(
        {f"{prefix}.{n}.mlp.up_proj.weight": torch.zeros(2, 2) for n in stored}, folder / "model.safetensors"
    )
    return folder


@pytest.mark.parametrize(
    ("says", "stored", "said"),
    [
        (
            1,
            range(2),
            r"says 1 layers, the model has 2, and its weights hold model.layers.1.mlp.up_proj.weight",
        ),
        (1, range(1), r"says 1 layers, the model has 2: it is not"),
        (3, range(3), r"says 3 layers, the model has 2: it is not"),
        (2, range(1), r"its weights lack layer 1 of the model's 2"),
    ],
)
def test_a_checkpoint_that_would_run_with_other_layers_is_refused(
    says: int, stored: range, said: str, tmp_path: Path
) -> None:
    source = _layered(tmp_path / "source", 2, range(2))
    with pytest.raises(CellFailure, match=said):
        require_same_layers(_layered(tmp_path / "theirs", says, stored), source)


def test_the_models_own_layers_and_those_beyond_that_predict_are_taken(tmp_path: Path) -> None:
    source = _layered(tmp_path / "source", 2, range(2))
    for number, prefix in enumerate(("model.layers", "model.language_model.layers", "transformer.h")):
        require_same_layers(_layered(tmp_path / str(number), 2, range(2), prefix), source)
    require_same_layers(_layered(tmp_path / "mtp", 2, range(3)), source)


WORDS = ("a", "cat", "sat", "on", "the", "mat")
PASSAGES = ["a cat sat", "on the mat", "the cat"]


def _tokenizer(folder: Path, words: tuple[str, ...]) -> Any:
    """Letters and words, as Llama 2's vocabulary spells them: every vocabulary here has the same size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(
        models.WordLevel({"<unk>": 0} | {f"▁{word}": i for i, word in enumerate(words, 1)}, unk_token="<unk>")
    )
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    made.save_pretrained(folder)
    return made


def _gguf(path: Path, words: tuple[str, ...]) -> Path:
    from gguf import GGUFWriter, TokenType

    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", *(f"▁{word}" for word in words)])
    writer.add_token_scores([0.0] * (len(words) + 1))
    writer.add_token_types([TokenType.UNKNOWN] + [TokenType.NORMAL] * len(words))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_models_own_tokenizer_passes_and_none_is_said(tmp_path: Path) -> None:
    own = _tokenizer(tmp_path / "own", WORDS)
    assert require_same_tokenizer(tmp_path / "own", own, PASSAGES) == ()
    assert (
        "brings no tokenizer"
        in require_same_tokenizer(_checkpoint(tmp_path / "none", None), own, PASSAGES)[0]
    )


def test_another_tokenizer_of_the_same_size_is_refused(tmp_path: Path) -> None:
    own = _tokenizer(tmp_path / "own", WORDS)
    other = _tokenizer(tmp_path / "other", ("a", "cat", "sat", "mat", "on", "the"))
    assert len(other) == len(own)
    with pytest.raises(CellFailure, match="gives other token ids than the model's for 2 of 3 passages"):
        require_same_tokenizer(tmp_path / "other", own, PASSAGES)
    (tmp_path / "other" / "tokenizer.json").write_text("{}")
    with pytest.raises(CellFailure, match=r"tokenizer in .* cannot be read"):
        require_same_tokenizer(tmp_path / "other", own, PASSAGES)


@pytest.mark.parametrize(
    ("words", "differing"),
    [(WORDS, 0), (("a", "cat", "sat", "mat", "on", "the"), 2), (("a", "cat", "sat", "on", "the"), 1)],
)
def test_a_gguf_vocabulary_must_spell_the_text(
    words: tuple[str, ...], differing: int, tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp")
    own = _tokenizer(tmp_path / "own", WORDS)
    path = _gguf(tmp_path / "vocabulary.gguf", words)
    if not differing:
        assert require_same_tokenizer(path, own, PASSAGES) == ()
        return
    with pytest.raises(
        CellFailure, match=f"reads other text in the model's token ids for {differing} of 3 passages"
    ):
        require_same_tokenizer(path, own, PASSAGES)


def test_the_sample_is_short_paragraphs_of_the_text() -> None:
    assert sample(["one\n\ntwo", "", "x" * 9000]) == ["one", "two", "x" * 4000]
    assert len(sample(["\n\n".join("abcdefgh" * 100)])) == 300
