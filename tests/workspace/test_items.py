"""Work in progress survives a kill at any byte."""

from __future__ import annotations

from pathlib import Path

from quantlab.workspace.items import Items, key_of


def test_finished_items_are_there_for_the_next_run(tmp_path: Path) -> None:
    Items(tmp_path, "c" * 64, "piqa").add({"a": [1.5, True], "b": "text"})
    again = Items(tmp_path, "c" * 64, "piqa")
    assert again.get("a") == [1.5, True] and again.get("b") == "text" and again.get("z") is None


def test_a_line_cut_off_anywhere_is_ignored_and_the_next_one_is_whole(tmp_path: Path) -> None:
    first = Items(tmp_path, "c" * 64, "piqa")
    first.add({"a": 1})
    whole = first.path.read_bytes()
    first.add({"b": 2})
    for cut in range(len(whole), len(first.path.read_bytes())):
        first.path.write_bytes(whole + (b'{"key": "b", "value": 2}')[: cut - len(whole)])
        torn = Items(tmp_path, "c" * 64, "piqa")
        torn.add({"c": 3})
        again = Items(tmp_path, "c" * 64, "piqa")
        assert again.get("a") == 1 and again.get("c") == 3


def test_a_key_is_of_everything_that_decides() -> None:
    assert key_of("x", ("a", "b")) == key_of("x", ["a", "b"]) != key_of("x", ["a", "c"])
