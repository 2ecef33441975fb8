"""bitsandbytes leaves fused experts in 16 bits, and its checkpoint's own tensors say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quantlab.formats import safetensors
from quantlab.formats.unquantized import tensors_of, weights_left
from quantlab.methods import Job
from quantlab.methods.bitsandbytes import METHOD
from quantlab.models.tiny import write_tiny_model
from quantlab.progress import Progress
from quantlab.records import Unquantized


def test_experts_of_a_mixture(tmp_path: Path) -> None:
    source = write_tiny_model("qwen3_moe", tmp_path / "source")
    weights = safetensors.parameters(source)
    job = Job(
        source=source,
        bits=4,
        settings=METHOD.Settings(),
        calibration=np.zeros((0, 0), np.int64),
        destination=tmp_path / "four",
        device="cpu",
        seed=0,
        progress=Progress(quiet=True),
        trust_remote_code=False,
    )
    job.destination.mkdir()
    METHOD.quantize(job)
    before = weights_left(tensors_of(source))
    left = Unquantized(weights=weights, by_kind=dict(weights_left(tensors_of(job.destination))))
    assert sum(before.values()) == weights
    assert left.by_kind["experts"] == before["experts"] > 0.1 * weights
    assert left.by_kind["router"] == before["router"] and left.by_kind["embedding"] == before["embedding"]
    assert "linears" not in left.by_kind
    assert left.share_of_promised and left.share_of_promised > 0.1
