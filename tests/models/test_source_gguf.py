"""A GGUF file is checked by its header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantlab.errors import QuantlabError
from quantlab.models import check_gguf

pytest.importorskip("gguf")


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A GGUF file with one tensor."""
    from gguf import GGUFWriter

    path = tmp_path / "m.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def refused(path: Path, match: str) -> None:
    with pytest.raises(QuantlabError, match=match) as raised:
        check_gguf(path)
    assert "\n" not in str(raised.value)


def test_a_whole_file_passes(gguf: Path) -> None:
    check_gguf(gguf)


def test_another_magic_is_refused(gguf: Path) -> None:
    gguf.write_bytes(b"PK\3\4" + gguf.read_bytes()[4:])
    refused(gguf, "a GGUF file with")


def test_an_empty_file_is_refused(gguf: Path) -> None:
    gguf.write_bytes(b"")
    refused(gguf, "a GGUF file with")


@pytest.mark.parametrize(
    "keep", [4, 10, 30, 0.5, -4], ids=["magic only", "in the counts", "in the fields", "half", "last tensor"]
)
def test_a_truncated_file_is_refused(gguf: Path, keep: float) -> None:
    whole = gguf.read_bytes()
    gguf.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    refused(gguf, "truncated or damaged")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.gguf", "does not exist")


@pytest.mark.parametrize("depth", [2, 5000])
def test_arrays_of_arrays_are_no_crash(tmp_path: Path, depth: int) -> None:
    """An array's type, its elements' type and their number, one in the other."""
    import struct

    key, array, number = b"x", 9, 4
    nested = (
        struct.pack("<I", array)
        + struct.pack("<IQ", array, 1) * (depth - 1)
        + struct.pack("<IQI", number, 1, 7)
    )
    field = struct.pack("<Q", len(key)) + key + nested
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + field)
    refused(tmp_path / "m.gguf", "truncated or damaged")


def test_an_array_that_announces_more_than_the_file_is_refused(tmp_path: Path) -> None:
    import struct

    field = struct.pack("<Q", 1) + b"x" + struct.pack("<IIQ", 9, 4, 2**60)
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + field + b"\0" * 64)
    refused(tmp_path / "m.gguf", "truncated or damaged")
