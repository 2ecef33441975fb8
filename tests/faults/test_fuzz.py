"""Every parser on whatever comes: it gives a value, or refuses in one line; the same examples each time."""

from __future__ import annotations

import json
import math
import string
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from world import CONFIG, RECIPE

from quantlab.architecture.gguf_model import read_gguf
from quantlab.architecture.shape import read_architecture
from quantlab.catalogue.gpu import parse_gpus
from quantlab.endpoint import address
from quantlab.endpoint.streams import JsonLines, Malformed, ServerSentEvents
from quantlab.errors import CellFailure, QuantlabError
from quantlab.formats.safetensors import check_weights
from quantlab.hardware.device import parse_places
from quantlab.names import check_model_name, model_slug, parse_variant
from quantlab.parsing import as_path, parse_json, parse_yaml
from quantlab.parsing.amounts import parse_bytes, parse_tokens
from quantlab.parsing.sizes import parse_context
from quantlab.recipe import parse_recipe
from quantlab.records import STAGES
from quantlab.workspace.results import read_record

FUZZ = settings(
    derandomize=True, database=None, deadline=None, max_examples=150, suppress_health_check=list(HealthCheck)
)
NUMBERS = some.one_of(some.integers(), some.floats(), some.sampled_from([0, -1, 2**31, 2**63, 10**40, 1e308]))
SCALARS = some.one_of(some.none(), some.booleans(), NUMBERS, some.text(max_size=20), some.just("x" * 300))
VALUES = some.recursive(
    SCALARS,
    lambda inner: some.one_of(
        some.lists(inner, max_size=4), some.dictionaries(some.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
TEXTS = some.one_of(
    some.text(max_size=60), some.text("0123456789.kKmMgGbBiItT:x-+eE ,_~\0\u0663\n", max_size=30)
)
PIECES = some.lists(
    some.sampled_from(["[", "]", "{", "}", ",", ":", '"', "a", "- ", "? ", "&a ", "*a", "<<: ", "!!int ", "\n", "  ", "\t", "1e999", "NaN", ".inf", "#", "|\n", "\\ud800", "\0", "é", "---\n", "~"]),
    max_size=40,
).map("".join)  # fmt: skip


def _one_line(function: Callable[[], Any], *more: type[Exception]) -> Any:
    """The value, None where it was refused as a person can read it."""
    try:
        return function()
    except (QuantlabError, CellFailure, *more) as error:
        assert "\n" not in str(error) and str(error).strip()
        return None


def _mutated(base: dict[str, Any]) -> some.SearchStrategy[dict[str, Any]]:
    """A value with one or more of its keys, or of those one level below, replaced."""
    keys = [(key,) for key in base] + [
        (key, inner) for key, value in base.items() if isinstance(value, dict) for inner in value
    ]

    def changed(changes: list[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
        found = json.loads(json.dumps(base))
        for (*outer, last), value in changes:
            place = found[outer[0]] if outer else found
            if isinstance(place, dict):
                place[last] = value
        return found

    return some.lists(some.tuples(some.sampled_from(keys), VALUES), min_size=1, max_size=3).map(changed)


@pytest.mark.quick
@FUZZ
@given(
    some.one_of(
        PIECES,
        some.text(max_size=80),
        VALUES.map(repr),
        some.integers(1, 400).map(lambda n: "[" * n + "]" * n),
    )
)
def test_yaml(text: str) -> None:
    found = _one_line(lambda: parse_yaml(text, "f.yaml"))
    assert not _has_nonsense(found)


@pytest.mark.quick
@FUZZ
@given(
    some.one_of(
        PIECES, some.text(max_size=80), VALUES.map(json.dumps), some.integers(1, 2000).map(lambda n: "[" * n)
    )
)
def test_json(text: str) -> None:
    found = _one_line(lambda: parse_json(text, "f.json"))
    assert not _has_nonsense(found)


@FUZZ
@given(some.binary(max_size=60))
def test_bytes_as_json(raw: bytes) -> None:
    _one_line(lambda: parse_json(raw, "f.json"))


@FUZZ
@given(VALUES)
def test_what_the_readers_take_is_what_was_written(value: Any) -> None:
    for found in (
        _one_line(lambda: parse_json(json.dumps(value), "f.json")),
        _one_line(lambda: parse_yaml(yaml.safe_dump(value), "f.yaml")),
    ):
        assert found is None or found == value


def _has_nonsense(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, str):
        return "\0" in value or any(0xD800 <= ord(c) < 0xE000 for c in value)
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_has_nonsense(each) for each in inner)


FULL = RECIPE | {
    "tasks": {"set": "embedded", "names": ["piqa"], "items": 5, "fewshot": 0, "filters": {}, "batch_size": 1},
    "measure": {
        "prompt_tokens": 8,
        "decode_tokens": 8,
        "repeats": 1,
        "batch": [1],
        "context": [0],
        "price_per_device_hour": 1.0,
    },
    "evaluation": {"text": "embedded", "windows": 2, "length": 16},
    "reference": {"dtype": "auto"},
    "comparison": {"margin_points": 1.0},
    "seed": 1,
    "engine": None,
}


@pytest.mark.quick
@FUZZ
@given(_mutated(FULL))
def test_recipes(data: dict[str, Any]) -> None:
    _one_line(lambda: parse_recipe(data, "r.yaml"))


@FUZZ
@given(_mutated(CONFIG))
def test_configs(data: dict[str, Any]) -> None:
    _one_line(lambda: read_architecture(data))


PARSERS: dict[str, Callable[[str], Any]] = {
    "contexts": parse_context,
    "tokens": parse_tokens,
    "memory": parse_bytes,
    "GPUs": parse_gpus,
    "places": parse_places,
    "variants": parse_variant,
    "models": check_model_name,
    "slugs": model_slug,
    "paths": as_path,
    "addresses": address.parse,
}


@pytest.mark.quick
@pytest.mark.parametrize("name", PARSERS)
def test_names_and_amounts(name: str) -> None:
    @FUZZ
    @given(some.one_of(TEXTS, some.text(string.printable, max_size=400)))
    def tried(text: str) -> None:
        _one_line(lambda: PARSERS[name](text))

    tried()


HEADER = {
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "F16", "shape": [2], "data_offsets": [16, 20]},
}


@FUZZ
@given(
    some.one_of(_mutated(HEADER).map(json.dumps), PIECES, some.integers(1, 3000).map(lambda n: "[" * n)),
    some.integers(-20, 20),
    some.binary(max_size=30),
)
def test_safetensors(folder: Path, header: str, more: int, data: bytes) -> None:
    raw = header.encode("utf-8", "surrogatepass")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", max(0, len(raw) + more)) + raw + data)
    _one_line(lambda: check_weights(folder))


@FUZZ
@given(some.integers(0, 2**63), some.integers(0, 2**63), some.binary(max_size=200), some.integers(0, 400))
def test_gguf_headers(folder: Path, tensors: int, keys: int, rest: bytes, arrays: int) -> None:
    nested = struct.pack("<Q", 1) + b"k" + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * arrays
    path = folder / "model.gguf"
    for body in (rest, nested + rest):
        path.write_bytes(
            b"GGUF"
            + struct.pack("<IQQ", 3, tensors % (len(rest) + 1) if arrays % 2 else tensors, keys)
            + body
        )
        _one_line(lambda: read_gguf(path))


@pytest.mark.parametrize("stage", STAGES)
def test_records(folder: Path, stage: Any) -> None:
    base = json.loads(STAGES[stage].record(model="m", variant="gguf-4").model_dump_json())

    @FUZZ
    @given(some.one_of(_mutated(base).map(json.dumps), PIECES))
    def tried(text: str) -> None:
        (folder / "r.json").write_text(text, encoding="utf-8", errors="replace")
        _one_line(lambda: read_record(folder / "r.json", STAGES[stage].record))

    tried()


@pytest.mark.quick
@pytest.mark.parametrize("decoder", [ServerSentEvents, JsonLines])
def test_streams(decoder: Any) -> None:
    lines = some.one_of(
        some.binary(max_size=40),
        VALUES.map(lambda v: b"data: " + json.dumps(v).encode()),
        some.sampled_from([b"data: [DONE]", b"", b": x"]),
    )

    @FUZZ
    @given(some.lists(lines, max_size=8).map(b"\n".join), some.integers(1, 20))
    def tried(raw: bytes, size: int) -> None:
        made = decoder()
        _one_line(
            lambda: [list(made.feed(raw[n : n + size])) for n in range(0, len(raw), size)] + list(made.end()),
            Malformed,
        )

    tried()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
