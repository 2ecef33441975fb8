"""The device: who is asked for, who is there, in CUDA's own order."""

from __future__ import annotations

import os

import pytest

from quantlab.errors import CellFailure, QuantlabError
from quantlab.hardware import device, memory
from quantlab.hardware.condition import conditions
from quantlab.hardware.device import Gpu, find
from quantlab.hardware.energy import meter
from quantlab.hardware.memory import process_memory
from quantlab.hardware.target import require_memory

TWO = tuple(
    Gpu(index=i, uuid=f"GPU-{i}", name=f"card {i}", memory_bytes=(i + 1) * 2**30, driver="1")
    for i in range(2)
)


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("GPU-b", [1]),
        ("GPU-c,0", [2, 0]),
        ("0,9,1", [0]),
        ("-1", []),
        ("1, 2", [1, 2]),
    ],
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
    with pytest.raises(
        QuantlabError, match=r"no cuda:2 here: the driver shows cuda:0 \(card 0\), cuda:1 \(card 1\)"
    ):
        find("cuda:2")
    for wrong in ("tpu", "cuda:0,", "cuda:0;1", "cpu,cuda:0", "cuda:0,disk,cpu", "cuda:a", "disk"):
        with pytest.raises(QuantlabError, match=f"unknown device '{wrong}'"):
            find(wrong)
    with pytest.raises(QuantlabError, match="names a GPU twice"):
        find("cuda:1,1")
    with pytest.raises(QuantlabError, match="there is no cuda:5 here"):
        find("cuda:0,5")


def test_several_places_for_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus", lambda: TWO)
    both, spilling = find("cuda:1,0"), find("cuda:0,cpu,disk")
    assert both.places.gpus == (1, 0) and both.places.first == "cuda:1" and both.places.several
    assert (
        both.name == "card 1 + card 0"
        and both.memory_bytes == 3 * 2**30
        and [g.uuid for g in both.used_gpus] == ["GPU-1", "GPU-0"]
    )
    assert spilling.memory_bytes == 2**30 + find("cpu").memory_bytes and spilling.name.endswith(" + disk")
    assert (
        not find("cuda:1").places.several
        and not find("cpu").places.several
        and find("cpu,disk").places.several
    )
    require_memory(spilling, 10**15, "a model that may lie on the disk")
    with pytest.raises(CellFailure, match=r"has 3\.0 GiB"):
        require_memory(both, 10**12, "a model")


def test_equal_cards_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus", lambda: tuple(gpu.model_copy(update={"name": "card"}) for gpu in TWO))
    assert find("cuda:0,1").name == "2 × card"


def test_the_peak_is_never_below_what_is_held() -> None:
    before = process_memory()
    held = bytearray(512 * 2**20)  # more than a large process has free and gives again
    held[::4096] = b"x" * len(held[::4096])
    now = process_memory()
    assert now.peak_rss_bytes >= now.rss_bytes > before.rss_bytes + 32 * 2**20


def test_amd_gpus_are_there_where_no_nvidia_driver_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in of AMD SMI's interface: no AMD GPU has run it."""

    class AmdSmi:
        AmdSmiMemoryType = type("M", (), {"VRAM": 0})
        amdsmi_get_processor_handles = staticmethod(lambda: ["a", "b"])
        amdsmi_get_gpu_memory_total = staticmethod(lambda handle, kind: 192 * 2**30)
        amdsmi_get_gpu_memory_usage = staticmethod(lambda handle, kind: 2 * 2**30)
        amdsmi_get_gpu_asic_info = staticmethod(lambda handle: {"market_name": "AMD Instinct MI300X"})
        amdsmi_get_gpu_driver_info = staticmethod(lambda handle: {"driver_version": "6.10"})
        amdsmi_get_gpu_device_uuid = staticmethod(
            lambda handle: f"{handle}0ff74a1-0000-1000-80e9-b388cfe84658"
        )

    monkeypatch.setattr("quantlab.hardware.rocm._api", lambda: AmdSmi)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    found = device._amd_gpus()
    assert [(gpu.index, gpu.uuid[0], gpu.name) for gpu in found] == [(0, "b", "AMD Instinct MI300X")]
    monkeypatch.setattr(device, "gpus", lambda: found)
    assert memory.free_vram_bytes((0,)) == {0: 190 * 2**30} and find("cuda:0").memory_bytes == 192 * 2**30
    assert meter(find("cuda:0")).reason and conditions(find("cuda:0")).gpus[0].sm_clock_mhz is None


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantlab.hardware.rocm._api", lambda: None)
    assert device._amd_gpus() == ()


def test_a_slice_of_a_gpu_is_refused_and_never_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus", lambda: ())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1c4d9b1e")
    with pytest.raises(QuantlabError, match="MIG"):
        find()
    assert find("cpu").device == "cpu"


def test_cuda_is_told_the_order_in_which_the_gpus_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    device.gpus()
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
