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
            print(BY_RULE + name, flush=True)
            return name

    model.get_vocab_base_pre = named


if __name__ == "__main__":
    cut_network()
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    name_pre_tokenizers_by_rule()
    runpy.run_path(sys.argv[0], run_name="__main__")
