"""Read AMD GPUs through AMD SMI's Python package, if ROCm installed it.

Written against AMD's documented interface; it has run on no AMD GPU. torch calls them `cuda:n` as well.
Clocks and energy of these GPUs are not read."""

from __future__ import annotations

from typing import Any, NamedTuple


class AmdGpu(NamedTuple):
    """One GPU as the driver sees it."""

    uuid: str
    name: str
    memory_bytes: int
    driver: str


def is_amd(uuid: str) -> bool:
    """NVIDIA's UUIDs begin with `GPU-`, AMD's do not."""
    return not uuid.startswith("GPU-")


def _api() -> Any:
    """The package, started; None where there is no such package or no driver."""
    try:
        import amdsmi
    except (ImportError, OSError, KeyError):  # without the driver's library its import fails in several ways
        return None
    try:
        amdsmi.amdsmi_init()
    except amdsmi.AmdSmiException:
        return None
    return amdsmi


def gpus() -> list[AmdGpu]:
    """All AMD GPUs, in the order of AMD SMI, which is that of the bus."""
    api = _api()
    amd_gpus = []
    for handle in api.amdsmi_get_processor_handles() if api else []:
        memory = int(api.amdsmi_get_gpu_memory_total(handle, api.AmdSmiMemoryType.VRAM))
        name, driver = (
            api.amdsmi_get_gpu_asic_info(handle)["market_name"],
            api.amdsmi_get_gpu_driver_info(handle)["driver_version"],
        )
        amd_gpus.append(AmdGpu(str(api.amdsmi_get_gpu_device_uuid(handle)), str(name), memory, str(driver)))
    return amd_gpus


def free_bytes(uuid: str) -> int:
    """Free memory of one GPU."""
    api = _api()
    handle = next(
        h for h in api.amdsmi_get_processor_handles() if str(api.amdsmi_get_gpu_device_uuid(h)) == uuid
    )
    total = int(api.amdsmi_get_gpu_memory_total(handle, api.AmdSmiMemoryType.VRAM))
    return total - int(api.amdsmi_get_gpu_memory_usage(handle, api.AmdSmiMemoryType.VRAM))
