"""Names of file types, the method's settings, and what llama.cpp says."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantlab.errors import CellFailure, QuantlabError
from quantlab.formats.gguf_types import FILE_TYPES, NEED_IMPORTANCE, file_type
from quantlab.formats.llama_log import Messages
from quantlab.methods import gguf, settings_of
from quantlab.methods._gguf import converter
from quantlab.names import parse_variant


def test_the_types_are_those_of_the_installed_library() -> None:
    llama_cpp = pytest.importorskip("llama_cpp.llama_cpp")
    constants = {
        name.removeprefix("LLAMA_FTYPE_").partition("_")[2]
        for name in dir(llama_cpp)
        if name.startswith("LLAMA_FTYPE_")
    }
    assert set(FILE_TYPES) == constants - {""}
    assert set(NEED_IMPORTANCE) < set(FILE_TYPES)


def test_a_type_is_named_in_any_case() -> None:
    assert file_type("iq4_xs") == "IQ4_XS"
    assert gguf.Settings(type="q4_k_m").type == "Q4_K_M"


def test_an_unknown_type_is_refused_with_the_valid_ones_nearest_first() -> None:
    with pytest.raises(QuantlabError, match=r"unknown GGUF type 'Q4_K_L': known are Q4_K_S|Q4_K_M"):
        file_type("Q4_K_L")
    with pytest.raises(QuantlabError, match="Q4_K_M"):
        settings_of(parse_variant("gguf-4"), {"type": "Q4_K_L"})


def test_a_type_that_needs_an_importance_matrix_cannot_be_made_without() -> None:
    with pytest.raises(QuantlabError, match="IQ2_XS needs an importance matrix"):
        settings_of(parse_variant("gguf-2"), {"type": "IQ2_XS", "imatrix": False})


def test_every_width_has_a_type() -> None:
    assert set(gguf.METHOD.bits) == set(gguf.TYPES) and set(gguf.TYPES.values()) <= set(FILE_TYPES)


def test_messages_give_the_reason_and_add_up_buffers() -> None:
    said = Messages()
    said.add(2, "load_tensors:   CPU_Mapped model buffer size =    10.00 MiB\n")
    said.add(2, "load_tensors:   CPU_REPACK model buffer size =     2.50 MiB\n")
    said.add(4, "llama_model_load: error loading model: ")
    said.add(5, "tensor is missing\n")
    assert said.mebibytes("model buffer") == int(12.5 * 2**20)
    assert said.mebibytes(r"\w*REPACK model buffer") == int(2.5 * 2**20)
    assert said.reason("none") == "tensor is missing"
    assert Messages().reason("none") == "none"


def test_a_checkout_without_the_converter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTLAB_LLAMA_CPP", str(tmp_path))
    with pytest.raises(QuantlabError, match=r"has no convert_hf_to_gguf\.py"):
        converter.llama_cpp_source()


@pytest.mark.parametrize(
    "says", ["ERROR:hf-to-gguf:Model XForCausalLM is not supported", "ValueError: no tokenizer"]
)
def test_what_the_converter_cannot_do_is_said_in_its_words(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / converter.SCRIPT).write_text(f"import sys; sys.exit({says!r})")
    monkeypatch.setenv("QUANTLAB_LLAMA_CPP", str(tmp_path))
    with pytest.raises(CellFailure, match=says.removeprefix("ERROR:hf-to-gguf:")) as raised:
        converter.convert(tmp_path, tmp_path / "out" / "f16.gguf", tmp_path / "log.txt")
    assert raised.value.kind == "unsupported" and not list((tmp_path / "out").iterdir())
    assert says in (tmp_path / "log.txt").read_text()
