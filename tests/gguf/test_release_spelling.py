"""llama.cpp's converter gets the release's fields, and a pre-tokenizer by its rules where it knows no hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, pre_tokenizers

from quantlab.errors import CellFailure
from quantlab.methods._gguf import clean_copy
from quantlab.methods._gguf.pre_tokenizer import name_by_rule
from quantlab.methods._gguf.spelling import as_released
from quantlab.models.tiny import families, write_tiny_model

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def rules(found: Any) -> dict[str, Any]:
    """The part of tokenizer.json that holds a pre-tokenizer."""
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = found
    return dict(json.loads(tokenizer.to_str()))


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), "gpt-2"),
        (pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES]), "llama-bpe"),
        (
            pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"), BYTES]
            ),
            "qwen2",
        ),
        (
            pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Digits(individual_digits=True),
                    pre_tokenizers.ByteLevel(add_prefix_space=False),
                ]
            ),
            "smollm",
        ),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), None),
        (pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\w+"), "isolated"), BYTES]), None),
        (pre_tokenizers.Whitespace(), None),
    ],
)
def test_a_pre_tokenizer_is_named_by_its_rules_or_not_at_all(steps: Any, name: str | None) -> None:
    assert name_by_rule(rules(steps)) == name


def test_a_tokenizer_without_a_pre_tokenizer_has_no_name() -> None:
    assert name_by_rule({}) is None and name_by_rule({"pre_tokenizer": None}) is None


def test_fields_that_transformers_folds_are_spelled_out_again(tmp_path: Path) -> None:
    config = saved_config("deepseek_v4", tmp_path)
    assert "compress_ratios" not in config and "num_hash_layers" not in config
    released = as_released(config)
    fields = families()["deepseek_v4"].fields
    assert released["compress_ratios"] == fields["compress_ratios"]
    assert released["num_hash_layers"] == fields["num_hash_layers"]
    assert released["qk_rope_head_dim"] == fields["qk_rope_head_dim"]


def test_layers_of_kimi_linear_are_counted_from_one(tmp_path: Path) -> None:
    released = as_released(saved_config("kimi_linear", tmp_path))
    expected = families()["kimi_linear"].fields["linear_attn_config"]
    assert released["linear_attn_config"] == expected and released["first_k_dense_replace"] == 1


def test_deepseek_v3_is_told_to_route_by_sigmoid(tmp_path: Path) -> None:
    """transformers drops the field, and llama.cpp then takes softmax: 0.59 nats from the model, without a
    word."""
    config = saved_config("deepseek_v3", tmp_path)
    assert "scoring_func" not in config and as_released(config)["scoring_func"] == "sigmoid"


def test_minimax_m2_is_told_to_route_by_sigmoid(tmp_path: Path) -> None:
    """Without the field llama.cpp knows no function of the scores and ends the process."""
    config = saved_config("minimax_m2", tmp_path)
    assert "scoring_func" not in config and as_released(config)["scoring_func"] == "sigmoid"


def test_hunyuan_has_a_number_for_each_layer() -> None:
    config = {"model_type": "hunyuan_v1_moe", "num_hidden_layers": 3, "intermediate_size": 96, "moe_topk": 2}
    released = as_released(config)
    assert released["moe_topk"] == [2, 2, 2] and released["num_shared_expert"] == [1, 1, 1]
    assert released["moe_intermediate_size"] == [96, 96, 96]
    assert as_released(config | {"moe_topk": [4, 4, 4]})["moe_topk"] == [4, 4, 4]


def test_layers_of_granite_have_the_release_s_names(tmp_path: Path) -> None:
    config = saved_config("granitemoehybrid", tmp_path)
    assert set(config["layer_types"]) == {"linear_attention", "full_attention"}
    assert as_released(config)["layer_types"] == ["mamba", "mamba", "attention", "mamba"]
    assert as_released(config | {"layer_types": ["mamba"]})["layer_types"] == ["mamba"]


@pytest.mark.parametrize("there", [True, False])
def test_hunyuan_reads_tokenizer_json_where_there_is_one(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    from quantlab.methods._gguf._convert import read_tokenizer_json

    class HunYuanMoEModel:
        dir_model, said = str(tmp_path), ""

        def set_vocab(self) -> None:
            self.said = "ranks"

        def _set_vocab_gpt2(self) -> None:
            self.said = "tokenizer.json"

    module = types.ModuleType("conversion.hunyuan")
    module.HunYuanMoEModel = HunYuanMoEModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "conversion", types.ModuleType("conversion"))
    monkeypatch.setitem(sys.modules, "conversion.hunyuan", module)
    if there:
        (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    read_tokenizer_json()
    model = HunYuanMoEModel()
    model.set_vocab()
    assert model.said == ("tokenizer.json" if there else "ranks")


def test_a_llama_4_model_of_other_chunks_is_refused(tmp_path: Path) -> None:
    config = saved_config("llama4_text", tmp_path)
    assert as_released(config) == config
    with pytest.raises(CellFailure, match="in chunks of 8,192 tokens"):
        as_released(config | {"attention_chunk_size": 64})
    with pytest.raises(CellFailure, match="are of 64"):
        as_released({"model_type": "llama4", "text_config": config | {"attention_chunk_size": 64}})


@pytest.mark.parametrize("scaled", [False, True], ids=["16 bits", "mxfp4"])
def test_experts_of_deepseek_v4_are_written_as_they_are_stored(
    scaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    import torch

    from quantlab.methods._gguf._convert import write_plain_experts

    class DeepseekV4Model:
        def _write_mxfp4_expert_tensor(self, layer: int, projection: str, key: Any) -> list[str]:
            return ["packed"]

    module = types.ModuleType("conversion.deepseek")
    module.DeepseekV4Model = DeepseekV4Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "conversion", types.ModuleType("conversion"))
    monkeypatch.setitem(sys.modules, "conversion.deepseek", module)
    write_plain_experts()
    model: Any = DeepseekV4Model()
    names = [f"layers.1.ffn.experts.{i}.w1.weight" for i in range(2)]
    model.hparams, model.ftype = {"n_routed_experts": 2}, types.SimpleNamespace(name="MOSTLY_F16")
    model.model_tensors = {name: lambda: torch.ones(4, 8, dtype=torch.bfloat16) for name in names}
    written: list[Any] = []
    model.gguf_writer = types.SimpleNamespace(add_tensor=lambda _, data: written.append(data))
    model.format_tensor_name = lambda key, layer: f"blk.{layer}.{key}"
    if scaled:
        model.model_tensors[names[0].replace("weight", "scale")] = None
        assert model._write_mxfp4_expert_tensor(1, "w1", "gate") == ["packed"] and not written
    else:
        assert model._write_mxfp4_expert_tensor(1, "w1", "gate") == names
        assert written[0].shape == (2, 4, 8) and written[0].dtype == "float16"


def test_a_field_that_is_there_stays_and_other_families_are_left_alone() -> None:
    assert as_released({"model_type": "gpt2", "n_positions": 64, "n_ctx": 32})["n_ctx"] == 32
    assert as_released({"model_type": "gpt2", "n_positions": 64})["n_ctx"] == 64
    assert as_released({"model_type": "llama"}) == {"model_type": "llama"}


def test_the_converter_is_given_the_release_s_config(tmp_path: Path) -> None:
    source = write_tiny_model("minimax_m2", tmp_path / "source")
    copy = clean_copy.clean_copy(source, tmp_path / "copy")
    assert json.loads((copy / "config.json").read_text())["rotary_dim"] == 32
    assert "rotary_dim" not in json.loads((source / "config.json").read_text())


def test_a_vocabulary_that_llama_cpp_splits_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantlab.models import dequantize, loading
    from quantlab.stages import convert
    from quantlab.workspace.prepared import Prepared

    monkeypatch.setattr(dequantize, "tokenization_differences", lambda *_: 3)
    monkeypatch.setattr(loading, "load_tokenizer", lambda *_: None)
    monkeypatch.setattr(convert, "embedded_passages", lambda _: ["a"] * 100)
    monkeypatch.setattr(Prepared, "weights", tmp_path)
    monkeypatch.setattr(Prepared, "source", lambda _: type("Source", (), {"trust_remote_code": False}))
    with pytest.raises(CellFailure, match="gpt-2, which has its rules, splits 3 of 100"):
        convert._require_same_tokens(Prepared(tmp_path, "m"), tmp_path / "f16.gguf", "gpt-2")


def saved_config(name: str, folder: Path) -> dict[str, Any]:
    """config.json of a tiny model as transformers saves it."""
    path = write_tiny_model(name, folder / name) / "config.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_mistral_4_is_named_as_the_converter_finds_it() -> None:
    said = as_released({"model_type": "mistral4", "architectures": ["Mistral4ForCausalLM"]})
    assert said["architectures"] == ["Ministral3ForCausalLM"]
    plain = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    assert as_released(plain)["architectures"] == ["LlamaForCausalLM"]
