"""What a folder that is no whole model is refused with by `prepare`, in one line, before hours are spent on
it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from quantlab.errors import QuantlabError
from quantlab.files import write_text
from quantlab.progress import Progress
from quantlab.stages import prepare
from quantlab.workspace.prepared import Prepared

WORDS = tuple(f"w{n}" for n in range(60))
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 64,
}
TEXT = {"text": "text.txt", "windows": 1, "length": 16}
OTHER = TEXT | {"text": "other.txt"}
LM_HEAD, LAST_NORM = "lm_head.weight", "model.layers.1.input_layernorm.weight"


def _tokenizer(folder: Path, words: tuple[str, ...]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(("<unk>", *words))}, unk_token="<unk>")
    )
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>").save_pretrained(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with an untied head."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("source") / "tiny"
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(**SIZES, tie_word_embeddings=False, max_position_embeddings=32)
    ).save_pretrained(folder)
    _tokenizer(folder, WORDS)
    return folder


@pytest.fixture
def tiny(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "tiny")
    write_text(tmp_path / "root" / "text.txt", " ".join(WORDS * 4))
    write_text(tmp_path / "root" / "other.txt", " ".join(WORDS[::-1] * 4))
    return tmp_path / "tiny"


def run(folder: Path, **recipe: Any) -> None:
    root = folder.parent / "root"
    about = {
        "model": "tiny",
        "source": {"path": str(folder)},
        "calibration": TEXT,
        "evaluation": OTHER,
    } | recipe
    write_text(root / "recipes" / "tiny.yaml", yaml.safe_dump(about))
    prepare.run(root, "tiny", Progress(quiet=True))


def refused(folder: Path, match: str, **recipe: Any) -> None:
    with pytest.raises(QuantlabError, match=match) as raised:
        run(folder, **recipe)
    assert "\n" not in str(raised.value)
    assert not list((folder.parent / "root" / "models").glob("tiny/*/*.json"))


def configured(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_whole_model_passes(tiny: Path) -> None:
    run(tiny)


def test_a_tied_head_is_not_missing(tiny: Path) -> None:
    configured(tiny, tie_word_embeddings=True)
    changed(tiny, lambda tensors: tensors.pop(LM_HEAD))
    run(tiny)


def test_rotary_frequencies_of_old_releases_are_not_left_over(tiny: Path) -> None:
    changed(
        tiny, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    )
    run(tiny)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tensors: tensors.pop(LM_HEAD), r"1 tensors are missing: lm_head\.weight$"),
        (lambda tensors: tensors.pop(LAST_NORM), rf"1 tensors are missing: {LAST_NORM}$"),
        (lambda tensors: tensors.update(extra=torch.ones(2)), "1 tensors are left over: extra$"),
        (
            lambda tensors: tensors.update({LAST_NORM: torch.ones(8)}),
            rf"another shape: {LAST_NORM} is 8 in the files and 32 by config",
        ),
    ],
    ids=["untied head", "a norm", "left over", "shape"],
)
def test_tensors_that_are_not_the_models_are_named(tiny: Path, change: Any, match: str) -> None:
    changed(tiny, change)
    refused(tiny, match)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        (
            {"num_hidden_layers": 1},
            r"9 tensors are left over: model\.layers\.1\.input_layernorm\.weight, .* and 6 more$",
        ),
        ({"num_hidden_layers": 3}, r"9 tensors are missing: model\.layers\.2\."),
        (
            {"vocab_size": 62},
            (
                r"2 tensors are of another shape: lm_head\.weight is 64 × 32 in the files and 62 × 32 by"
                r" config\.json"
            ),
        ),
        ({"hidden_size": 16}, "tensors are of another shape"),
        ({"hidden_size": 33}, "transformers cannot"),
        ({"hidden_act": "nosuch"}, "nosuch"),
        ({"dtype": "nosuch"}, "says dtype 'nosuch', which no model runs in: use one of auto, float32"),
        ({"torch_dtype": "int8"}, "says torch_dtype 'int8', which no model runs in"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            r"weights are quantized \('gptq'\) and they are plain",
        ),
        ({"num_hidden_layers": "two"}, "transformers cannot read .*config.json"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_config_of_another_model_is_refused(tiny: Path, fields: dict[str, Any], match: str) -> None:
    configured(tiny, **fields)
    refused(tiny, match)


def test_a_stray_weights_file_beside_an_index_is_refused(tiny: Path) -> None:
    tensors = load_file(tiny / "model.safetensors")
    save_file(tensors, tiny / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    places = dict.fromkeys(tensors, "model-00001-of-00001.safetensors")
    (tiny / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    refused(tiny, r"has model\.safetensors beside model\.safetensors\.index\.json, which does not name it")
    (tiny / "model.safetensors").unlink()
    run(tiny)


def test_a_folder_without_tokenizer_is_refused(tiny: Path) -> None:
    (tiny / "tokenizer.json").unlink()
    refused(tiny, r"has no tokenizer \(tokenizer\.json, .*copy the files")


@pytest.mark.parametrize("text", ["{}", "[" * 100_000, "\0"], ids=["empty", "deep", "zero"])
def test_a_damaged_tokenizer_is_refused(tiny: Path, text: str) -> None:
    (tiny / "tokenizer.json").write_text(text)
    refused(tiny, "the tokenizer in .*tiny cannot be read: ")


def test_a_tokenizer_larger_than_the_embedding_is_refused(tiny: Path) -> None:
    _tokenizer(tiny, tuple(f"w{n}" for n in range(80)))
    refused(tiny, "the tokenizer of tiny gives ids up to 80 and the model's embedding has 64 rows")


def test_a_special_token_behind_the_embedding_does_no_harm(tiny: Path) -> None:
    path = tiny / "tokenizer.json"
    about = json.loads(path.read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    about["added_tokens"].append({"id": 64, "content": "<image>", "special": True} | flags)
    about["added_tokens"] += [{"id": n, "content": f"<{n}>", "special": True} | flags for n in (61, 62, 63)]
    about["added_tokens"].sort(key=lambda token: token["id"])
    path.write_text(json.dumps(about))
    run(tiny)


@pytest.mark.parametrize("name", ["evaluation", "calibration"])
def test_windows_longer_than_the_positions_are_refused(tiny: Path, name: str) -> None:
    configured(tiny, max_position_embeddings=16)
    run(tiny)
    shutil.rmtree(tiny.parent / "root" / "models")
    refused(
        tiny,
        f"{name}.length 64 of the recipe is more than the 16 positions of tiny",
        **{name: TEXT | {"length": 64}},
    )


def test_a_chat_template_that_is_not_there_is_refused(tiny: Path) -> None:
    with pytest.raises(
        QuantlabError, match=r"tasks\.chat_template is set and the tokenizer of tiny has no chat template"
    ):
        run(tiny, tasks={"chat_template": True})
    (tiny / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    run(tiny, tasks={"chat_template": True})


def test_an_empty_text_is_refused(tiny: Path) -> None:
    (tiny.parent / "root" / "text.txt").write_text("\n \n")
    with pytest.raises(QuantlabError, match=r"the calibration text .*text\.txt is empty"):
        run(tiny)


def test_a_text_that_is_calibrated_and_evaluated_on_is_refused(tiny: Path) -> None:
    with pytest.raises(
        QuantlabError, match=r"100% of the evaluation text's runs of 15 .*\(text\.txt, sha256 "
    ):
        run(tiny, evaluation=TEXT)


def test_tensors_that_the_class_ignores_are_named_and_not_counted(tiny: Path, monkeypatch: Any) -> None:
    """Such as the layers of DeepSeek V3 that predict further tokens."""
    from transformers import LlamaForCausalLM

    run(tiny)
    source = Prepared(tiny.parent / "root", "tiny").source
    counted = source().parameters
    monkeypatch.setattr(LlamaForCausalLM, "_keys_to_ignore_on_load_unexpected", [r"model\.layers\.9\."])
    path = tiny / "model.safetensors"
    save_file(load_file(path) | {"model.layers.9.up.weight": torch.ones(8, 8)}, path, {"format": "pt"})
    run(tiny)
    assert source().parameters == counted
    said = "1 tensors of its files are ignored and not counted: model.layers.9.up.weight."
    assert said in source().notes
