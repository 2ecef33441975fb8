"""Forecast a run before it begins: whether each variant fits the device, disk space, and time if it is known.

Memory is the planner's: weights, cache of the measured workload, and the lowest overhead that was ever seen,
so that a variant is called too large only where it certainly is. Time is never guessed: it comes from records
of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from quantlab import engines, methods
from quantlab.architecture.counts import count
from quantlab.architecture.estimate import estimate
from quantlab.architecture.kvcache import cache_bytes
from quantlab.architecture.parameters import ParameterCount
from quantlab.architecture.shape import Architecture, read_architecture
from quantlab.errors import CellFailure, QuantlabError
from quantlab.hardware.device import Device
from quantlab.hardware.target import require_host_memory
from quantlab.measuring.grid import workloads
from quantlab.models.ingredients import ingredients
from quantlab.names import Variant, parse_variant
from quantlab.planning.calibration import calibration
from quantlab.planning.files import checkpoint_bytes, tokenizer_bytes
from quantlab.planning.rig import overhead_bytes
from quantlab.planning.weights import weight_bytes
from quantlab.recipe import Recipe
from quantlab.records import QuantizeRecord, TaskRecord
from quantlab.workspace.results import read_record

_SURELY = 8
"""Bytes per parameter: with them to spare no variant is too large, and the quick estimate will do."""
_ROOM_BYTES = 8 * 2**30


class Forecast(NamedTuple):
    """What is known before the run."""

    too_large: Mapping[str, CellFailure]
    """By variant: it cannot fit into the device."""
    disk_bytes: int
    """Of all the checkpoints together; the source's own files come on top."""
    seconds: float | None
    """Quantizing and tasks of every variant; None where a record is lacking."""

    def lines(self) -> list[str]:
        """For a person."""
        lines = [f"{failure.reason}: this will be its recorded result" for failure in self.too_large.values()]
        time = (
            "how long it takes is not known yet: this folder has no records of the same variants on this"
            " device"
        )
        if self.seconds is not None:
            time = (
                f"about {_minutes(self.seconds)} for quantizing and tasks, from records here, scaled by the"
                " number of parameters"
            )
        return [*lines, f"about {self.disk_bytes / 1e9:.1f} GB of checkpoints; {time}"]


def forecast(
    model: str, recipe: Recipe, variants: Iterable[str], device: Device, here: Path
) -> Forecast | None:
    """What a run of these variants takes; None where the model's config cannot be had, so that nothing can be
    said.

    Raises CellFailure where no variant can fit into the device.
    """
    try:
        known = ingredients(model)
        if known.file:
            architecture, counted = known.file.architecture, known.file.counted
        elif known.config is not None:
            architecture, counted = read_architecture(known.config), _counted(known.config, device)
        else:
            return None
        own = [parse_variant(slug) for slug in variants if not parse_variant(slug).external]
        needed = {variant.slug: _needed(variant, recipe, architecture, counted, device) for variant in own}
    except QuantlabError:
        return None
    not_made = {v.slug: failure for v in own if (failure := _not_made(v, counted, device))}
    too_large = not_made | {
        slug: _failure(slug, size, device) for slug, (_, size) in needed.items() if size > device.memory_bytes
    }
    asked = [slug for slug in needed if not slug.endswith("-16")] or list(needed)
    if asked and all(slug in too_large for slug in asked):
        raise too_large[min(asked, key=lambda slug: needed[slug][1])]
    disk = sum(
        size for slug, (size, _) in needed.items() if methods.load(parse_variant(slug).method).changes_weights
    )
    return Forecast(too_large, disk, _seconds(own, counted.total, device, here))


def _counted(config: Mapping[str, Any], device: Device) -> ParameterCount:
    """The exact count; for a model that fits many times over the quick estimate, since counting takes
    seconds."""
    rough = estimate(config, "the size does not decide anything here")
    return rough if rough.total * _SURELY + _ROOM_BYTES < device.memory_bytes else count(config)


def _needed(
    variant: Variant, recipe: Recipe, architecture: Architecture, counted: ParameterCount, device: Device
) -> tuple[int, int]:
    """Bytes of the checkpoint, and bytes that running it takes at least."""
    weights = weight_bytes(counted, variant.method, variant.bits, methods.settings_in(recipe, variant))
    if weights is None:
        return 0, 0  # recorded as not offered
    files = checkpoint_bytes(weights.bytes_total, variant.method, tokenizer_bytes(architecture.vocab_size))
    spec, engine = recipe.measure, engines.engine_for(methods.load(variant.method).format)
    smallest = workloads(spec, device)[0]
    tokens = smallest.context + spec.prompt_tokens + spec.decode_tokens
    cache = cache_bytes(architecture, tokens).total * smallest.batch
    if device.device.startswith("cuda"):
        return files, weights.bytes_total + cache + overhead_bytes(variant.method)[0]
    about = calibration().cpu
    beside = about.overhead_bytes[engine][0] + about.empty_process_bytes[engine]
    return files, weights.bytes_total + cache + beside


def _not_made(variant: Variant, counted: ParameterCount, device: Device) -> CellFailure | None:
    """Why the machine's memory does not hold what quantizing certainly needs of it; None where it does."""
    needed = methods.load(variant.method).memory(counted.total, variant.bits).host_bytes
    try:
        require_host_memory(device, needed, f"{variant.slug}: quantizing")
    except CellFailure as failure:
        return failure
    return None


def _failure(slug: str, size: int, device: Device) -> CellFailure:
    return CellFailure(
        "does_not_fit",
        f"{slug} needs at least {size / 2**30:.1f} GiB of memory, {device.name} has"
        f" {device.memory_bytes / 2**30:.1f} GiB",
    )


def _seconds(variants: Iterable[Variant], parameters: int, device: Device, here: Path) -> float | None:
    known = {variant.slug: _measured_seconds(variant.slug, parameters, device, here) for variant in variants}
    times = [seconds for seconds in known.values() if seconds is not None]
    return sum(times) if times and len(times) == len(known) else None


def _measured_seconds(slug: str, parameters: int, device: Device, here: Path) -> float | None:
    """Of the record nearest in size."""
    measured = [
        (
            abs(made.parameters - parameters),
            (made.seconds + (tasks.seconds or 0)) * parameters / made.parameters,
        )
        for made, tasks in _records(slug, here)
        if made.parameters
        and made.seconds is not None
        and tasks.seconds is not None
        and made.device == device.name
    ]
    return min(measured)[1] if measured else None


def _records(slug: str, here: Path) -> Iterator[tuple[QuantizeRecord, TaskRecord]]:
    for pattern in ("reports/*/data", "runs/*/reports/*/data"):
        for folder in here.glob(f"{pattern}/{slug}"):
            try:
                made, tasks = (
                    read_record(folder / "quantize.json", QuantizeRecord),
                    read_record(folder / "tasks.json", TaskRecord),
                )
            except QuantlabError:  # of another version
                continue
            if made and tasks:
                yield made, tasks


def _minutes(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{max(seconds / 60, 1):.0f} minutes"
