"""Gather the candidates: each model of the catalogue, at every method and width, with local measurements.

Each figure says how it is known. Memory is the plan's: weights, cache at the context asked for, activations
and the lowest and highest overhead, on the fullest GPU; measured bytes of a checkpoint take the place of
computed ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.catalogue import Entry, entries
from quantlab.catalogue.config import known_config
from quantlab.catalogue.entry import shipped
from quantlab.catalogue.expectation import expectations, published_score
from quantlab.catalogue.gpu import GpuSet, GpuSpec, gpu_called
from quantlab.errors import QuantlabError
from quantlab.formats.json_file import read_object
from quantlab.names import parse_variant
from quantlab.planning.fit import ModelPlan, PlannedWorkload, RigPlan, VariantPlan, plan_model
from quantlab.recommend.losses import QuantizedModel, divergence_nats, drop_points
from quantlab.recommend.measurements import Measured, local_evidence, measured_at
from quantlab.recommend.quantity import Quantity, exact, unknown
from quantlab.recommend.request import Candidate

RELEASED = "as-released"
"""Stands in a variant's place for a release that is stored quantized: quantlab makes no such checkpoint."""


class Hardware(NamedTuple):
    """What the model is to run on."""

    rig: GpuSet | None
    """None: nothing was named, and memory is weights and cache alone."""
    name: str
    bandwidth_known: bool = True
    """False where only an amount of memory was named."""

    @property
    def usable_bytes(self) -> int | None:
        """Of one GPU."""
        return self.rig.gpu.usable_bytes if self.rig else None


class Pool(NamedTuple):
    """The candidates, and which models are none."""

    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, str]
    """By model, why it could not be planned."""
    notes: Mapping[str, tuple[str, ...]] = {}
    """By model, what a reader of its plan must know."""


def memory_alone(size_bytes: int, name: str) -> Hardware:
    """One device of which only the memory is known."""
    gib = size_bytes / 2**30
    return Hardware(
        GpuSet(GpuSpec(name=name, memory_gb=size_bytes / 1e9, usable_gib=gib, bandwidth_gb_per_second=1), 1),
        name,
        bandwidth_known=False,
    )


def gather(root: Path, hardware: Hardware, workload: PlannedWorkload) -> Pool:
    """All candidates for this hardware and context. Raises QuantlabError for a broken catalogue."""
    evidence, known = local_evidence(root), entries()
    own = on_hardware(evidence, hardware)
    candidates: list[Candidate] = []
    left_out: dict[str, str] = {}
    notes: dict[str, tuple[str, ...]] = {}
    for name, entry in known.items():
        if not entry.exists:
            continue
        config = config_of(name, entry)
        if config is None:
            left_out[name] = (
                "no config.json of it is known here, neither the catalogue's nor one in a folder of its own"
            )
            continue
        try:
            plan = _plan(name, config, hardware, workload)
        except QuantlabError as error:
            left_out[name] = str(error)
            continue
        notes[name] = tuple(dict.fromkeys((*plan.warnings, *plan.doubts)))
        candidates += _of_plan(plan, entry, hardware, evidence, own)
    for each in evidence:
        if each.model not in known:
            left_out[each.model] = (
                f"measured in {each.source}, but not in the catalogue: add it to models.yaml to have it"
                " planned"
            )
    return Pool(tuple(candidates), left_out, notes)


def _of_plan(
    plan: ModelPlan,
    entry: Entry,
    hardware: Hardware,
    evidence: Sequence[Measured],
    own: Sequence[Measured],
) -> Iterator[Candidate]:
    """Every variant of one model; other settings at a width are known by their measured bytes alone."""
    planned = {v.slug: v for v in plan.variants if v.weight_bytes is not None and not v.stored}
    for slug, variant in planned.items():
        yield _candidate(plan, variant, slug, entry, hardware, evidence, own)
    for variant in plan.variants:
        if variant.stored and variant.weight_bytes is not None:
            yield _released(plan, variant, entry, hardware)
    labelled = {
        m.variant
        for m in evidence
        if m.model == plan.model and m.disk_bytes and parse_variant(m.variant).label
    }
    for slug in sorted(labelled):
        method, bits, _ = parse_variant(slug)
        if (plain := planned.get(f"{method}-{bits}")) is not None:
            yield _candidate(plan, plain, slug, entry, hardware, evidence, own)


def config_of(name: str, entry: Entry) -> Mapping[str, Any] | None:
    """The config.json behind an alias without asking a hub: that of a local folder, or the catalogue's where
    the alias is its own."""
    path = Path(entry.path) / "config.json" if entry.path else None
    if path and path.is_file():
        return read_object(path)
    original, known = shipped().get(name), known_config(name)
    return known.config if known and original and original.place == entry.place else None


def on_hardware(evidence: Sequence[Measured], hardware: Hardware) -> tuple[Measured, ...]:
    """What was measured on one GPU of this kind: speeds of several GPUs together are measured nowhere
    here."""
    if hardware.rig is None or hardware.rig.count > 1 or not hardware.bandwidth_known:
        return ()
    devices = {each.device for each in evidence if each.device}
    same = {
        device for device in devices if (spec := gpu_called(device)) and spec.name == hardware.rig.gpu.name
    }
    return tuple(each for each in evidence if each.device in same)


