"""List how it was measured: everything that a reader needs to repeat the report, from records and recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from quantlab.comparison.load import ModelRecords, VariantRecords
from quantlab.errors import QuantlabError
from quantlab.methods import cache_in, effective, settings_in
from quantlab.numbers import listing, significant
from quantlab.recipe import CalibrationSpec, TextSpec
from quantlab.records import Record


class Fact(NamedTuple):
    """One line of the list."""

    what: str
    text: str


def provenance(records: ModelRecords) -> list[Fact]:
    """The list, in the order of the pipeline. A fact that no record holds says so."""
    return [
        Fact("Source", _source(records)),
        *([Fact("Caveat", " ".join(records.recipe.caveat.split()))] if records.recipe.caveat else []),
        *[Fact("Source's note", note) for note in (records.source.notes if records.source else ())],
        Fact("Device", _devices(records)),
        Fact("Threads", _threads(records)),
        Fact("Versions", _versions(records)),
        Fact(
            "Calibration",
            _text(records.recipe.calibration, records.text.calibration_sha256 if records.text else None),
        ),
        Fact("Evaluation text", _evaluation(records)),
        *([Fact("Reference", _reference(records.reference))] if records.reference else []),
        Fact("Tasks", _tasks(records)),
        Fact("Speed", _speed(records)),
        Fact("Seed", str(records.recipe.seed)),
    ]


def published(records: ModelRecords) -> list[Fact]:
    """What the quantize record says of each checkpoint that somebody else made, such as another chat
    template."""
    return [
        Fact(slug, " ".join(variant.notes("quantize")) or "no difference was found")
        for slug, variant in records.variants.items()
        if variant.variant.external and variant.quantize and not variant.failure
    ]


def settings(records: ModelRecords) -> list[Fact]:
    """Each variant's settings, defaults included, as the recipe and the method have them."""
    return [
        Fact(slug, text)
        for slug, variant in records.variants.items()
        if (text := _settings(records, variant))
    ]


def _settings(records: ModelRecords, variant: VariantRecords) -> str:
    if variant.variant.external:
        return "made by somebody else; see its manifest"
    try:
        chosen = effective(variant.variant, settings_in(records.recipe, variant.variant))
        chosen |= {"cache": cache_in(records.recipe, variant.variant)}
    except QuantlabError:
        chosen = dict(records.recipe.variants.get(variant.slug, {}))
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in chosen.items()
        if value is not None
    )


def _source(records: ModelRecords) -> str:
    if records.source:
        source = records.source
        revision = f", revision `{source.revision}`" if source.revision else ""
        return f"{source.kind} `{source.name}`{revision}, {source.parameters:,} parameters, {source.dtype}"
    spec = records.recipe.source
    named = {"hub": spec.hub, "folder": spec.path, "pypi": spec.package}
    kind, name = next((kind, name) for kind, name in named.items() if name)
    pin = spec.revision or spec.sha256
    return f"{kind} `{name}`" + (f", revision `{pin}`" if pin else ", no revision named")


def _reference(description: dict[str, Any]) -> str:
    kept, probabilities = float(description["bytes_per_scored_token"]), 2 * int(description["vocabulary"])
    largest = description.get("largest_activation")
    reach = f"; its activations reach {float(largest):,.0f}" if largest else ""
    return (
        f"the unquantized model in {description['dtype']} on {description['device']}: its final hidden"
        f" states, {kept:,.0f} bytes per scored token ({probabilities / kept:.1f} times less than the"
        f" {probabilities:,} of 16-bit log-probabilities of the whole vocabulary){reach}"
    )


def _devices(records: ModelRecords) -> str:
    used = _by_value((r.device, f"{v.slug}") for v, r in _records(records) if r.device)
    text = (
        next(iter(used))
        if len(used) == 1
        else "; ".join(f"{device}: {listing(slugs)}" for device, slugs in used.items())
    )
    about = {
        key: value
        for key, value in records.device.items()
        if isinstance(value, str | int | float) and key != "name"
    }
    now = f" (this workspace: {', '.join(f'{key} {value}' for key, value in about.items())})" if about else ""
    return (text or "not recorded") + now


def _threads(records: ModelRecords) -> str:
    used = _by_value(
        (str(s.threads), v.measure.engine or "")
        for v in records.variants.values()
        if v.measure and (s := v.measure.speed)
    )
    return "; ".join(f"{threads} ({listing(engines)})" for threads, engines in used.items()) or "not recorded"


