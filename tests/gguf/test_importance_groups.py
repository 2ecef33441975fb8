"""Slices of one stored matrix, each with inputs of its own, get one weight per column: their mean."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from quantlab.methods._gguf.importance import Entry, as_stored

COUNT = np.array([5.0], dtype=np.float32)


def test_groups_of_one_stored_matrix_are_added_up(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", arch="llama")
    writer.add_tensor("blk.0.attn_output_a.weight", np.ones((4, 3), dtype=np.float32))
    writer.add_tensor("blk.0.ffn_up_exps.weight", np.ones((2, 4, 3), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    sums = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]], dtype=np.float32)
    entries = {
        "blk.0.attn_output_a.weight": Entry(sums, COUNT),
        "blk.0.ffn_up_exps.weight": Entry(sums, COUNT),
    }
    stored = as_stored(entries, tmp_path / "m.gguf")
    grouped, experts = stored["blk.0.attn_output_a.weight"], stored["blk.0.ffn_up_exps.weight"]
    assert np.array_equal(grouped.sums, [[11.0, 22.0, 33.0]]) and np.array_equal(grouped.counts, [10.0])
    assert np.array_equal(experts.sums, sums) and np.array_equal(experts.counts, COUNT)
