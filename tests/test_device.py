"""The device: who is asked for, who is there, in CUDA's own order."""

from __future__ import annotations

import pytest

from quantlab import device
from quantlab.device import Gpu, find, process_memory
from quantlab.errors import QuantlabError

TWO = tuple(Gpu(index=i, uuid=f"GPU-{i}", name=f"card {i}", memory_bytes=(i + 1) * 2**30, driver="1") for i in range(2))


@pytest.mark.parametrize(
    ("setting", "seen"),
    [(None, [0, 1, 2]), ("", []), ("2,0", [2, 0]), ("GPU-b", [1]), ("GPU-c,0", [2, 0]), ("0,9,1", [0]), ("-1", []), ("1, 2", [1, 2])],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(setting: str | None, seen: list[int]) -> None:
    assert device._visible(["GPU-aa", "GPU-bb", "GPU-cc"], setting) == seen


def test_auto_is_the_first_gpu_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus", lambda: TWO)
    assert find().device == find("cuda").device == "cuda:0" and find("cuda:1").name == "card 1"
    assert find("cuda:1").memory_bytes == 2 * 2**30 and find("cpu").device == "cpu"
    monkeypatch.setattr(device, "gpus", lambda: ())
    assert find().device == "cpu" and find().memory_bytes == find().memory_gib * 2**30 > 0


def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus", lambda: TWO)
    with pytest.raises(QuantlabError, match=r"no cuda:2 here: the driver shows cuda:0 \(card 0\), cuda:1 \(card 1\)"):
        find("cuda:2")
    with pytest.raises(QuantlabError, match="unknown device 'tpu'"):
        find("tpu")


def test_the_peak_is_never_below_what_is_held() -> None:
    before = process_memory()
    held = bytearray(64 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    now = process_memory()
    assert now.peak_rss_bytes >= now.rss_bytes > before.rss_bytes + 32 * 2**20
