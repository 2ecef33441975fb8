"""Look up GPUs by the names that people use: memory, bandwidth, peak rates and power, each with its source.

Read from gpus.yaml; the user's own file ($QUANTLAB_GPUS, else gpus.yaml in quantlab's user configuration
folder) and a gpus.yaml in the current folder add to it and replace whole entries of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import Field, model_validator

from quantlab.catalogue.files import catalogue_files, checked, mapping
from quantlab.errors import QuantlabError, unknown
from quantlab.frozen import Frozen

_SAYS_NOTHING = {
    "nvidia",
    "geforce",
    "tesla",
    "amd",
    "instinct",
    "radeon",
    "apple",
    "gpu",
    "oam",
    "hbm3",
    "hbm3e",
}
"""Words of a driver's name that every card of the kind has; any other word that is left over makes it another
card."""
FORM = "`my-gpu: {memory_gb: 24, bandwidth_gb_per_second: 1000}`"
_USABLE_GIB_PER_GB = 0.93
"""Where no log shows the usable memory: usable GiB per marketed GB. Between what 10^9 bytes per GB would give
(0.931) and what the 80 GB cards in gpus.yaml show (0.99, their GB are GiB in truth): the lowest, so that a
plan is not too bold; the L40S, whose error correction takes a part, shows 0.937."""

_APPLE_SHARE = 0.75
"""Of an Apple chip's memory, in GiB as marketed, that macOS lets the GPU use by default: 11.84 of 16 and
107.5 of 128 in llama.cpp's logs (recommendedMaxWorkingSetSize). `sysctl iogpu.wired_limit_mb` raises it."""


class GpuSpec(Frozen):
    """One kind of GPU. Rates are dense (no 2:4 sparsity)."""

    name: str
    memory_gb: float = Field(gt=0, le=1e7)
    """As marketed; plan with usable_gib."""
    usable_gib: float = Field(gt=0, le=1e7)
    """All memory that a process can see, in units of 2^30 bytes."""
    usable_estimated: bool = False
    """True where no measured figure is known: see the source."""
    bandwidth_gb_per_second: float = Field(gt=0, le=1e9)
    tflops: dict[str, float] = {}
    """Dense 10^12 operations per second by type: bf16, fp8, int8, fp4; a type that is absent is not known or
    not there."""
    power_watts: float | None = Field(default=None, gt=0)
    unified: bool = False
    """Whether the memory is the whole machine's, shared with its CPU."""
    aliases: tuple[str, ...] = ()
    source: dict[str, str] = {}
    """Where each figure comes from, by its key."""
    note: str = ""

    @property
    def usable_bytes(self) -> int:
        return int(self.usable_gib * 2**30)

    @model_validator(mode="before")
    @classmethod
    def _usable(cls, data: object) -> object:
        if (
            isinstance(data, dict)
            and "usable_gib" not in data
            and isinstance(data.get("memory_gb"), int | float)
        ):
            apple = str(data.get("name", "")).startswith("apple")
            share = _APPLE_SHARE if apple else _USABLE_GIB_PER_GB
            return {
                **data,
                "usable_gib": round(data["memory_gb"] * share, 2),
                "usable_estimated": True,
            }
        return data


@dataclass(frozen=True)
class GpuSet:
    """Some GPUs of one kind."""

    gpu: GpuSpec
    count: int


def gpus() -> dict[str, GpuSpec]:
    """Every GPU by its name, the user's own included. Raises QuantlabError for a file that is not a list of
    GPUs."""
    by_name: dict[str, GpuSpec] = {}
    for path in catalogue_files("gpus.yaml", "QUANTLAB_GPUS"):
        for name, fields in mapping(path, FORM).items():
            slug = _slug(name)
            given = {**fields, "name": slug} if isinstance(fields, dict) else fields
            by_name[slug] = checked(GpuSpec, given, f"{path}: {name}")
    return by_name


def find_gpu(name: str) -> GpuSpec:
    """By name or alias, whatever the case. Raises QuantlabError with the nearest names."""
    known = gpus()
    slug = _slug(name)
    if slug in known:
        return known[slug]
    for spec in reversed(known.values()):
        if slug in map(_slug, spec.aliases):
            return spec
    raise unknown(
        "GPU",
        name,
        {*known, *(a for g in known.values() for a in g.aliases)},
        f"or write {FORM} into gpus.yaml",
    )


def gpu_called(device: str) -> GpuSpec | None:
    """The catalogue's GPU behind a driver's name such as `NVIDIA A100-SXM4-40GB`: the one with the longest
    name in it.

    None where no GPU's name is in it, and where anything else is said that the catalogue's card is not:
    `Laptop`, `D`, `NVL`, another memory, a slice (`MIG 1g.5gb`, `48Q`), a second device, a processor. Its
    bandwidth is then another."""
    words = _words(device)
    named = [
        (own, spec)
        for spec in gpus().values()
        for name in (spec.name, *spec.aliases)
        if (own := _words(name)) <= words
    ]
    if not named:
        return None
    own, spec = max(named, key=lambda pair: len(pair[0]))
    return spec if all(_goes_with(word, spec) for word in words - own) else None


def _goes_with(word: str, spec: GpuSpec) -> bool:
    return word in _SAYS_NOTHING or word == f"{spec.memory_gb:g}gb"


def _words(name: str) -> set[str]:
    return set(re.sub(r"sxm\d", "sxm", name.lower()).replace("-", " ").replace("_", " ").split())


def parse_gpus(text: str) -> GpuSet:
    """`h100:2`, `2xh100` or `h100`. Raises QuantlabError for an unknown GPU or a count that is not a whole
    number above 0."""
    times = re.fullmatch(r"(\d+)\s*[x×*]\s*(.+)", text.strip())
    name, colon, number = (times[2], ":", times[1]) if times else text.strip().partition(":")
    if not name.strip():
        raise QuantlabError(f"{text!r} names no GPU: write one of the catalogue, such as h100 or h100:2")
    if colon and not re.fullmatch(r"[1-9]\d{0,5}", number.strip()):
        raise QuantlabError(
            f"{text!r} names no GPUs: write the count as a whole number above 0, such as h100:2"
        )
    return GpuSet(gpu=find_gpu(name), count=int(number or 1))


def _slug(name: str) -> str:
    """`NVIDIA RTX 4090` gives `rtx-4090`."""
    return (
        re.sub(r"[\s_-]+", "-", name.strip().lower())
        .removeprefix("nvidia-")
        .removeprefix("geforce-")
        .removeprefix("amd-")
    )
