"""Check whether a model fits, at every method and width: weights, cache, activations and overhead separately.

Everything is computed from the model's config.json and the catalogue's GPUs; nothing is loaded and no torch
imported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantlab import engines
from quantlab import methods as packages
from quantlab.architecture.cache_types import cache_type_name
from quantlab.architecture.counts import count
from quantlab.architecture.gguf_model import GgufModel
from quantlab.architecture.kvcache import POLICIES, cache_bytes
from quantlab.architecture.parameters import ParameterCount
from quantlab.architecture.release import StoredFormat
from quantlab.architecture.shape import Architecture, read_architecture
from quantlab.catalogue.gpu import GpuSet, gpus
from quantlab.errors import QuantlabError
from quantlab.formats import GGUF
from quantlab.names import Variant, parse_variant
from quantlab.planning.files import TokenizerBytes, checkpoint_bytes, tokenizer_bytes
from quantlab.planning.parallel import Grain
from quantlab.planning.plan import ModelPlan, PlannedWorkload, RigPlan, VariantPlan
from quantlab.planning.rig import SIZES, PlannedVariant, place, smallest, tensor_parallel_sizes
from quantlab.planning.stored import formats_of, stored_bytes
from quantlab.planning.weights import weight_bytes, why_unknown

__all__ = ["ModelPlan", "PlannedWorkload", "RigPlan", "VariantPlan", "plan_model", "wanted_variants"]


def plan_model(
    config: Mapping[str, Any] | None,
    *,
    name: str,
    rigs: Sequence[GpuSet] = (),
    workload: PlannedWorkload | None = None,
    methods: Sequence[str] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    counted: ParameterCount | None = None,
    warnings: Sequence[str] = (),
    place_gpus: bool = True,
    folder: Path | None = None,
    file: GgufModel | None = None,
) -> ModelPlan:
    """Plan a model from its config.json's content, a GGUF `file`, or its `counted` parameters alone.

    Without `rigs` every variant gets the smallest set of each kind of GPU of the catalogue that holds it;
    with `place_gpus=False` none at all. `methods` are names (all their widths) or variants such as `gptq-4`;
    empty means all. `settings` are a recipe's, by variant. `folder` has the tokenizer, where there is one.
    Raises QuantlabError for a config or a workload that cannot be planned, and for unknown methods."""
    workload = _checked(workload or PlannedWorkload(), file)
    architecture = _architecture(config, file)
    counted = file.counted if file else counted or _count(config, name)
    places = (tuple(rigs) or None) if place_gpus else ()
    chosen = _variants(methods, settings or {}, counted, architecture, places, workload)
    if file and not methods:
        chosen = [_as_file(file, places, workload), *chosen]
    tokenizer = tokenizer_bytes(architecture.vocab_size if architecture else 0, folder)
    return ModelPlan(
        model=name,
        total_parameters=counted.total,
        active_parameters=counted.active,
        **_sureness(architecture, counted),
        warnings=(*warnings, *_warnings(architecture, workload)),
        gpus_asked=bool(rigs),
        tokenizer_counted=tokenizer.counted,
        variants=tuple(_with_files(variant, tokenizer) for variant in chosen),
        **workload.model_dump(),
        **_of_architecture(architecture, workload),
    )


def _sureness(architecture: Architecture | None, counted: ParameterCount) -> dict[str, Any]:
    """Whether the figures are certain, and what a reader must know of them."""
    doubts = (*(architecture.doubts if architecture else ()), *counted.doubts)
    certain = counted.certain and (architecture.certain if architecture else False)
    return {"certain": certain, "doubts": tuple(dict.fromkeys(doubts))}


def _architecture(config: Mapping[str, Any] | None, file: GgufModel | None) -> Architecture | None:
    if file:
        return file.architecture
    return read_architecture(config) if config is not None else None


def _as_file(file: GgufModel, rigs: Sequence[GpuSet] | None, workload: PlannedWorkload) -> VariantPlan:
    """A GGUF file as it is."""
    method = _method_of_gguf()
    bits = math.ceil(file.weights.quantized_bits_per_weight or file.weights.bits_per_weight)
    subject = PlannedVariant(method, bits, file.weights, file.counted, file.architecture)
    return _placed(subject, rigs, workload).model_copy(
        update={"stored": True, "checkpoint_bytes": file.file_bytes}
    )


def _method_of_gguf() -> str:
    return next(name for name in packages.names() if packages.load(name).format == GGUF)


def _variants(
    wanted: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    counted: ParameterCount,
    architecture: Architecture | None,
    rigs: Sequence[GpuSet] | None,
    workload: PlannedWorkload,
) -> list[VariantPlan]:
    """The release as it is stored, where that is quantized and nothing was named, then the variants."""
    chosen = [
        _variant(v, settings.get(v.slug, {}), counted, architecture, rigs, workload)
        for v in wanted_variants(wanted)
    ]
    if architecture and architecture.stored and not wanted:
        chosen = [*_as_stored(architecture.stored, counted, architecture, rigs, workload), *chosen]
    return chosen


def _count(config: Mapping[str, Any] | None, name: str) -> ParameterCount:
    if config is None:
        raise QuantlabError(
            f"nothing is known of {name} to plan from: name a config.json, or a model of the catalogue"
        )
    return count(config)


def _of_architecture(architecture: Architecture | None, workload: PlannedWorkload) -> dict[str, Any]:
    """The plan's fields that only an architecture gives."""
    if architecture is None:
        return {
            "model_type": None,
            "max_context_tokens": None,
            "cache_bytes_per_sequence": None,
            "cache_bytes_by_kind": {},
            "state_bytes": 0,
        }
    policy = "exact" if workload.policy is None else workload.policy
    cache = cache_bytes(architecture, workload.context_tokens, workload.cache_dtype, policy)
    return {
        "model_type": architecture.model_type,
        "max_context_tokens": architecture.max_context,
        "cache_bytes_per_sequence": cache.total,
        "cache_bytes_by_kind": cache.by_kind,
        "cache_bytes_by_policy": _by_policy(architecture, workload),
        "state_bytes": cache.state,
        "stored_as": architecture.stored.label if architecture.stored else None,
    }


