"""Known answers of the JSON reader: what it takes, and the one line with which it refuses the rest."""

import json

import pytest

from quantlab.errors import QuantlabError
from quantlab.parsing import DEEPEST, parse_json, parse_object, read_json, read_object

REFUSED = {
    "empty": ("", "f.json is empty, where JSON belongs"),
    "blank": (" \n", "f.json is empty"),
    "cut off": (
        '{"a": 1,\n"b": ',
        "f.json, line 2: it is not JSON: expecting value: mend it, or make it again",
    ),
    "words after it": ("{}\n{}", "f.json, line 2: it is not JSON: extra data"),
    "a repeated key": (
        '{"a": 1,\n "b": {"a": 2},\n "a": 3}',
        "f.json, line 3: the key 'a' stands twice in one object",
    ),
    "a repeated key, escaped": ('{"a": 1,\n "\\u0061": 3}', "f.json, line 2: the key 'a' stands twice"),
    "a key like a value": (
        '{"a": "b",\n "b": ["a", "a"],\n "b": 3}',
        "f.json, line 3: the key 'b' stands twice",
    ),
    "NaN": ('{"a": "NaN",\n "b": NaN}', "f.json, line 2: JSON has no NaN"),
    "infinity": ("[1,\n\n-Infinity]", "f.json, line 3: JSON has no -Infinity"),
    "a power": ('{"a": [1e308,\n 1e309]}', "f.json, line 2: 1e309 is too large a number"),
    "a long number": ("[0,\n1" + "0" * 400 + "]", "f.json, line 2: a number of 401 digits is too large"),
    "5,000 digits": ("1" * 5000, "f.json, line 1: a number of 5000 digits is too large"),
    "deep lists": (
        "\n" + "[" * 100_000,
        "f.json, line 2: lists and objects stand more than 64 deep in one another",
    ),
    "deep lists, closed": (
        "[" * 500 + "]" * 500,
        "f.json, line 1: lists and objects stand more than 64 deep",
    ),
    "deep objects": (
        '{"a":\n' * 200 + "1" + "}" * 200,
        "f.json, line 65: lists and objects stand more than 64 deep",
    ),
    "half a surrogate": ('{"a": "\\ud800"}', "f.json: it holds half of a surrogate pair"),
    "half a surrogate as a key": ('{"\\udfff": 1}', "f.json: it holds half of a surrogate pair"),
    "NUL": ('{"a": ["x\\u0000"]}', "f.json: it holds a text with a NUL character"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_said_with_its_line(text, said):
    with pytest.raises(QuantlabError) as error:
        parse_json(text, "f.json")
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, None, True, "x", -(10**30)], "b": {"a": 1}}, [], "x", 3, {"a": "\U0001f600"}]
)
def test_what_is_taken_is_what_was_written(value):
    assert parse_json(json.dumps(value), "f.json") == value
    assert parse_json(json.dumps(value).encode(), "f.json") == value


def test_the_deepest_nesting_is_taken():
    assert parse_json("[" * DEEPEST + "]" * DEEPEST, "f.json") is not None
    with pytest.raises(QuantlabError, match="more than 64 deep"):
        parse_json("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "f.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1]", "it begins with a list"), ("null", "it begins with null"), ("3", "it begins with 3")],
)
def test_what_is_no_object_is_refused_where_one_belongs(text, said):
    with pytest.raises(QuantlabError, match=said):
        parse_object(text, "f.json")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p.mkdir(), "is a folder, where a file belongs"),
        (lambda p: p.write_bytes(b'{"a":\n"\xe9"}'), "f.json, line 2: byte 0xe9 is not UTF-8"),
        (lambda p: p.write_text(" " * 200), "is too large: more than 100 bytes"),
        (lambda p: None, "there is no file"),
        (lambda p: p.write_text("[]"), "holds no JSON object"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, make, said):
    make(tmp_path / "f.json")
    with pytest.raises(QuantlabError, match=said):
        read_object(tmp_path / "f.json", most_bytes=100)


def test_a_large_index_is_read_in_little_time(tmp_path):
    weights = {
        f"model.layers.{n}.mlp.experts.{m}.weight": f"model-{n:05}.safetensors"
        for n in range(100)
        for m in range(500)
    }
    (tmp_path / "f.json").write_text(json.dumps({"weight_map": weights}))
    assert read_json(tmp_path / "f.json") == {"weight_map": weights}
