"""Read the GPUs' memory from their driver: NVML on NVIDIA, AMD SMI on ROCm if its Python package is
installed.

GPUs are named by UUID, so that CUDA_VISIBLE_DEVICES cannot fool it. The AMD branch was written against AMD's
documented interface and has not run on a GPU; NVML's has not either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Gpus:
    """The drivers' handles of some GPUs."""

    def __init__(self, uuids: Sequence[str]) -> None:
        self._of = {uuid: (_nvidia if uuid.startswith("GPU-") else _amd)(uuid) for uuid in uuids}

    def look(self, pids: Sequence[int]) -> list[dict[str, Any]]:
        """As `quantlab.records.measured.GpuUse` has it, one for each GPU."""
        return [{"uuid": uuid} | gpu.look(set(pids)) for uuid, gpu in self._of.items()]


def _told(ask: Callable[..., Any], *arguments: Any) -> Any:
    """The driver's answer, None where it has none: a quantity that fails must not end the others.

    NVML's and AMD SMI's errors share no class but Exception; NVML also raises one of its own for a driver
    that is too old."""
    try:
        return ask(*arguments)
    except Exception:
        return None


class _nvidia:  # noqa: N801 - chosen by name as a function is
    def __init__(self, uuid: str) -> None:
        import pynvml

        _told(pynvml.nvmlInit)
        self._api, self._handle = pynvml, _told(pynvml.nvmlDeviceGetHandleByUUID, uuid)
        self._name = str(_told(pynvml.nvmlDeviceGetName, self._handle) or uuid)

    def look(self, pids: set[int]) -> dict[str, Any]:
        tree = [
            p.usedGpuMemory
            for p in _told(self._api.nvmlDeviceGetComputeRunningProcesses, self._handle) or ()
            if p.pid in pids
        ]
        used = getattr(_told(self._api.nvmlDeviceGetMemoryInfo, self._handle), "used", None)
        known = bool(tree) and all(size is not None for size in tree)
        return {
            "name": self._name,
            "tree_bytes": sum(tree) if known else None,
            "used_bytes": None if used is None else int(used),
        }


class _amd:  # noqa: N801 - chosen by name as a function is
    def __init__(self, uuid: str) -> None:
        import amdsmi

        amdsmi.amdsmi_init()
        self._api = amdsmi
        self._handle = next(
            h for h in amdsmi.amdsmi_get_processor_handles() if amdsmi.amdsmi_get_gpu_device_uuid(h) == uuid
        )
        self._name = str(amdsmi.amdsmi_get_gpu_asic_info(self._handle)["market_name"])

    def look(self, pids: set[int]) -> dict[str, Any]:
        processes = _told(self._api.amdsmi_get_gpu_process_list, self._handle) or ()
        tree = [int(p["memory_usage"]["vram_mem"]) for p in processes if p["pid"] in pids]
        used = _told(self._api.amdsmi_get_gpu_vram_usage, self._handle)
        held = int(used["vram_used"]) * 2**20 if used else None
        return {"name": self._name, "tree_bytes": sum(tree) if tree else None, "used_bytes": held}
