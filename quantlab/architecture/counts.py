"""Count an architecture's parameters by building it on torch's meta device in a child process.

The count is stored in the user's cache folder under the hash of the config, so the second call takes
milliseconds, and the counts of the catalogue's models ship with quantlab. What building cannot know (layers
for multi-token prediction, which transformers never builds) is computed from the shapes and named apart; it
is in no total."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantlab.architecture.estimate import check_sizes, estimate
from quantlab.architecture.fields import NOT_OF_THE_SHAPE
from quantlab.architecture.parameters import ParameterCount
from quantlab.architecture.searched import count_searched, is_searched
from quantlab.errors import QuantlabError
from quantlab.files import cache_folder, write_text
from quantlab.parsing import read_object

COUNT_VERSION = 3
"""Version of what a count means; part of the cache's key."""

SHIPPED = Path(__file__).with_name("counts.json")
"""Counts of the catalogue's configs, by config_key."""
SECONDS_LIMIT = 300
COMMAND = ("-m", "quantlab.architecture._meta_count")


def count(config: Mapping[str, Any]) -> ParameterCount:
    """Parameters of the model that a config.json describes.

    An architecture that transformers does not know is estimated, `certain=False`. Raises QuantlabError for a
    config without the sizes that an estimate needs, or with impossible ones."""
    check_sizes(config)
    if is_searched(config):
        return count_searched(config)
    key = config_key(config)
    shipped = _shipped().get(key)
    if shipped:
        return ParameterCount.model_validate(shipped)
    path = cache_folder() / "counts" / f"{key[:40]}-{_version()}.json"
    known = _read(path)
    answer = known or _ask(config)
    if "refused" in answer:
        raise QuantlabError(
            f"transformers refuses this config: {answer['refused']}: mend config.json, or name another model"
        )
    if "unknown" in answer:
        return estimate(config, str(answer["unknown"]))
    if not known:
        write_text(path, json.dumps(answer))
    return ParameterCount.model_validate(answer["count"])


def stated(total: int, active: int | None = None, why: str = "") -> ParameterCount:
    """A count from a stated number of parameters alone, `certain=False`: for names that have no config.

    Raises QuantlabError for a number below 1, or more active parameters than there are.
    """
    used = total if active is None else active
    if not 0 < used <= total:
        raise QuantlabError(
            f"{total} parameters with {used} active cannot be: both are 1 or more, and active is at most"
            " the total"
        )
    return ParameterCount(
        architecture="stated",
        total=total,
        active=used,
        active_without_embedding=used,
        embedding=0,
        head=0,
        tied=False,
        by_role={"other": total},
        certain=False,
        doubts=(
            why or "Only a stated number of parameters is known: no shapes, so no exact bytes and no cache.",
        ),
    )


def config_key(config: Mapping[str, Any]) -> str:
    """Hash of what a config says, whatever the order of its keys, and of what a count means."""
    told = {key: value for key, value in config.items() if key not in NOT_OF_THE_SHAPE}
    return hashlib.sha256(json.dumps([COUNT_VERSION, told], sort_keys=True).encode()).hexdigest()


@functools.cache
def _shipped() -> dict[str, Any]:
    counts: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8")) if SHIPPED.is_file() else {}
    return counts


def _version() -> str:
    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _read(path: Path) -> dict[str, Any] | None:
    """What an earlier call stored; None for a file that is not there or was cut."""
    try:
        stored: dict[str, Any] = read_object(path)
        ParameterCount.model_validate(stored["count"])
    except (QuantlabError, ValueError, KeyError):
        return None
    return stored


def _ask(config: Mapping[str, Any]) -> dict[str, Any]:
    """Count in a process of its own, so that this one imports no torch."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", *COMMAND],
            input=json.dumps(dict(config)),
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"unknown": f"building the architecture took more than {SECONDS_LIMIT} seconds"}
    if done.returncode:  # what transformers refuses is answered: this is the counting itself
        reason = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
        return {"unknown": f"quantlab's own counting of this architecture failed ({reason[:200]})"}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
