"""Find the target device, its name, its memory, and the memory of this process on it.

Imports no torch: identity comes from the driver (NVML) and the operating system.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.container import ROOT, memory_limit_bytes
from quantlab.errors import QuantlabError
from quantlab.frozen import Frozen
from quantlab.hardware import rocm
from quantlab.hardware.torch_view import seen_without_nvml
from quantlab.processors import cores

_VISIBLE, _VISIBLE_TO_HIP = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"


class Places(NamedTuple):
    """Where a model may lie, in the order in which it is filled: GPUs, the machine's memory, the disk."""

    gpus: tuple[int, ...]
    cpu: bool
    disk: bool

    @property
    def several(self) -> bool:
        return len(self.gpus) + self.cpu + self.disk > 1

    @property
    def first(self) -> str:
        """The torch device that tokens go to, and that work for one device runs on."""
        return f"cuda:{self.gpus[0]}" if self.gpus else "cpu"


def parse_places(device: str) -> Places:
    """`cpu`, `cuda`, `cuda:1`, or several places for one model: `cuda:0,1`, `cuda:0,cpu`,
    `cuda:0,1,cpu,disk`, `cpu,disk`.

    Raises QuantlabError.
    """
    match = re.fullmatch(r"(?:cuda(?::(?P<gpus>\d+(?:,\d+)*))?(?P<cpu>,cpu)?|cpu)(?P<disk>,disk)?", device)
    if not match:
        raise QuantlabError(
            f"unknown device {device!r}: use auto, cpu, cuda:N, or several places, such as cuda:0,1 or"
            " cuda:0,cpu,disk"
        )
    gpus = tuple(map(int, (match["gpus"] or "0").split(","))) if device.startswith("cuda") else ()
    if len(set(gpus)) < len(gpus):
        raise QuantlabError(f"{device} names a GPU twice")
    return Places(gpus, not gpus or bool(match["cpu"]), bool(match["disk"]))


class Gpu(Frozen):
    """One GPU as the driver sees it: an NVIDIA one, or on ROCm an AMD one."""

    index: int
    """Its number for CUDA, so after CUDA_VISIBLE_DEVICES."""
    uuid: str
    name: str
    memory_bytes: int
    driver: str


class Device(Frozen):
    """The machine and the device that runs on it."""

    device: str
    """`cpu`, `cuda:n`, or several places as `parse_places` reads them."""
    name: str
    cpu: str
    cores: int
    """Processors that this process may use."""
    memory_gib: int
    """The machine's, or the container's limit."""
    gpus: tuple[Gpu, ...] = ()
    system: str
    python: str

    @property
    def places(self) -> Places:
        return parse_places(self.device)

    @property
    def used_gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that the device names."""
        return tuple(self.gpus[n] for n in self.places.gpus)

    @property
    def first_name(self) -> str:
        """The device that tokens go to, in words: the first GPU alone, or the processor."""
        gpus = self.used_gpus
        return gpus[0].name if gpus else self.cpu

    @property
    def memory_bytes(self) -> int:
        """Memory that a model can use: the GPUs', the machine's, or both; the disk is not memory."""
        return sum(gpu.memory_bytes for gpu in self.used_gpus) + (
            self.memory_gib * 2**30 if self.places.cpu else 0
        )


def gpus() -> tuple[Gpu, ...]:
    """NVIDIA GPUs that CUDA would see, in the order of the PCI bus (CUDA_VISIBLE_DEVICES heeded); without
    NVML AMD's, else those that torch sees.

    CUDA puts the fastest first unless it is told otherwise. This sets CUDA_DEVICE_ORDER=PCI_BUS_ID for this
    process and those that it starts, whatever it was: CUDA must not have been opened before."""
    import pynvml

    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return _amd_gpus() or _torch_gpus()
    try:
        driver = str(told(pynvml.nvmlSystemGetDriverVersion) or "unknown")
        driven = _on_the_bus()
    finally:
        pynvml.nvmlShutdown()
    order = _visible([uuid for uuid, _, _ in driven], os.environ.get(_VISIBLE))
    return tuple(
        Gpu(index=i, uuid=driven[n][0], name=driven[n][1], memory_bytes=driven[n][2], driver=driver)
        for i, n in enumerate(order)
    )


def _on_the_bus() -> list[tuple[str, str, int]]:
    """List UUID, name and memory of each NVIDIA GPU in the order of the PCI bus; NVML must be started."""
    import pynvml

    handles = [
        told(pynvml.nvmlDeviceGetHandleByIndex, i) for i in range(told(pynvml.nvmlDeviceGetCount) or 0)
    ]
    # a GPU that fell off the bus has no UUID
    there = [h for h in handles if h is not None and told(pynvml.nvmlDeviceGetUUID, h)]
    there.sort(key=lambda h: str(getattr(told(pynvml.nvmlDeviceGetPciInfo, h), "busId", "")))
    return [
        (
            str(pynvml.nvmlDeviceGetUUID(h)),
            str(told(pynvml.nvmlDeviceGetName, h) or "NVIDIA GPU"),
            # of a chip that shares the machine's memory (GB10) the driver tells no size
            int(getattr(told(pynvml.nvmlDeviceGetMemoryInfo, h), "total", None) or memory_bytes()),
        )
        for h in there
    ]


def _amd_gpus() -> tuple[Gpu, ...]:
    """AMD GPUs that ROCm would see, where its Python package is installed (HIP_VISIBLE_DEVICES heeded)."""
    driven = rocm.gpus()
    order = _visible([gpu.uuid for gpu in driven], os.environ.get(_VISIBLE_TO_HIP))
    return tuple(Gpu(index=i, **driven[n]._asdict()) for i, n in enumerate(order))


def _torch_gpus() -> tuple[Gpu, ...]:
    """GPUs that torch opens though there is no NVML to tell of them (a container without it)."""
    seen = seen_without_nvml()
    return tuple(
        Gpu(index=i, uuid=gpu.uuid, name=gpu.name, memory_bytes=gpu.memory_bytes, driver="unknown")
        for i, gpu in enumerate(seen)
    )


def told(ask: Callable[..., Any], *arguments: Any) -> Any:
    """NVML's answer, None where this driver or this GPU has none."""
    import pynvml

    try:
        return ask(*arguments)
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
        return None


