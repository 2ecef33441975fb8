"""Weight files are checked by their headers, before anything is loaded."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from quantlab.errors import QuantlabError
from quantlab.models import check_folder, check_weights, parameters, weight_files


def refused(folder: Path, match: str) -> None:
    with pytest.raises(QuantlabError, match=match) as raised:
        check_weights(folder)
    assert "\n" not in str(raised.value)


def test_a_whole_model_passes_and_its_parameters_are_counted(model: Path) -> None:
    check_weights(model)
    assert parameters(model) == 2 * 4 + 3 * 4 + 4


def test_shards_count_as_one_model(sharded: Path) -> None:
    check_weights(sharded)
    assert parameters(sharded) == 24


def test_files_beside_the_model_are_not_its_weights(model: Path) -> None:
    (model / "consolidated.safetensors").write_bytes(b"another copy")
    assert [path.name for path in weight_files(model)] == ["model.safetensors"]
    check_weights(model)


def _cut(path: Path, keep: Callable[[int], int]) -> None:
    path.write_bytes(path.read_bytes()[: keep(path.stat().st_size)])


@pytest.mark.parametrize(
    "keep",
    [lambda size: 0, lambda size: 5, lambda size: 40, lambda size: size - 1, lambda size: size - 50],
    ids=["empty", "no length", "in the header", "last byte", "in the data"],
)
def test_a_truncated_file_is_refused(model: Path, keep: Callable[[int], int]) -> None:
    _cut(model / "model.safetensors", keep)
    refused(model, "truncated")


def test_bytes_after_the_data_are_refused(model: Path) -> None:
    with (model / "model.safetensors").open("ab") as file:
        file.write(b"x")
    refused(model, "truncated or not safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[1, 2]",
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "X9", "shape": [-1], "data_offsets": [0, 4]}}',
        (
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape":'
            b' [1], "data_offsets": [0, 4]}}'
        ),
        (
            b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "b": {"dtype": "U8", "shape": [2],'
            b' "data_offsets": [2, 4]}}'
        ),
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [' + b"9" * 4000 + b'], "data_offsets": [0, 4]}}',
        b'{"a":' * 100_000,
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=[
        *(
            "no JSON",
            "a list",
            "no tensor",
            "wrong size",
            "backwards",
            "negative",
            "a fraction",
            "a boolean",
            "negative of no type",
        ),
        *(
            "overlapping",
            "a hole",
            "out of range",
            "too many digits",
            "astronomic",
            "deep objects",
            "deep lists",
        ),
    ],
)
def test_a_malformed_header_is_refused(model: Path, header: bytes) -> None:
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    refused(model, "header does not make sense")


def test_an_announced_header_larger_than_the_file_is_refused(model: Path) -> None:
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    refused(model, "do not hold the header")


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    refused(sharded, "model-00002-of-00002.safetensors, which is not there")


def test_a_tensor_that_its_shard_lacks_is_named(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    found = json.loads(index.read_text())
    found["weight_map"]["d"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(found))
    refused(sharded, "places d in it")


def test_an_index_that_leads_out_of_the_folder_is_refused(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../other.safetensors"}})
    )
    refused(sharded, "not a file beside it")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{}", "damaged"),
        ("[]", "does not hold a JSON object"),
        ("no", "is not JSON"),
        ('{"weight_map": 3}', "damaged"),
        ('{"weight_map": {"a": 3}}', "damaged"),
    ],
)
def test_a_damaged_index_is_refused(sharded: Path, text: str, match: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(text)
    refused(sharded, match)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickle_is_refused_and_how_to_convert_it_is_said(model: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(b"\x80\x04")
    refused(model, "only as pickle .*save_pretrained")


def test_pickle_beside_safetensors_is_left_alone(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04")
    check_weights(model)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ((), "has no weights"),
        (("training_args.bin",), "has no weights"),
        (("m.gguf",), "name the GGUF"),
        (("w.safetensors",), "nor model.safetensors.index"),
    ],
    ids=["nothing", "only a trainer's file", "a GGUF", "another name"],
)
def test_a_folder_without_the_models_safetensors_is_refused(
    model: Path, names: tuple[str, ...], match: str
) -> None:
    (model / "model.safetensors").unlink()
    for name in names:
        (model / name).write_bytes(b"")
    refused(model, match)


def test_a_folder_without_a_config_is_refused(model: Path) -> None:
    (model / "config.json").unlink()
    with pytest.raises(QuantlabError, match=r"no config\.json"):
        check_folder(model)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuantlabError, match="does not exist"):
        check_folder(tmp_path / "nothing")


def test_a_tensor_in_two_files_is_refused(sharded: Path) -> None:
    save_file(
        {"b": np.zeros((3, 4), np.float16), "c": np.zeros(4), "a": np.zeros(2)},
        sharded / "model-00002-of-00002.safetensors",
    )
    refused(
        sharded,
        "holds the tensor a twice, in model-00001-of-00002.safetensors and model-00002-of-00002.safetensors",
    )


def test_a_stray_file_beside_an_index_is_refused(sharded: Path) -> None:
    save_file({"a": np.zeros(2)}, sharded / "model.safetensors")
    refused(sharded, "has model.safetensors beside model.safetensors.index.json, which does not name it")


def test_an_index_that_is_nested_too_deeply_is_refused(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text('{"weight_map":' * 100_000)
    refused(sharded, "nested too deeply")