def _versions(records: ModelRecords) -> str:
    versions: dict[str, set[str]] = {}
    for _, record in _records(records):
        for library, version in record.versions.items():
            versions.setdefault(library, set()).add(version)
    return (
        ", ".join(f"{library} {' and '.join(sorted(versions[library]))}" for library in sorted(versions))
        or "not recorded"
    )


def _texts(spec: TextSpec) -> str:
    if not isinstance(spec, CalibrationSpec):
        return spec.text
    template = " through the chat template"
    named = [(part, f"{part.text}{template * part.chat_template}") for part in spec.parts]
    return " + ".join(f"{part.share:.0%} {name}" if spec.mix else name for part, name in named)


def _text(spec: TextSpec, sha256: str | None) -> str:
    digest = f", token ids `sha256:{sha256[:16]}`" if sha256 else ""
    return f"{_texts(spec)}, {spec.windows} windows of {spec.length} tokens{digest}"


def _evaluation(records: ModelRecords) -> str:
    digest = records.text.evaluation_sha256 if records.text else None
    done = [v.divergence for v in records.variants.values() if v.divergence and v.divergence.scored_tokens]
    used = _by_value(
        (f"{d.scored_tokens:,} tokens scored in {d.windows} windows of {d.window_tokens}", d.variant)
        for d in done
    )
    counts = (
        next(iter(used), "")
        if len(used) == 1
        else "; ".join(f"{text}: {listing(slugs)}" for text, slugs in used.items())
    )
    dtypes = _by_value((d.dtype or "unknown dtype", d.variant) for d in done)
    ran = "; ".join(f"{dtype}: {listing(slugs)}" for dtype, slugs in dtypes.items())
    dense = [
        f"{d.variant} ({significant(d.dense_check_nats)})" if d.dense_check_nats is not None else d.variant
        for d in done
        if d.dense
    ]
    once = (
        ". Measured on layers dequantized once (their divergence from the real kernel, nats):"
        f" {listing(dense)}"
        if dense
        else ""
    )
    reference = f". Reference in {_reference_dtype(records)}" + (
        f"; variants computed in {ran}" if ran else ""
    )
    return f"{_text(records.recipe.evaluation, digest)}{f'; {counts}' if counts else ''}{reference}{once}"


def _reference_dtype(records: ModelRecords) -> str:
    """What it ran in, from its own description or the records; the recipe may say only `auto`."""
    if "dtype" in records.reference:
        return str(records.reference["dtype"])
    named = {d for v in records.variants.values() if v.divergence and (d := v.divergence.reference_dtype)}
    asked = records.recipe.reference.dtype
    known = listing(sorted(named)) if named else asked
    return known if known != "auto" else "a dtype that is not recorded (the recipe asks for auto)"


def _tasks(records: ModelRecords) -> str:
    results = [(task, r) for v in records.variants.values() if v.tasks for task, r in v.tasks.tasks.items()]
    used = dict.fromkeys(
        f"{task} ({r.metric}, version {r.task_version}, {r.fewshot}-shot, n = {r.score.n:,}"
        + (f", chance {r.chance:g})" if r.chance else ")")
        for task, r in results
    )
    spec = records.recipe.tasks
    template = "with the chat template" if spec.chat_template else "without a chat template"
    return f"lm-eval, set {spec.set}, {template}: {', '.join(used) or 'none was run'}{_scored_in(records)}"


def _scored_in(records: ModelRecords) -> str:
    """What log-likelihoods were computed in, where the records say it."""
    used = _by_value(
        (v.tasks.scored_in, v.slug) for v in records.variants.values() if v.tasks and v.tasks.scored_in
    )
    return (
        f". Scored in {'; '.join(f'{dtype}: {listing(slugs)}' for dtype, slugs in used.items())}"
        if used
        else ""
    )


def _speed(records: ModelRecords) -> str:
    points = [
        p
        for v in records.variants.values()
        if v.measure and v.measure.speed
        for p in v.measure.speed.points
        if p.decode_seconds
    ]
    used = dict.fromkeys(
        f"batch {p.batch}, context {p.context_tokens}: prompt of {p.prompt_tokens} tokens, {p.decode_tokens}"
        f" decoded, {len(p.decode_seconds)} repeats"
        for p in points
    )
    return "; ".join(used) or "not measured"


def _records(records: ModelRecords) -> Iterable[tuple[VariantRecords, Record]]:
    return [(v, r) for v in records.variants.values() for r in v.records.values() if not r.failure]


def _by_value(pairs: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    """Who has which value, in order of appearance, each once."""
    variants: dict[str, dict[str, None]] = {}
    for value, who in pairs:
        variants.setdefault(value, {})[who] = None
    return {value: list(who) for value, who in variants.items()}
