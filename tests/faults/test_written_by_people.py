"""Files that people write, each broken in every way that a file can be: recipes, params.yaml, lists of
models, GPUs and prices."""

from __future__ import annotations

from typing import Any

import pytest
from bounded import Attempt, assert_refused
from world import RECIPE, Content, World

LONG = "x" * 250
BROKEN: dict[str, tuple[Content, str]] = {
    "a folder": (None, "is a folder"),
    "not UTF-8": (b"a: \xff\xfe\n", "line 1: byte 0xff is not UTF-8"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "is not UTF-8"),
    "too large": ("# " + "x" * 2**20, "is too large"),
    "deep lists": ("a: " + "[" * 3000 + "]" * 3000, "line 1: lists and mappings stand more than 64 deep"),
    "deep mappings": ("{a: " * 3000 + "}" * 3000, "line 1: lists and mappings stand more than 64 deep"),
    "a repeated key": ("a: {b: 1}\na: {b: 2}\n", "line 2: the key 'a' stands twice"),
    "a number as a key": ("a: {}\n4: {}\n", "line 2: the key '4' is not a text"),
    "infinity": ("a:\n  b: .inf\n", "line 2: '.inf' is not finite"),
    "not a number": ("a:\n  b: .NaN\n", "line 2: '.NaN' is not finite"),
    "an open bracket": ("a: [\n", "is not YAML"),
    "two documents": ("a: 1\n---\na: 2\n", "is not YAML"),
    "a tag": ("a: !!python/object/apply:os.system [ls]\n", "is not YAML"),
    "a bomb": ("a: &a [x, x, x, x, x, x, x, x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 8)}]\n" for n in range(9)), "more than 200,000 values"),
    "itself": ("a: &a [*a]\n", "an alias stands for what it is itself a part of"),
    "a list": ("- a\n- b\n", "mapping|holds something else|catalogue"),
    "a word": ("word\n", "mapping|holds something else|catalogue"),
    "a NUL": ('a: "x\\0"\n', "NUL character"),
}  # fmt: skip
PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "recipe": ("r.yaml", ("run", "./tiny", "--no-run", "--recipe", "r.yaml")),
    "the workspace's recipe": (
        "runs/tiny/recipes/tiny.yaml",
        ("run", "./tiny", "--no-run", "--method", "gguf", "--bits", "4"),
    ),
    "params": ("runs/tiny/params.yaml", ("run", "./tiny", "--no-run", "--method", "gguf", "--bits", "4")),
    "models": ("own/models.yaml", ("plan", "llama-3.1-8b")),
    "gpus": ("own/gpus.yaml", ("plan", "llama-3.1-8b", "--gpu", "h100")),
    "prices": (
        "own/prices.yaml",
        ("cost", "deepseek-v4-flash", "gptq-4", "--gpu", "h100:8", "--tokens-per-month", "5M"),
    ),
}
NOT_THERE = {("models", "a folder"), ("gpus", "a folder"), ("prices", "a folder")}
"""A folder in place of the file that a variable names: said in other words."""
FILES = [(place, fault) for place in PLACES for fault in BROKEN if (place, fault) != ("params", "a folder")]


@pytest.mark.parametrize(
    ("place", "fault"),
    [pytest.param(*each, marks=[pytest.mark.quick] * (n % 3 == 0)) for n, each in enumerate(FILES)],
)
def test_a_broken_file_is_refused(world: World, tried: Attempt, place: str, fault: str) -> None:
    name, line = PLACES[place]
    content, said = BROKEN[fault]
    world.write({name: content})
    assert_refused(tried(*line), "there is no file" if (place, fault) in NOT_THERE else said)


