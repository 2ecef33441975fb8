"""Reading a reference takes the memory of one window, however long the text is."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from quantlab.files import sha256
from quantlab.hardware.device import find
from quantlab.reference.head import Head, HeadSpec
from quantlab.reference.store import ReferenceInfo

LENGTH, HIDDEN, VOCABULARY = 256, 512, 64
SCRIPT = """
import sys
from pathlib import Path
from quantlab.hardware.memory import process_memory
from quantlab.reference.store import Reference

reference = Reference(Path(sys.argv[1]))
for window in range(reference.info.windows):
    reference.logits(window)
print(process_memory().peak_rss_bytes)
"""


def _peak_bytes(folder: Path, windows: int) -> int:
    folder.mkdir()
    hidden = np.ones((windows, LENGTH, HIDDEN), np.float32)
    np.save(folder / "hidden.npy", hidden)
    Head(torch.ones(VOCABULARY, HIDDEN), None, HeadSpec()).save(folder / "head.safetensors")
    sizes = {"windows": windows, "length": LENGTH, "hidden_size": HIDDEN, "vocabulary": VOCABULARY}
    same = dict.fromkeys(("evaluation_sha256", "source_sha256"), "0" * 64)
    same["head_sha256"] = sha256(folder / "head.safetensors")
    same["hidden_sha256"] = hashlib.sha256(hidden.tobytes()).hexdigest()
    numbers = dict.fromkeys(("head_max_difference", "head_divergence_nats", "bytes_per_scored_token"), 0.0)
    about = {
        "dtype": "float32",
        "requested_dtype": "auto",
        "device": find("cpu").name,
        "head": HeadSpec(),
        "revision": None,
        "versions": {},
    }
    info = ReferenceInfo.model_validate(sizes | same | numbers | about | {"versions": {}})
    (folder / "reference.json").write_text(info.model_dump_json())
    return int(
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(folder)], check=True, capture_output=True, text=True
        ).stdout
    )


def test_four_times_the_text_takes_no_more_memory(tmp_path: Path) -> None:
    few, many = _peak_bytes(tmp_path / "few", 40), _peak_bytes(tmp_path / "many", 160)
    stored = 120 * LENGTH * HIDDEN * 4
    assert many - few < 0.15 * stored, (
        f"{(many - few) / 1e6:.1f} MB more for {stored / 1e6:.0f} MB more of hidden states"
    )
