"""Read YAML and JSON that people or other machines wrote; nothing else does.

What they refuse with one QuantlabError of one line (file, line number, what to do): files that are too large,
folders, pipes and devices, what cannot be read or is not UTF-8, nesting deeper than `DEEPEST`, a key that
stands twice in one mapping (the last one would win without a word), NaN and infinity, numbers with more than
`LONGEST_NUMBER` digits, and text that no file or name can hold (NUL, halves of surrogate pairs).

`read_json` and `read_yaml` take a path, `parse_json` and `parse_yaml` a text with its origin for the message;
`read_object` and `parse_object` are for JSON that must be an object.
"""

from __future__ import annotations

from quantlab.parsing._json import parse_json, parse_object, read_json, read_object
from quantlab.parsing._text import (
    DEEPEST,
    LONGEST_NUMBER,
    as_path,
    decode,
    read_bytes,
    read_text,
    trouble_with_text,
)
from quantlab.parsing._yaml import parse_yaml, read_yaml

__all__ = [
    "DEEPEST",
    "LONGEST_NUMBER",
    "as_path",
    "decode",
    "parse_json",
    "parse_object",
    "parse_yaml",
    "read_bytes",
    "read_json",
    "read_object",
    "read_text",
    "read_yaml",
    "trouble_with_text",
]
