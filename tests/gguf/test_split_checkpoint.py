"""A GGUF checkpoint in several parts is one checkpoint: named, hashed and run as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantlab.errors import QuantlabError
from quantlab.formats.gguf import stored_tensors
from quantlab.methods._foreign import identify, weight_files


@pytest.fixture
def parts(prepared: Path, tmp_path: Path) -> list[Path]:
    """The F16 model, eight tensors in each part."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    reader = GGUFReader(prepared / "f16.gguf")
    writer = GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=8)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(tmp_path.glob("m-*.gguf"))


def test_it_is_the_whole_model(
    parts: list[Path], prepared: Path, token_ids: NDArray[np.int64], open_engine: Any
) -> None:
    assert len(parts) > 1
    variant = identify(parts[0])
    assert (variant.method, variant.bits) == ("gguf", 16)
    assert list(weight_files(parts[0])) == [part.name for part in parts]
    whole = stored_tensors(prepared / "f16.gguf")
    assert [tensor.name for tensor in stored_tensors(parts[0])] == [tensor.name for tensor in whole]
    logits = [open_engine(path).logits(token_ids[0, :32]) for path in (prepared / "f16.gguf", parts[0])]
    assert np.array_equal(*logits)


def test_a_missing_part_is_refused_by_name(parts: list[Path]) -> None:
    parts[-1].unlink()
    with pytest.raises(QuantlabError, match=parts[-1].name):
        identify(parts[0])