def _with_files(variant: VariantPlan, tokenizer: TokenizerBytes) -> VariantPlan:
    if variant.weight_bytes is None or variant.checkpoint_bytes is not None:
        return variant
    method = None if variant.stored else variant.method
    return variant.model_copy(
        update={"checkpoint_bytes": checkpoint_bytes(variant.weight_bytes, method, tokenizer)}
    )


def wanted_variants(methods: Sequence[str]) -> tuple[Variant, ...]:
    """The variants meant by names of methods and by slugs; all that there are for none. Raises
    QuantlabError."""
    variants: list[Variant] = []
    for name in methods or packages.names():
        if name in packages.names():
            variants += [Variant(name, bits) for bits in packages.load(name).bits]
        elif "-" in name:
            variant = parse_variant(name)
            offered = packages.load(variant.method).bits
            if not any(
                variant.bits in packages.load(each).bits for each in packages.names()
            ):  # others are planned as not offered
                raise QuantlabError(
                    f"{variant.method} does not offer {variant.bits} bits: use"
                    f" {' or '.join(map(str, offered))}"
                )
            variants.append(variant)
        else:
            packages.load(name)  # raises, with the known names
    return tuple(dict.fromkeys(variants))


def _by_policy(architecture: Architecture, workload: PlannedWorkload) -> dict[str, int]:
    return {
        policy: cache_bytes(architecture, workload.context_tokens, workload.cache_dtype, policy).total
        for policy in POLICIES
    }


