"""Ask torch, in another process, which GPUs it can use.

The driver may show GPUs that torch cannot open (a driver older than its CUDA), and a container may have
CUDA's driver and not NVML, which tells the driver's view. No GPU has run this file."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import NamedTuple

from quantlab.environments.llama_build import has_driver

SECONDS_ALLOWED = 180.0
_CHILD = """
import json
said = {"installed": False, "cuda": None, "gpus": [], "trouble": ""}
try:
    import torch
    said.update(installed=True, cuda=torch.version.cuda)
    torch.cuda.init()
    for n in range(torch.cuda.device_count()):
        about, (free, _) = torch.cuda.get_device_properties(n), torch.cuda.mem_get_info(n)
        uuid = str(getattr(about, "uuid", "") or n)
        said["gpus"].append([f"GPU-{uuid}", about.name, int(about.total_memory), int(free)])
except ModuleNotFoundError as error:
    said["trouble"] = str(error)
except Exception as error:  # whatever torch raises is the answer
    said["trouble"] = " ".join(str(error).split())[:300]
print("\\n" + json.dumps(said), flush=True)
"""


class TorchGpu(NamedTuple):
    """A GPU as torch has it, under CUDA's number."""

    uuid: str
    name: str
    memory_bytes: int
    free_bytes: int


class TorchView(NamedTuple):
    """What torch says of this machine's GPUs."""

    installed: bool
    cuda: str | None
    """The version of CUDA that it was built for; None for a build without."""
    gpus: tuple[TorchGpu, ...]
    trouble: str
    """Why it can use none, in its own words."""


@functools.cache
def torch_view() -> TorchView:
    """What torch said when it was first asked; it takes some seconds."""
    return ask_torch()


def ask_torch() -> TorchView:
    """What torch says now."""
    command = [sys.executable, "-P", "-c", _CHILD]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_ALLOWED, check=False)
        said = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return TorchView(True, None, (), f"it did not answer within {SECONDS_ALLOWED:g} s")
    except (ValueError, IndexError):
        return TorchView(True, None, (), f"it ended the process with code {done.returncode}")
    gpus = tuple(TorchGpu(*each) for each in said["gpus"])
    return TorchView(said["installed"], said["cuda"], gpus, said["trouble"])


def seen_without_nvml() -> tuple[TorchGpu, ...]:
    """What torch sees where NVML sees nothing; it is asked only where CUDA's driver is there."""
    return torch_view().gpus if has_driver() else ()