def visible_to(gpus: tuple[int, ...], setting: str | None) -> str:
    """CUDA_VISIBLE_DEVICES for a process that shall see these alone, by their numbers under the present
    setting."""
    visible = [entry.strip() for entry in (setting or "").split(",") if entry.strip()]
    return ",".join(visible[n] if visible else str(n) for n in gpus)


def visible_alone(device: str) -> dict[str, str]:
    """The environment of a process that shall see the GPUs of a device and no other; none for `cpu`.

    AMD's runtime reads a variable of its own."""
    gpus = parse_places(device).gpus
    return {name: visible_to(gpus, os.environ.get(name)) for name in (_VISIBLE, _VISIBLE_TO_HIP)}


def renumbered(device: str) -> str:
    """The same device in a process that sees its GPUs alone, where CUDA counts them from 0."""
    places = parse_places(device)
    if not places.gpus:
        return device
    numbers = ",".join(str(n) for n in range(len(places.gpus)))
    return f"cuda:{numbers}" + ",cpu" * places.cpu + ",disk" * places.disk


def _shown_a_slice() -> bool:
    """Whether CUDA_VISIBLE_DEVICES names a slice of a GPU (MIG)."""
    return any(
        entry.strip().startswith("MIG-") for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    )


def _is_sliced(uuid: str) -> bool:
    """Whether a GPU is in MIG mode, in which CUDA only sees a slice of it."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    try:
        handle = told(pynvml.nvmlDeviceGetHandleByUUID, uuid)
        mode = None if handle is None else told(pynvml.nvmlDeviceGetMigMode, handle)
        return mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    finally:
        pynvml.nvmlShutdown()


def _visible(uuids: list[str], setting: str | None) -> list[int]:
    """Which of the GPUs CUDA sees, in its order; like CUDA it stops at the first entry that names none."""
    if setting is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for entry in filter(None, (part.strip() for part in setting.split(","))):
        match = (
            [i for i, uuid in enumerate(uuids) if uuid.startswith(entry)] if entry.startswith("GPU-") else []
        )
        if entry.isdigit() and int(entry) < len(uuids):
            match = [int(entry)]
        if not match:
            break
        chosen.append(match[0])
    return chosen


def cpu_name() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    return " ".join(match[1].split()) if match else platform.processor() or platform.machine()


def memory_bytes(root: Path = ROOT) -> int:
    """The machine's memory, or the container's limit where that is less."""
    import psutil

    total, limit = int(psutil.virtual_memory().total), memory_limit_bytes(root)
    return total if limit is None else min(total, limit)


def quick_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; where it does not, bfloat16 is several times slower
    than float32."""
    info = Path("/proc/cpuinfo")
    return not info.exists() or bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", info.read_text()))


def find(device: str = "auto") -> Device:
    """The device that the user names; auto is the first GPU, else the CPU.

    Raises QuantlabError where it is not there, and for a slice of a GPU (MIG), whose memory and speed are not
    the GPU's."""
    there = gpus()
    if device == "auto":
        device = "cuda:0" if there or _shown_a_slice() else "cpu"
    places = parse_places(device)
    if device == "cuda":
        device = "cuda:0"
    if places.gpus and (
        _shown_a_slice() or any(_is_sliced(there[n].uuid) for n in places.gpus if n < len(there))
    ):
        raise QuantlabError(
            "a slice of a GPU (MIG) is not measured: switch MIG off or name a whole GPU, or use --device cpu"
        )
    absent = [n for n in places.gpus if n >= len(there)]
    if absent:
        have = ", ".join(f"cuda:{g.index} ({g.name})" for g in there) or "no NVIDIA GPU"
        raise QuantlabError(
            f"there is no cuda:{absent[0]} here: the driver shows {have}; use --device cpu or auto"
        )
    cpu = f"{cpu_name()} ({cores()} cores)"
    return Device(
        device=device,
        name=_name(places, [there[n].name for n in places.gpus], cpu),
        cpu=cpu,
        cores=cores(),
        memory_gib=max(round(memory_bytes() / 2**30), 1),
        gpus=there,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
    )


def _name(places: Places, gpu_names: list[str], cpu: str) -> str:
    """`2 × NVIDIA A10 + AMD EPYC (8 cores)`; the disk is named where a model may lie on it."""
    counted = [
        f"{gpu_names.count(name)} × {name}" if gpu_names.count(name) > 1 else name
        for name in dict.fromkeys(gpu_names)
    ]
    return " + ".join([*counted, *([cpu] if places.cpu else []), *(["disk"] if places.disk else [])])
