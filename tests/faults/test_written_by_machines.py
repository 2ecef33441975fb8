"""Files that other programs write, broken: configs, weights, GGUF files, what `probe` found, prompts,
records."""

from __future__ import annotations

import json
import struct

import pytest
from bounded import Attempt, assert_refused
from world import CONFIG, Content, World

BROKEN: dict[str, tuple[Content, str]] = {
    "a folder": (None, "is a folder|has no config.json|not found|neither"),
    "empty": ("", "is empty|is not JSON"),
    "blank": (" \n", "is empty|is not JSON"),
    "not UTF-8": (b'{"a": "\xff"}', "is not UTF-8|is not JSON"),
    "cut": ('{"a": ', "is not JSON"),
    "a list": ("[1]", "not hold a JSON object|holds no JSON object"),
    "null": ("null", "not hold a JSON object|holds no JSON object"),
    "deep lists": ('{"a": ' + "[" * 100_000, "more than 64 deep|nested too deeply"),
    "a NaN": ('{"hidden_size": NaN}', "JSON has no NaN|hidden_size is nan|lacks|no model_type"),
    "a power": ('{"hidden_size": 1e999}', "too large a number|hidden_size is inf|lacks|no model_type"),
    "words": ("hidden_size: 16", "is not JSON"),
    "a number": ("3", "not hold a JSON object|holds no JSON object"),
}
PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "a config to plan": ("tiny/config.json", ("plan", "./tiny")),
    "a config named": ("c.json", ("plan", "./c.json")),
    "a config to run": ("tiny/config.json", ("run", "./tiny", "--no-run", "--method", "gguf", "--bits", "4")),
    "the chosen device": ("env/device.json", ("measure", "--model", "tiny", "--variant", "gguf-4")),
    "prompts": ("p.jsonl", ("diff", "tiny", "gguf-4", "gguf-2", "--prompts", "p.jsonl")),
}
ONE_LINE = ("empty", "blank")
"""A file of prompts without a line says so itself."""
FILES = [(place, fault) for place in PLACES for fault in BROKEN if (place, fault) != ("prompts", "a folder")]


@pytest.mark.parametrize(
    ("place", "fault"),
    [pytest.param(*each, marks=[pytest.mark.quick] * (n % 3 == 0)) for n, each in enumerate(FILES)],
)
def test_a_broken_file_is_refused(world: World, tried: Attempt, place: str, fault: str) -> None:
    name, line = PLACES[place]
    content, said = BROKEN[fault]
    world.write({name: content, "checkpoints/tiny/x": ""})
    assert_refused(tried(*line), said)


def _with(**fields: object) -> dict[str, object]:
    return CONFIG | fields


CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "no layers": (_with(num_hidden_layers=0), "num_hidden_layers"),
    "half a layer": (_with(num_hidden_layers=1.5), "num_hidden_layers"),
    "10^9 layers": (_with(num_hidden_layers=10**9), "num_hidden_layers"),
    "layers true": (_with(num_hidden_layers=True), "num_hidden_layers"),
    "layers as text": (_with(num_hidden_layers="one"), "num_hidden_layers"),
    "a width of -1": (_with(hidden_size=-1), "hidden_size"),
    "a width of 10^30": (_with(hidden_size=10**30), "hidden_size"),
    "heads that do not divide": (
        _with(num_attention_heads=3, num_key_value_heads=2),
        "num_attention_heads 3",
    ),
    "more experts asked than there are": (
        _with(num_experts=2, num_experts_per_tok=3),
        "num_experts_per_tok 3",
    ),
}


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.quick] * (n % 3 == 0)) for n, name in enumerate(CONFIGS)]
)
def test_a_config_that_no_model_has_is_refused(world: World, tried: Attempt, fault: str) -> None:
    config, said = CONFIGS[fault]
    world.write({"tiny/config.json": config})
    assert_refused(tried("plan", "./tiny"), said)


def _gguf(body: bytes, tensors: int = 0, keys: int = 1, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + body


def _key(kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<I", kind) + value


GGUF = {
    "empty": b"",
    "the magic alone": b"GGUF",
    "other words": b"not a GGUF file at all",
    "version 1": _gguf(b"", version=1),
    "version 999": _gguf(b"", version=999),
    "cut in its keys": _gguf(_key(8, b"")),
    "2^63 keys": _gguf(b"", keys=2**63),
    "2^63 tensors": _gguf(b"", tensors=2**63, keys=0),
    "a string of 2^63": _gguf(_key(8, struct.pack("<Q", 2**63))),
    "an array of 2^63": _gguf(_key(9, struct.pack("<IQ", 4, 2**63))),
    "arrays in arrays": _gguf(_key(9, struct.pack("<IQ", 9, 1) * 5000)),
    "an unknown type": _gguf(_key(77, b"")),
    "no architecture": _gguf(b"", keys=0),
    "a name that is not UTF-8": _gguf(_key(8, struct.pack("<Q", 2) + b"\xff\xfe")),
}


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.quick] * (n % 3 == 0)) for n, name in enumerate(GGUF)]
)
def test_a_broken_gguf_file_is_refused(world: World, tried: Attempt, fault: str) -> None:
    world.write({"m.gguf": GGUF[fault]})
    assert_refused(tried("plan", "m.gguf"), "m.gguf|GGUF|config.json")
    assert_refused(tried("run", "m.gguf", "--no-run", "--method", "gguf", "--bits", "4"), "m.gguf|GGUF")


def _safetensors(header: object, data: bytes = b"\0" * 16, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def _tensor(**fields: object) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | fields}


WEIGHTS = {
    "empty": b"",
    "a length alone": struct.pack("<Q", 8),
    "a length of 2^63": _safetensors({}, length=2**63),
    "not JSON": _safetensors(b"x" * 16),
    "not UTF-8": _safetensors(b'{"\xff": 1}'),
    "deep lists": _safetensors(b"[" * 100_000),
    "a list": _safetensors([1]),
    "a tensor as a number": _safetensors({"a": 1}),
    "data cut off": _safetensors(_tensor(), data=b"\0" * 8),
    "data left over": _safetensors(_tensor(), data=b"\0" * 32),
}


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.quick] * (n % 3 == 0)) for n, name in enumerate(WEIGHTS)]
)
def test_broken_weights_are_refused(world: World, tried: Attempt, fault: str) -> None:
    world.write({"tiny/model.safetensors": WEIGHTS[fault]})
    assert_refused(tried("run", "./tiny", "--no-run", "--method", "gguf", "--bits", "4"), "model.safetensors")


RECORDS: dict[str, Content] = {
    "a folder": None,
    "empty": "",
    "not UTF-8": b"\xff\xfe",
    "cut": '{"model": ',
    "a list": "[]",
    "an unknown key": {"model": "tiny", "variant": "gguf-4", "nosuch": 1},
    "a word as a number": {"model": "tiny", "variant": "gguf-4", "seconds": "x"},
    "deep lists": "[" * 100_000,
}


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.quick] * (n % 3 == 0)) for n, name in enumerate(RECORDS)]
)
def test_a_broken_record_is_refused(world: World, tried: Attempt, fault: str) -> None:
    world.write({"reports/tiny/data/gguf-4/quantize.json": RECORDS[fault]})
    assert_refused(tried("show", "gguf-4"), "quantize.json")
