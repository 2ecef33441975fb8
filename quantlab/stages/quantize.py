"""Make one cell's checkpoint, and verify it before it counts."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantlab import methods
from quantlab.environments.install import bring_extra
from quantlab.environments.versions import installed
from quantlab.errors import CellFailure, QuantlabError
from quantlab.files import new_folder
from quantlab.formats import GGUF
from quantlab.hardware.device import Device
from quantlab.hardware.memory import process_memory
from quantlab.hardware.target import require_host_memory, require_memory
from quantlab.methods import InMemory, Job, Method
from quantlab.methods import _foreign as foreign
from quantlab.methods._put_back import put_back
from quantlab.models import read_config
from quantlab.models.wrappers import is_release
from quantlab.progress import Progress
from quantlab.records import Failure, QuantizeRecord
from quantlab.reference.comparable import require_same_vocabulary
from quantlab.stages import _external as external
from quantlab.stages._groups import require_groups
from quantlab.stages._verify import Check, check_tokens, made_of, verify
from quantlab.workspace.cell import Cell
from quantlab.workspace.checkpoint import MANIFEST, Manifest, list_files, read_checkpoint, write_manifest
from quantlab.workspace.prepared import Prepared
from quantlab.workspace.release import Release


def run(
    cell: Cell,
    device: Device,
    progress: Progress,
    rehearse: Callable[[], tuple[float | None, tuple[str, ...]]] | None = None,
) -> QuantizeRecord:
    """Make the checkpoint. `rehearse` tries the method on the first layers, gives its seconds and notes, and
    raises CellFailure where it fails.

    Raises CellFailure for what the cell cannot do, QuantlabError for a checkpoint in the way or weights that
    are not those prepared."""
    method = methods.load(cell.variant.method)
    require_possible(cell, method)
    cell.prepared.require_unchanged()
    manifest = _manifest(cell, method)
    _require_free(cell, manifest)
    rehearsal_seconds, said = rehearse() if rehearse else (None, ())
    began = time.monotonic()
    with new_folder(cell.checkpoint_folder) as folder:
        made, check, seconds = _make(cell, method, manifest, folder, device, progress, began)
        cell.prepared.require_unchanged()  # nor did they change while they were read
    record = _record(cell, made, check, seconds, device)
    return record.model_copy(update={"rehearsal_seconds": rehearsal_seconds, "notes": (*said, *record.notes)})


def require_possible(cell: Cell, method: Method) -> None:
    """Raise CellFailure where the method has no such width or its library is missing."""
    variant = cell.variant
    if not method.bits and not variant.external:
        raise CellFailure("not_offered", methods.only_reads(method))
    if variant.bits not in method.bits and not variant.external:
        offered = ", ".join(map(str, method.bits))
        raise CellFailure(
            "not_offered", f"{variant.method} does not offer {variant.bits} bits: it has {offered}"
        )
    missing = set(method.requires) - set(installed(method.requires))
    if missing:
        raise CellFailure(
            "not_installed",
            f"{', '.join(sorted(missing))} is not installed: {bring_extra(method.extra or 'all')}",
        )


def _manifest(cell: Cell, method: Method) -> Manifest:
    """Everything of the manifest that is known before the weights are."""
    source, settings = cell.prepared.source(), methods.settings_in(cell.recipe, cell.variant)
    cache = methods.cache_in(cell.recipe, cell.variant)
    identity = {
        "kind": source.kind,
        "name": source.name,
        "revision": source.revision or "",
        "sha256": cell.prepared.source_sha256,
    }
    return Manifest(
        model=cell.model,
        variant=cell.variant.slug,
        method=cell.variant.method,
        bits=cell.variant.bits,
        format=method.format,
        settings=settings.model_dump(mode="json") | ({"cache": cache} if cache else {}),
        source=identity,
        calibration_sha256=cell.prepared.text().calibration_sha256,
        seed=cell.recipe.seed,
        versions=installed(method.requires),
        tokenizer=_relative(cell.prepared.origin, cell.checkpoint_folder),
        parameters=_parameters(cell, method),
        trust_remote_code=source.trust_remote_code,
    )


def _parameters(cell: Cell, method: Method) -> int:
    """Of the unquantized model that the checkpoint holds: with its towers where they are in it."""
    source = cell.prepared.source()
    if source.release is None or not method.stores_tower:
        return source.parameters
    if cell.variant.external and not is_release(read_config(external.path_of(cell))):
        return source.parameters
    return source.parameters + source.release.tower_parameters


def _relative(target: Path, start: Path) -> str:
    """A path that still holds when the workspace moves, where the target is inside it; else absolute."""
    inside = target.resolve().is_relative_to(start.parents[2].resolve())
    return os.path.relpath(target, start) if inside else str(target.resolve())


def _require_free(cell: Cell, manifest: Manifest) -> None:
    if not (cell.checkpoint_folder / MANIFEST).exists():
        return
    there = read_checkpoint(cell.checkpoint_folder).manifest
    if there.failure is None and (there.settings, there.source, there.seed) != (
        manifest.settings,
        manifest.source,
        manifest.seed,
    ):
        raise QuantlabError(
            f"{cell.checkpoint_folder} was made from other settings: give the variant a label (such as"
            f" {cell.variant.slug}-new), or remove it with `quantlab clean --checkpoints`"
        )


def _make(
    cell: Cell,
    method: Method,
    manifest: Manifest,
    folder: Path,
    device: Device,
    progress: Progress,
    began: float,
) -> tuple[Manifest, Check, float]:
    prepared = cell.prepared
    job = Job(
        source=_start(cell, method, device),
        bits=cell.variant.bits,
        settings=methods.settings_in(cell.recipe, cell.variant),
        calibration=prepared.token_ids("calibration"),
        destination=folder,
        device=device.places.first,
        seed=cell.recipe.seed,
        progress=progress,
        trust_remote_code=manifest.trust_remote_code,
        check_tokens=check_tokens(cell),
    )
    if cell.variant.external:
        foreign.require_same_layers(external.path_of(cell), prepared.weights)
    notes = external.notes_of(cell, device) if cell.variant.external else _notes_on_start(prepared, method)
    # no name is bound to the model in memory: it is gone before the checkpoint is loaded again
    made = made_of(cell, InMemory(None, None) if cell.variant.external else method.quantize(job), device)
    _give_back(device)
    release = prepared.source().release
    if release and not cell.variant.external:
        notes = (*notes, _with_towers(method, folder, prepared.origin, release))
    seconds = time.monotonic() - began
    manifest = manifest.model_copy(update=_weights(cell, folder))
    checkpoint = write_manifest(folder, manifest)
    if cell.variant.external:
        require_same_vocabulary(checkpoint, prepared.source().vocabulary, prepared.source().vocabulary)
    check = verify(cell, folder, manifest, made, device, progress)
    checked = {"collapsed": check.collapsed, "dense_verified": check.dense_verified}
    manifest = manifest.model_copy(update=checked | {"dense_check_nats": check.dense_nats})
    write_manifest(folder, manifest)
    return manifest, check._replace(notes=notes + check.notes), seconds


def _give_back(device: Device) -> None:
    """Give the memory of a model that nobody holds any more back to the device: another process loads the
    checkpoint, and torch keeps what it freed."""
    gc.collect()
    if device.places.gpus:
        import torch

        torch.cuda.empty_cache()


def _start(cell: Cell, method: Method, device: Device) -> Path:
    """The folder that the method starts from. Raises CellFailure where it was not made or does not fit."""
    prepared = cell.prepared
    if method.starts_from == "source":
        needs = method.memory(prepared.source().parameters, cell.variant.bits)
        require_memory(device, needs.device_bytes, "quantizing")
        require_host_memory(device, needs.host_bytes, "quantizing")
        if not cell.variant.external:
            settings = methods.settings_in(cell.recipe, cell.variant)
            require_groups(prepared.weights, prepared.source().trust_remote_code, settings)
        return prepared.weights
    if not cell.variant.external:
        if failure := prepared.gguf().failure:
            raise CellFailure("not_measured", f"no GGUF of the unquantized model: {failure.reason}")
        prepared.require_gguf()
    return prepared.gguf_folder


def _notes_on_start(prepared: Prepared, method: Method) -> tuple[str, ...]:
    """What a reader must know of the model that the method starts from."""
    return prepared.gguf().notes if method.starts_from == GGUF else ()


def _with_towers(method: Method, folder: Path, origin: Path, release: Release) -> str:
    """Make the text model's checkpoint one of the release; returns what a reader must know."""
    if not method.stores_tower:
        return (
            f"It holds the language part of the {release.model_type} release alone: the towers and their"
            " projector are left out (llama.cpp reads them from a file of its own, mmproj)."
        )
    if method.changes_weights:
        put_back(folder, origin, release)
    return release.note


