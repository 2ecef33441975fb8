"""Run llama.cpp's converter in this process, without network: `python -P -m quantlab.methods._gguf._convert
SCRIPT FOLDER ARGUMENTS...`.

Where it does not know the vocabulary's pre-tokenizer, the name is taken by its rules (pre_tokenizer.py) and
printed."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path
from typing import Any

from quantlab.methods._gguf._confined import cut_network
from quantlab.methods._gguf.pre_tokenizer import UNKNOWN, name_by_rule

BY_RULE = "quantlab: pre-tokenizer by its rules: "
"""What is printed before the name."""


def name_pre_tokenizers_by_rule() -> None:
    """Have the converter ask for the rules where it does not know the vocabulary."""
    try:
        model: Any = importlib.import_module("conversion.base").TextModel
    except ModuleNotFoundError:  # a llama.cpp of another time has another layout: its own error stands
        return
    known = model.get_vocab_base_pre

    def named(self: Any, tokenizer: Any) -> str:
        try:
            return str(known(self, tokenizer))
        except NotImplementedError as error:
            path = Path(self.dir_model) / "tokenizer.json"
            if UNKNOWN not in str(error) or not path.is_file():
                raise
            name = name_by_rule(json.loads(path.read_text(encoding="utf-8")))
            if name is None:
                raise
            print(f"{BY_RULE}{name}", flush=True)
            return name

    model.get_vocab_base_pre = named


def write_plain_experts() -> None:
    """Have the converter write DeepSeek V4's experts in F16, or F32 where F16 was not asked for, if they are
    not in MXFP4 as released."""
    try:
        kind: Any = importlib.import_module("conversion.deepseek").DeepseekV4Model
    except (ModuleNotFoundError, AttributeError):
        return
    packed = kind._write_mxfp4_expert_tensor

    def written(self: Any, layer: int, projection: str, key: Any) -> list[str]:
        experts = range(self.hparams["n_routed_experts"])
        names = [f"layers.{layer}.ffn.experts.{expert}.{projection}.weight" for expert in experts]
        if any(name.removesuffix("weight") + "scale" in self.model_tensors for name in names):
            return list(packed(self, layer, projection, key))
        import numpy as np

        parts = [self.model_tensors[name]() for name in names]
        eager = [getattr(type(part), "to_eager", lambda value: value)(part) for part in parts]
        kept = np.float16 if self.ftype.name == "MOSTLY_F16" else np.float32
        stacked = np.stack([part.float().cpu().numpy() for part in eager]).astype(kept)
        self.gguf_writer.add_tensor(self.format_tensor_name(key, layer), stacked)
        return names

    kind._write_mxfp4_expert_tensor = written


def read_tokenizer_json() -> None:
    """Have the converter read Hunyuan's vocabulary from tokenizer.json where there is one: it asks for a
    table of ranks, which only the release's own code makes of its tiktoken file."""
    try:
        kind: Any = importlib.import_module("conversion.hunyuan").HunYuanMoEModel
    except (ModuleNotFoundError, AttributeError):
        return
    by_ranks = kind.set_vocab

    def read(self: Any) -> None:
        if (Path(self.dir_model) / "tokenizer.json").is_file():
            self._set_vocab_gpt2()
        else:
            by_ranks(self)

    kind.set_vocab = read


if __name__ == "__main__":
    cut_network()
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    name_pre_tokenizers_by_rule()
    write_plain_experts()
    read_tokenizer_json()
    runpy.run_path(sys.argv[0], run_name="__main__")
