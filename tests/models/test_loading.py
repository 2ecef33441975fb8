"""Every model, tokenizer and configuration is loaded in one place, which says whether its code is trusted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import quantlab
from quantlab.errors import CellFailure
from quantlab.models.loading import broken_checkpoint, load_model, only_trusted_code, wrong_tensors

PACKAGE = Path(quantlab.__file__).parent
LOADERS = ("from_pretrained", "from_config", "load_dataset", "LLM", "VLLM", "load")
PLACES = (
    "models/loading.py",
    "architecture/_meta_build.py",
    "evaluation/tasksets/hub.py",
    "models/tiny/__init__.py",
)
"""_meta_build.py and tiny/ build transformers' own classes from a configuration that is no folder's."""


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            owner = getattr(getattr(node.func, "value", None), "id", "")
            if name in LOADERS[:-1] or (name == "load" and owner == "GPTQModel"):
                yield node


def test_trust_is_said_at_every_load() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        for call in _calls(ast.parse(path.read_text(encoding="utf-8"))):
            said = any(keyword.arg == "trust_remote_code" for keyword in call.keywords)
            own = isinstance(call.func, ast.Attribute) and call.func.attr in (
                "from_pretrained",
                "from_config",
            )
            found.append(place)
            assert place in PLACES or (said and not own), (
                f"{place}:{call.lineno} loads past quantlab/models/loading.py"
            )
            assert said or place in PLACES[1:], (
                f"{place}:{call.lineno} does not say whether the folder's code is trusted"
            )
    assert (
        found.count("models/loading.py") == 4
        and "methods/_gptqmodel.py" in found
        and "apart/vllm_engine.py" in found
    )


def test_code_that_a_library_asks_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As GPTQModel and auto-round do in some families: transformers is called with trust, whatever was
    said."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, marker = tmp_path / "model", tmp_path / "marker"
    folder.mkdir()
    (folder / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Evil: ...\n"
    )
    with (
        pytest.raises(
            CellFailure, match=r"would run Evil of the model's own code \(evil\.py\), which is not trusted"
        ),
        only_trusted_code(False),
    ):
        dynamic_module_utils.get_class_from_dynamic_module("evil.Evil", str(folder))
    assert not marker.exists()
    with only_trusted_code(True):
        dynamic_module_utils.get_class_from_dynamic_module("evil.Evil", str(folder))
    assert marker.exists()


def test_what_is_wrong_is_said_in_words() -> None:
    info = {
        "missing_keys": {"d", "b", "a", "c"},
        "unexpected_keys": set(),
        "mismatched_keys": {("w", (2, 3), (4,))},
    }
    said = (
        "4 tensors are missing: a, b, c and 1 more; 1 tensors are of another shape: w is 2 × 3 in the files"
        " and 4 by config.json"
    )
    assert wrong_tensors(info) == said
    assert wrong_tensors({kind: set() for kind in info}) == ""


def test_an_expert_that_is_missing_is_a_broken_checkpoint(tmp_path: Path) -> None:
    """transformers merges experts while it loads, and cannot."""
    from safetensors.torch import load_file, save_file
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "vocab_size": 64,
    }
    MixtralForCausalLM(MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=4)).save_pretrained(
        tmp_path
    )
    load_model(tmp_path, False, broken_checkpoint)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.0.block_sparse_moe.experts.1.w1.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CellFailure, match="cannot be put together") as raised:
        load_model(tmp_path, False, broken_checkpoint)
    assert raised.value.kind == "broken_checkpoint"
