"""Join the parts of a split GGUF file into one file, as llama.cpp's gguf-split does."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from quantlab.engines._llama.library import assign
from quantlab.errors import QuantlabError
from quantlab.formats.llama_log import llama, messages


def join(first: Path, target: Path) -> None:
    """Write the model whose first part is `first` to one file; tensors are copied byte for byte.

    Raises QuantlabError with llama.cpp's reason where it cannot read the parts."""
    api = llama()
    parameters = api.llama_model_quantize_default_params()
    assign(parameters, only_copy=True)
    with messages() as said:
        code = api.llama_model_quantize(os.fsencode(first), os.fsencode(target), ctypes.byref(parameters))
    if code or not target.is_file():
        why = said.reason(f"code {code}", last=True)
        raise QuantlabError(f"llama.cpp cannot join the parts of {first.name}: {why}; download them again")