def decode_speed(
    rig: RigPlan | None, hardware: Hardware, own: Sequence[Measured], efficiency: float | None = None
) -> Quantity:
    """Decoding speed: the highest that was measured on this hardware (`own`), else the roofline's ceiling ×
    an efficiency."""
    speeds = [each.decode_tokens_per_second for each in own if each.decode_tokens_per_second]
    if speeds:
        return max(speeds, key=lambda q: (q.value or 0.0, q.source))
    if not hardware.bandwidth_known or hardware.rig is None:
        return unknown("no GPU is named, so its bandwidth is not known")
    ceiling = rig.decode_ceiling_tokens_per_second if rig else None
    if ceiling is None:
        return unknown(rig.why_no_ceiling if rig else "it does not fit")
    known = expectations().efficiency
    share = efficiency if efficiency is not None else known.value
    why = "as given" if efficiency is not None else known.source
    return Quantity(
        ceiling * share,
        "estimated",
        None,
        ceiling,
        f"roofline of {ceiling:,.0f} tokens/s × {share:g} ({why})",
    )


def _plan(name: str, config: Mapping[str, Any], hardware: Hardware, workload: PlannedWorkload) -> ModelPlan:
    rig = hardware.rig
    gpu = (rig.gpu.model_dump_json(), rig.count) if rig else None
    return _planned(name, json.dumps(config, sort_keys=True), gpu, workload.model_dump_json())


@lru_cache(maxsize=512)
def _planned(name: str, config: str, gpu: tuple[str, int] | None, workload: str) -> ModelPlan:
    """A plan by the text of what it is made from: a router that gathers again does not plan again."""
    rigs = (GpuSet(GpuSpec.model_validate_json(gpu[0]), gpu[1]),) if gpu else ()
    asked = PlannedWorkload.model_validate_json(workload)
    return plan_model(json.loads(config), name=name, rigs=rigs, workload=asked, place_gpus=gpu is not None)


def _candidate(
    plan: ModelPlan,
    variant: VariantPlan,
    slug: str,
    entry: Entry,
    hardware: Hardware,
    evidence: Sequence[Measured],
    own: Sequence[Measured],
) -> Candidate:
    measured = measured_at(evidence, plan.model, slug)
    subject = QuantizedModel(plan.model, parse_variant(slug), plan.total_parameters)
    rig = variant.rigs[0] if variant.rigs else None
    uses = expectations().uses
    return Candidate(
        model=plan.model,
        variant=slug,
        device=hardware.name,
        drop_points=drop_points(subject, evidence),
        divergence_nats=divergence_nats(subject, evidence),
        decode_tokens_per_second=decode_speed(rig, hardware, measured_at(own, plan.model, slug)),
        memory_bytes=_memory(plan, variant, measured),
        context_tokens=plan.max_context_tokens,
        licence=entry.license,
        parameters=plan.total_parameters,
        scores={use: _score(plan.model, use) for use in uses},
        not_parallel=(rig.not_parallel or "") if rig else "",
    )


def _released(plan: ModelPlan, variant: VariantPlan, entry: Entry, hardware: Hardware) -> Candidate:
    """The release as its publisher stored it, where that is quantized already: nothing is lost against
    itself."""
    rig = variant.rigs[0] if variant.rigs else None
    itself = exact(0.0, "estimated", f"by definition: it is the release, stored as {plan.stored_as}")
    return Candidate(
        model=plan.model,
        variant=RELEASED,
        device=hardware.name,
        drop_points=itself,
        divergence_nats=itself,
        decode_tokens_per_second=decode_speed(rig, hardware, ()),
        memory_bytes=_memory(plan, variant, ()),
        context_tokens=plan.max_context_tokens,
        licence=entry.license,
        parameters=plan.total_parameters,
        scores={use: _score(plan.model, use) for use in expectations().uses},
        not_parallel=(rig.not_parallel or "") if rig else "",
    )


def _memory(plan: ModelPlan, variant: VariantPlan, measured: Sequence[Measured]) -> Quantity:
    size = next((m.disk_bytes for m in measured if m.disk_bytes), None)
    planned = variant.weight_bytes or 0
    source = f"planned, its weights measured in {measured[0].source}" if size else "planned"
    if not variant.rigs:
        return Quantity(
            (size or planned) + (plan.cache_bytes_per_sequence or 0),
            "estimated",
            None,
            None,
            f"{source}: weights and cache",
        )
    rig = variant.rigs[0]
    more = (size - planned) / rig.gpus if size else 0.0
    return Quantity(
        rig.total_bytes + more, "estimated", rig.total_bytes + more, rig.total_high_bytes + more, source
    )


def _score(model: str, use: str) -> Quantity:
    score = published_score(model, use)
    return unknown(score.source) if score.percent is None else exact(score.percent, "estimated", score.source)