def _checked(workload: PlannedWorkload, file: GgufModel | None) -> PlannedWorkload:
    if workload.context_tokens < 1 or workload.batch < 1:
        raise QuantlabError(
            f"context {workload.context_tokens} and batch {workload.batch} cannot be planned: give 1 or"
            " more of both"
        )
    engine = engines.load(packages.load(_method_of_gguf()).served_by) if file else None
    usual = engine.cache_policy if engine else "exact"
    policy = usual if workload.policy is None else workload.policy
    return workload.model_copy(
        update={"cache_dtype": cache_type_name(workload.cache_dtype), "policy": policy}
    )


def _variant(
    variant: Variant,
    given: Mapping[str, Any],
    counted: ParameterCount,
    architecture: Architecture | None,
    rigs: Sequence[GpuSet] | None,
    workload: PlannedWorkload,
) -> VariantPlan:
    settings = packages.settings_of(variant, given)
    weights = weight_bytes(counted, variant.method, variant.bits, settings)
    if weights is None:
        reason = why_unknown(variant.method, variant.bits)
        return VariantPlan(method=variant.method, bits=variant.bits, weight_bytes=None, reason=reason)
    grains = _grains_of_method(counted, variant.method, settings)
    subject = PlannedVariant(variant.method, variant.bits, weights, counted, architecture, grains)
    return _placed(subject, rigs, workload)


def _grains_of_method(counted: ParameterCount, method: str, settings: Any) -> tuple[Grain, ...]:
    """Groups of columns that share a scale, in the matrices that the method quantizes."""
    size, maker = getattr(settings, "group_size", None) or 0, packages.load(method)
    if size < 1:
        return ()
    return tuple(Grain(m, 1, size) for m in counted.tensors if maker.why_left(counted, m) is None)


def _grains_of_release(counted: ParameterCount, stored: StoredFormat) -> tuple[Grain, ...]:
    """Groups and blocks of the release's own formats."""
    return tuple(
        Grain(matrix, *(form.block or (1, form.group_size or 1)))
        for matrix in counted.tensors
        for form in formats_of(matrix, stored)
    )


def _as_stored(
    stored: StoredFormat,
    counted: ParameterCount,
    architecture: Architecture,
    rigs: Sequence[GpuSet] | None,
    workload: PlannedWorkload,
) -> list[VariantPlan]:
    weights = stored_bytes(counted, stored)
    if weights is None:
        return []
    grains = _grains_of_release(counted, stored)
    subject = PlannedVariant(stored.method, math.ceil(stored.bits), weights, counted, architecture, grains)
    return [_placed(subject, rigs, workload).model_copy(update={"stored": True})]


def _placed(subject: PlannedVariant, rigs: Sequence[GpuSet] | None, workload: PlannedWorkload) -> VariantPlan:
    return VariantPlan(
        method=subject.method,
        bits=subject.bits,
        weight_bytes=subject.weights.bytes_total,
        bits_per_weight=subject.weights.bits_per_weight,
        how=subject.weights.how,
        notes=subject.weights.notes,
        rigs=(
            tuple(place(subject, rig, workload) for rig in rigs)
            if rigs is not None
            else _smallest(subject, workload)
        ),
    )


def _smallest(subject: PlannedVariant, workload: PlannedWorkload) -> tuple[RigPlan, ...]:
    sizes = SIZES if subject.by_layers else tensor_parallel_sizes(subject.architecture, subject.grains)
    return tuple(plan for gpu in gpus().values() if (plan := smallest(subject, gpu, workload, sizes)))


def _warnings(architecture: Architecture | None, workload: PlannedWorkload) -> tuple[str, ...]:
    warnings = []
    if architecture is None:
        warnings.append(
            "only its number of parameters is stated: cache and activations are left out, so it needs more"
            " than is shown"
        )
    elif architecture.max_context and workload.context_tokens > architecture.max_context:
        warnings.append(
            f"the model was made for {architecture.max_context:,} tokens; {workload.context_tokens:,} are"
            " beyond that"
        )
    if architecture and architecture.stored:
        warnings.append(
            f"the release is stored quantized, as {architecture.stored.label}: other variants start from its"
            " dequantized weights"
        )
    return tuple(warnings)
