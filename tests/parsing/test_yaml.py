"""Known answers of the YAML reader: what it takes, and the one line with which it refuses the rest."""

import datetime
from pathlib import Path

import pytest
import yaml

from quantlab.errors import QuantlabError
from quantlab.parsing import DEEPEST, parse_yaml, read_yaml

REFUSED = {
    "a repeated key": (
        "a: 1\nb: 2\na: 3\n",
        "f.yaml, line 3: the key 'a' stands twice in one mapping: keep one of the two",
    ),
    "a repeated key inside": (
        "v:\n  gguf-4: {}\n  gguf-4: {}\n",
        "f.yaml, line 3: the key 'gguf-4' stands twice",
    ),
    "a repeated key, quoted": ("a: 1\n'a': 2\n", "f.yaml, line 2: the key 'a' stands twice"),
    "a number as a key": ("v:\n  4: {}\n", "f.yaml, line 2: the key '4' is not a text: put it in quotes"),
    "null as a key": ("~: 1\n", "f.yaml, line 1: the key '~' is not a text"),
    "a list as a key": ("? [1]\n: 2\n", "f.yaml, line 1: the key that is a list or a mapping is not a text"),
    "infinity": ("a: 1\nb: .inf\n", "f.yaml, line 2: '.inf' is not finite: write a finite number"),
    "not a number": ("b: [.nan]\n", "f.yaml, line 1: '.nan' is not finite"),
    "an infinite power": ("b: 1.0e+999\n", "f.yaml, line 1: '1.0e+999' is not finite"),
    "a long number": (f"b: 1{'0' * 400}\n", "f.yaml, line 1: a number of 401 characters is too long"),
    "a tagged number": ("b: !!int four\n", "f.yaml, line 1: 'four' cannot be read as a number"),
    "a date that is none": (
        "a: 1\nb: 2026-13-45\n",
        "f.yaml, line 2: '2026-13-45' cannot be read as a date: mend it, or put it in quotes",
    ),
    "deep lists": (
        "[" * 5000 + "]" * 5000,
        "f.yaml, line 1: lists and mappings stand more than 64 deep in one another",
    ),
    "deep mappings": ("{a: " * 5000, "f.yaml, line 1: lists and mappings stand more than 64 deep"),
    "deep indents": (
        "".join(" " * n + "a:\n" for n in range(200)),
        "f.yaml, line 65: lists and mappings stand more than 64 deep",
    ),
    "an alias of itself": ("a: &x [*x]\n", "f.yaml, line 1: an alias stands for what it is itself a part of"),
    "a bomb of aliases": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)),
        "f.yaml, line 6: it has more than 200,000 values, aliases written out",
    ),
    "an unknown alias": ("a: *x\n", "f.yaml, line 1: it is not YAML: found undefined alias 'x'"),
    "a tag": (
        "a: !!python/object/apply:os.system [ls]\n",
        "f.yaml, line 1: it is not YAML: could not determine a constructor",
    ),
    "two documents": ("a: 1\n---\nb: 2\n", "f.yaml, line 2: it is not YAML: but found another document"),
    "an open bracket": ("a: [\n", "f.yaml, line 2: it is not YAML"),
    "a tabulator": ("a:\n\tb: 1\n", "f.yaml, line 2: it is not YAML"),
    "a control character": (
        "a: 1\nb: \x07\n",
        "f.yaml, line 2: it is not YAML: the character #x0007 is not allowed",
    ),
    "an escaped NUL": ('a: "x\\0y"\n', "f.yaml, line 1: it holds a text with a NUL character"),
    "half a surrogate": ('a: "\\ud800"\n', "f.yaml, line 1: it holds half of a surrogate pair"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_said_with_its_line(text, said):
    with pytest.raises(QuantlabError) as error:
        parse_yaml(text, "f.yaml")
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, 2.5, true, ~]\n",
        "",
        "# nothing\n",
        "a: &x {b: 1}\nc: *x\n",
        "base: &b {x: 1}\nd: {<<: *b, x: 2}\n",
    ],
)
def test_what_is_taken_is_what_the_safe_loader_says(text):
    assert parse_yaml(text, "f.yaml") == yaml.safe_load(text)


def test_a_date_stays_a_date():
    assert parse_yaml("a: 2026-05-01", "f.yaml") == {"a": datetime.date(2026, 5, 1)}


def test_the_deepest_nesting_is_taken_and_one_more_refused():
    assert parse_yaml("[" * DEEPEST + "]" * DEEPEST, "f.yaml") is not None
    with pytest.raises(QuantlabError, match="more than 64 deep"):
        parse_yaml("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "f.yaml")


def test_aliases_count_for_the_depth_as_if_they_were_written_out():
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 100))
    with pytest.raises(QuantlabError, match="more than 64 deep"):
        parse_yaml(text, "f.yaml")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p.mkdir(), "is a folder, where a file belongs"),
        (
            lambda p: p.write_bytes(b"a: 1\nb: \xff\n"),
            "f.yaml, line 2: byte 0xff is not UTF-8: save it as UTF-8",
        ),
        (lambda p: p.write_bytes("a: 1".encode("utf-16")), "is not UTF-8"),
        (lambda p: p.write_text("# " + "x" * 2**20), "is too large: more than 1,048,576 bytes"),
        (lambda p: p.symlink_to(p), "cannot be read: Too many levels of symbolic links"),
        (lambda p: None, "there is no file"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, make, said):
    make(tmp_path / "f.yaml")
    with pytest.raises(QuantlabError, match=said):
        read_yaml(tmp_path / "f.yaml")


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    import os

    os.mkfifo(tmp_path / "f.yaml")
    with pytest.raises(QuantlabError, match="is a pipe or a device"):
        read_yaml(tmp_path / "f.yaml")


def test_a_byte_order_mark_is_left_out(tmp_path):
    (tmp_path / "f.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "f.yaml") == {"a": 1}


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_said(name):
    with pytest.raises(QuantlabError, match="cannot be read"):
        read_yaml(Path(name))
