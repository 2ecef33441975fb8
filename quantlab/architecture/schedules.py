"""Derive the type of each layer that config.json does not list, by the rules of transformers' config classes.

A rule of `families.json` gives the types of `period`, repeated over all layers, but for the `first` and the
`last` layers. `every` names the field that sets the period's length, `from_layer` the one that names the
first sliding layer, and `knobs` are further fields that change the layout in a way that no rule here
describes. `python -m quantlab.architecture._families` derives the rules from the classes, at several depths.
A rule without a period: the class has a layout, but none of this form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantlab.architecture.fields import Fields

Rule = Mapping[str, Any]
DEPTHS = (5, 12, 24, 31, 48, 61, 96)
"""Layers at which a rule must reproduce the class's own layout."""


def expand(rule: Rule, count: int, every: int | None = None) -> list[str]:
    """Types of `count` layers, with `every` as the period's length where it is given."""
    period = _stretched(rule["period"], every) if every else rule["period"]
    types = [period[i % len(period)] for i in range(count)]
    first, last = list(rule.get("first", ()))[:count], list(rule.get("last", ()))[-count:]
    types[: len(first)] = first
    if last:
        types[-len(last) :] = last
    return types


def _stretched(period: Sequence[str], length: int) -> list[str]:
    """The period's one odd layer and as many others as fill the length: the odd one stands where it stood,
    first or last."""
    if len(set(period[:-1])) == 1:  # also for two layers: the last one is odd
        return [period[0]] * (length - 1) + [period[-1]]
    return [period[0]] + [period[-1]] * (length - 1)


def fit(layouts: Mapping[int, Sequence[str]]) -> dict[str, Any]:
    """The shortest rule that reproduces layouts (by number of layers) at every depth; {} where there is
    none."""
    if any(len(layout) != depth for depth, layout in layouts.items()):
        return {}
    whole = list(layouts[max(layouts)])
    for length in range(1, 13):
        for head in range(7):
            for tail in range(2):
                start = 24 // length * length  # behind the first layers, and where a period begins
                rule: dict[str, Any] = {"period": whole[start : start + length]}
                rule |= {"first": whole[:head]} if head else {}
                rule |= {"last": whole[-tail:]} if tail else {}
                if all(expand(rule, depth) == list(layout) for depth, layout in layouts.items()):
                    return rule
    return {}


def scheduled(fields: Fields, count: int) -> list[str] | None:
    """Types of the layers by the rule of the model's config class; None where the class has no layers of
    different types.

    Where the rule cannot tell, all layers are taken as full attention, which needs the most memory, with a
    doubt."""
    rule = fields.rule
    if rule is None:
        return None
    if fields.borrowed:
        fields.doubt(f"config.json does not list its layers' types: those of {fields.family}'s are taken")
    turned = [
        key
        for key, usual in rule.get("knobs", {}).items()
        if fields.raw.get(key, usual) != usual and (fields.raw[key] or usual)
    ]
    if turned or "period" not in rule:
        why = (
            f"{turned[0]} is {fields.raw[turned[0]]!r:.40}"
            if turned
            else "its architecture has no rule for them"
        )
        fields.doubt(
            f"config.json does not list its layers' types and {why}: all are taken as full attention, the"
            " most that it can be"
        )
        return ["full_attention"] * count
    if rule.get("from_layer"):
        return _from_layer(fields, rule["from_layer"], count)
    return _windowed(fields, expand(rule, count, _every(fields, rule)))


def _every(fields: Fields, rule: Rule) -> int | None:
    key = rule.get("every")
    return fields.integer(key) if key and fields.raw.get(key) is not None else None


def _from_layer(fields: Fields, key: str, count: int) -> list[str]:
    if not fields.window() or fields.get("use_sliding_window") is False:
        return ["full_attention"] * count
    first = fields.integer(key, 0) or 0
    return ["sliding_attention" if i >= first else "full_attention" for i in range(count)]


def _windowed(fields: Fields, types: list[str]) -> list[str]:
    """A sliding layer without a window attends to everything."""
    if fields.window():
        return types
    return ["full_attention" if kind == "sliding_attention" else kind for kind in types]