RECIPES: dict[str, tuple[dict[str, Any] | str, str]] = {
    "seed true": ({"seed": True}, "seed: .*valid integer"),
    "seed as text": ({"seed": "4"}, "seed: .*valid integer"),
    "seed -1": ({"seed": -1}, "seed: .*greater than or equal to 0"),
    "a huge seed": ({"seed": 2**40}, "seed: .*less than"),
    "half a seed": ({"seed": 0.5}, "seed: .*integer"),
    "tasks as a word": ({"tasks": ""}, "tasks.*mapping"),
    "tasks as a list": ({"tasks": ["piqa"]}, "tasks.*mapping"),
    "no task": ({"tasks": {"names": []}}, "name at least one task"),
    "a nameless task": ({"tasks": {"names": [""]}}, "none that is empty"),
    "a task twice": ({"tasks": {"names": ["piqa", "piqa"]}}, "stands there twice"),
    "a task as a word": ({"tasks": {"names": "piqa"}}, "tasks.names: .*tuple"),
    "no item": ({"tasks": {"items": 0}}, "tasks.items"),
    "too many items": ({"tasks": {"items": 10**12}}, "tasks.items: .*less than"),
    "items true": ({"tasks": {"items": True}}, "tasks.items: .*valid integer"),
    "an unknown set": ({"tasks": {"set": "nosuch"}}, "unknown task set"),
    "an unknown task": ({"tasks": {"names": ["nosuch"]}}, "unknown task 'nosuch'"),
    "variants as a list": ({"variants": ["gguf-4"]}, "variants is .*, where a mapping belongs"),
    "variants as a word": ({"variants": "gguf-4"}, "variants is .*, where a mapping belongs"),
    "a variant's settings as a number": ({"variants": {"gguf-4": 3}}, "variants.gguf-4: .*dictionary"),
    "a variant's settings as 0": ({"variants": {"gguf-4": 0}}, "variants.gguf-4: .*dictionary"),
    "a leading zero": ({"variants": {"gguf-04": {}}}, "'gguf-04' is not a variant"),
    "capitals": ({"variants": {"GGUF-4": {}}}, "is not a variant"),
    "a long label": ({"variants": {f"gguf-4-{LONG}": {}}}, "is too long for a variant"),
    "an unknown method": ({"variants": {"nosuch-4": {}}}, "unknown method"),
    "an unknown width": ({"variants": {"gptq-99": {}}}, "does not offer 99 bits"),
    "an unknown setting": ({"variants": {"gguf-4": {"nosuch": 1}}}, "variants.gguf-4: nosuch"),
    "a setting true": ({"variants": {"gptq-4": {"group_size": True}}}, "group_size: .*valid integer"),
    "a setting as text": ({"variants": {"gptq-4": {"act_order": "yes"}}}, "act_order: .*valid boolean"),
    "an unknown cache": ({"variants": {"gguf-4": {"cache": "nosuch"}}}, "nosuch"),
    "a name with a path": ({"source": {"path": "tiny"}, "comparison": {"margin_points": 0}}, "margin_points: .*greater than 0"),
    "a margin above 100": ({"comparison": {"margin_points": 101}}, "margin_points: .*less than"),
    "a free hour": ({"measure": {"price_per_device_hour": 0}}, "price_per_device_hour: .*greater than 0"),
    "a price below 0": ({"measure": {"price_per_device_hour": -1}}, "price_per_device_hour: .*greater than 0"),
    "a dear hour": ({"measure": {"price_per_device_hour": 1e300}}, "price_per_device_hour: .*less than"),
    "no repeat": ({"measure": {"repeats": 0}}, "repeats"),
    "a million repeats": ({"measure": {"repeats": 10**6}}, "repeats: .*less than"),
    "no batch": ({"measure": {"batch": []}}, "batch sizes are 1"),
    "a batch of 0": ({"measure": {"batch": [0]}}, "batch sizes are 1"),
    "a huge batch": ({"measure": {"batch": [10**30]}}, "batch"),
    "a batch true": ({"measure": {"batch": [True]}}, "batch.0: .*valid integer"),
    "a context below 0": ({"measure": {"context": [-1]}}, "context depths are 0"),
    "a prompt of 10^12": ({"measure": {"prompt_tokens": 10**12}}, "prompt_tokens: .*less than"),
    "dtype nonsense": ({"reference": {"dtype": "nosuch"}}, "reference.dtype"),
    "dtype int8": ({"reference": {"dtype": "int8"}}, "reference.dtype"),
    "no windows": ({"evaluation": {"windows": 0, "length": 64}}, "evaluation.windows"),
    "short windows": ({"evaluation": {"windows": 1, "length": 1}}, "evaluation.length"),
    "an unknown engine": ({"engine": "nosuch"}, "unknown engine"),
    "an empty engine": ({"engine": ""}, "unknown engine"),
    "an unknown key": ({"nosuch": 1}, "nosuch: Extra"),
    "a number as the caveat": ({"caveat": 3}, "caveat: .*valid string"),
    "no variants": ({"variants": {}}, "nothing to do"),
    "source as a word": ({"source": "tiny"}, "source is 'tiny', where a mapping belongs"),
    "two sources": ({"source": {"path": "tiny", "hub": "a/b"}}, "exactly one of hub, path and pypi"),
}  # fmt: skip


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.quick] * (n % 3 == 0)) for n, name in enumerate(RECIPES)]
)
def test_a_recipe_that_means_nothing_is_refused(world: World, tried: Attempt, fault: str) -> None:
    change, said = RECIPES[fault]
    world.write({"r.yaml": RECIPE | change if isinstance(change, dict) else change})
    assert_refused(tried("run", "./tiny", "--no-run", "--recipe", "r.yaml"), f"r.yaml|{said}")
    assert_refused(tried("run", "./tiny", "--no-run", "--recipe", "r.yaml"), said)