def _weights(cell: Cell, folder: Path) -> dict[str, Any]:
    """Where the weights are: here, or where the baseline's or somebody else's lie, with every file's hash."""
    source = cell.prepared.source()
    if not methods.load(cell.variant.method).changes_weights:
        return {
            "weights": _relative(cell.prepared.origin, cell.checkpoint_folder),
            "files": (source.release or source).files,
        }
    if cell.variant.external:
        path = external.path_of(cell)
        place = path.parent if path.is_file() else path
        return {"weights": _relative(place, cell.checkpoint_folder), "files": foreign.weight_files(path)}
    return {"files": list_files(folder)}


def _record(cell: Cell, manifest: Manifest, check: Check, seconds: float, device: Device) -> QuantizeRecord:
    checkpoint = read_checkpoint(cell.checkpoint_folder)
    allocator = Path(os.environ.get("LD_PRELOAD", "").split(":")[0]).name or "the C library's"
    return QuantizeRecord(
        model=cell.model,
        variant=cell.variant.slug,
        checkpoint_sha256=checkpoint.sha256,
        device=device.name,
        versions=manifest.versions,
        notes=check.notes,
        seconds=seconds,
        peak_rss_bytes=check.quantize_peak_rss_bytes or process_memory().peak_rss_bytes,
        peak_device_bytes=check.peak_device_bytes,
        allocator=allocator,
        stored_bytes=check.stored.total_bytes,
        disk_bytes=checkpoint.disk_bytes,
        parameters=manifest.parameters,
        bits_per_weight=8 * check.stored.total_bytes / (manifest.parameters or 1),
        quantized_bits_per_weight=(
            8 * check.stored.quantized_bytes / check.stored.quantized_parameters
            if check.stored.quantized_parameters
            else None
        ),
        quantized_layers=check.stored.quantized_layers,
        expected_layers=check.expected_layers,
        quantized_experts=check.stored.experts if check.stored.names else None,
        expert_tokens=check.expert_tokens,
        unquantized=check.unquantized,
        tensor_types=check.stored.types,
        loss_in_memory_nats=check.loss_in_memory,
        loss_reloaded_nats=check.loss_reloaded,
        loss_tolerance_nats=check.tolerance,
        collapsed=manifest.collapsed,
    )


def record_failure(cell: Cell, failure: Failure) -> None:
    """Leave a checkpoint folder that says why there are no weights, so that the later stages can say it
    too."""
    with new_folder(cell.checkpoint_folder) as folder:
        variant = cell.variant
        write_manifest(
            folder,
            Manifest(
                model=cell.model,
                variant=variant.slug,
                method=variant.method,
                bits=variant.bits,
                failure=failure,
            ),
        )
