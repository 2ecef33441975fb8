"""Parameters of an architecture, counted by building it on torch's meta device in a process of its own.

The count is stored in the user's cache folder under the hash of the config, so the second call takes milliseconds, and
the counts of the catalogue's models ship with quantlab. What building cannot know (layers for multi-token prediction,
which transformers never builds) is computed from the shapes and named apart; it is in no total.
"""

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
from typing import Any, Literal

from quantlab.errors import QuantlabError
from quantlab.files import write_text
from quantlab.parsing import read_object
from quantlab.pypi import cache_folder
from quantlab.records import Frozen

COUNT_VERSION = 2
"""Version of what a count means; part of the cache's key."""

SHIPPED = Path(__file__).with_name("counts.json")
"""Counts of the catalogue's configs, by config_key."""
SECONDS_LIMIT = 300
LAYERS_LIMIT = 10_000

Role = Literal["embedding", "head", "linear", "expert", "router", "norm", "vision", "mtp", "other"]


class Matrix(Frozen):
    """Equal weight matrices of a model: one name, one shape, and in which layers they stand."""

    role: Role
    name: str
    """The module's name with `*` for the numbers in it, such as `model.layers.*.self_attn.q_proj`."""
    out_features: int
    in_features: int
    """Of one matrix; an expert's own, also where transformers holds all experts in one three-dimensional tensor."""
    how_many: int
    layers: tuple[int, ...] = ()
    """Numbers of the layers that have it; () outside the blocks."""
    bias: bool = False
    fused: bool = False
    """Whether it lies in a three-dimensional tensor, which is no torch Linear: some methods leave it alone."""

    @property
    def parameters(self) -> int:
        """Weights of all of them, without biases."""
        return self.out_features * self.in_features * self.how_many


class ParameterCount(Frozen):
    """How many parameters a model has, and where. Tied tensors are counted once."""

    architecture: str
    """The class that was built, such as LlamaForCausalLM; `estimate` where none could be."""
    total: int
    """Without layers for multi-token prediction, with the vision tower where the config has one."""
    active: int
    """Used for one token of text: the total without the vision tower, with experts_per_token / experts of the experts."""
    active_without_embedding: int
    """The same without the input embedding; where that is tied it is the head, and stays in."""
    embedding: int
    head: int
    """0 where it is tied to the embedding."""
    tied: bool
    layers: int = 0
    hidden: int = 0
    query_per_kv: int = 1
    """Query heads that share one key-value head."""
    model_type: str = ""
    experts: int = 0
    """Routed experts in a layer; 0 for a dense model."""
    experts_per_token: int = 0
    by_role: dict[Role, int]
    """Adds up to `total`, but for `mtp`, which is apart."""
    tensors: tuple[Matrix, ...] = ()
    """Every weight matrix of the text model: linears, experts, routers, embedding and head. () where only a number is known."""
    vectors: int = 0
    """Parameters of the text model outside matrices (norms, biases, state-space constants), which stay unquantized."""
    buffers: int = 0
    """Elements of saved tensors that are no parameters, such as routers' corrections; in no total."""
    buffer_bytes: int = 0
    certain: bool = True
    """False where it was estimated: show it with its doubts, never as an exact figure."""
    doubts: tuple[str, ...] = ()
    """What a reader of the figures must know, one sentence each."""


def count(config: Mapping[str, Any]) -> ParameterCount:
    """Parameters of the model that a config.json describes.

    An architecture that transformers does not know is estimated, `certain=False`. Raises QuantlabError for a config
    without the sizes that an estimate needs, or with impossible ones.
    """
    from quantlab.planning.estimate import check_sizes, estimate

    check_sizes(config)
    key = config_key(config)
    shipped = _shipped().get(key)
    if shipped:
        return ParameterCount.model_validate(shipped)
    path = cache_folder() / "counts" / f"{key[:40]}-{_version()}.json"
    known = _read(path)
    answer = known or _ask(config)
    if "refused" in answer:
        raise QuantlabError(f"transformers refuses this config: {answer['refused']}: mend config.json, or name another model")
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
        raise QuantlabError(f"{total} parameters with {used} active are no model: both are 1 or more, and active is at most the total")
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
        doubts=(why or "Only a stated number of parameters is known: no shapes, so no exact bytes and no cache.",),
    )


def config_key(config: Mapping[str, Any]) -> str:
    """Hash of what a config says, whatever the order of its keys, and of what a count means."""
    left_out = ("quantization_config", "auto_map", "dtype", "torch_dtype", "_name_or_path", "transformers_version", "architectures")
    told = {key: value for key, value in config.items() if key not in left_out}
    return hashlib.sha256(json.dumps([COUNT_VERSION, told], sort_keys=True).encode()).hexdigest()


@functools.cache
def _shipped() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8")) if SHIPPED.is_file() else {}
    return found


def _version() -> str:
    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _read(path: Path) -> dict[str, Any] | None:
    """What an earlier call stored; None for a file that is not there or was cut."""
    try:
        found: dict[str, Any] = read_object(path)
        ParameterCount.model_validate(found["count"])
    except (QuantlabError, ValueError, KeyError):
        return None
    return found


def _ask(config: Mapping[str, Any]) -> dict[str, Any]:
    """Count in a process of its own, so that this one imports no torch."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "quantlab.planning._count"],
            input=json.dumps(dict(config)),
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"unknown": f"building the architecture took more than {SECONDS_LIMIT} seconds"}
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
        return {"unknown": f"building the architecture failed ({reason[:200]})"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