LISTS: dict[str, tuple[str, Content, tuple[str, ...], str]] = {
    "params' models as a word": ("runs/tiny/params.yaml", {"models": "tiny"}, PLACES["params"][1], "models must be a list"),
    "params' cells as a list": ("runs/tiny/params.yaml", {"cells": ["a"]}, PLACES["params"][1], "cells must be a mapping"),
    "a cell without a model": ("runs/tiny/params.yaml", {"cells": {"a": {"variant": "gguf-4"}}}, PLACES["params"][1], "a cell lacks its model"),
    "a model below nothing": ("own/models.yaml", {"m": {"path": "m", "parameters": -1}}, PLACES["models"][1], "parameters: .*greater than 0"),
    "a model of true parameters": ("own/models.yaml", {"m": {"path": "m", "parameters": True}}, PLACES["models"][1], "parameters: .*integer"),
    "a model of two places": ("own/models.yaml", {"m": {"path": "m", "hub": "a/b"}}, PLACES["models"][1], "exactly one of hub"),
    "a model of no place": ("own/models.yaml", {"m": {}}, PLACES["models"][1], "exactly one of hub"),
    "a model as a word": ("own/models.yaml", {"m": "a/b"}, PLACES["models"][1], "models.yaml: m"),
    "a model at a long path": ("own/models.yaml", {"m": {"path": LONG * 2}}, PLACES["models"][1], "too long"),
    "a GPU without memory": ("own/gpus.yaml", {"g": {"bandwidth_gb_per_second": 1}}, PLACES["gpus"][1], "memory_gb"),
    "a GPU of no memory": ("own/gpus.yaml", {"g": {"memory_gb": 0, "bandwidth_gb_per_second": 1}}, PLACES["gpus"][1], "memory_gb"),
    "a GPU of all memory": ("own/gpus.yaml", {"g": {"memory_gb": 1e300, "bandwidth_gb_per_second": 1}}, PLACES["gpus"][1], "memory_gb"),
    "a GPU as a number": ("own/gpus.yaml", {"g": 3}, PLACES["gpus"][1], "gpus.yaml: g"),
    "an unknown section": ("own/prices.yaml", {"nosuch": {}}, PLACES["prices"][1], "unknown section"),
    "prices as a list": ("own/prices.yaml", {"api": [1]}, PLACES["prices"][1], "api holds no list of prices"),
    "a price below 0": ("own/prices.yaml", {"api": {"m": {"input_dollars": -1, "output_dollars": 1, "date": "2026-01", "source": "s"}}}, PLACES["prices"][1], "input_dollars"),
    "an infinite price": ("own/prices.yaml", "api: {m: {input_dollars: .inf, output_dollars: 1, date: 2026-01, source: s}}", PLACES["prices"][1], "'.inf' is not finite"),
    "a dear price": ("own/prices.yaml", {"api": {"m": {"input_dollars": 1e300, "output_dollars": 1, "date": "2026-01", "source": "s"}}}, PLACES["prices"][1], "input_dollars"),
}  # fmt: skip


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.quick] * (n % 3 == 0)) for n, name in enumerate(LISTS)]
)
def test_a_list_that_means_nothing_is_refused(world: World, tried: Attempt, fault: str) -> None:
    name, content, line, said = LISTS[fault]
    world.write({name: content})
    assert_refused(tried(*line), said)
