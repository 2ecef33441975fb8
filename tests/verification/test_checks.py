"""Every check fails on something broken, which a stand-in gives it, and passes on the same made whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_rules import MEMORY, _diverged, _speed, seen

from quantlab.hardware.device import Device
from quantlab.hardware.energy import Counter, Meter
from quantlab.records import MeasureRecord, QuantizeRecord
from quantlab.records.measured import Bandwidth, Conditions, GpuCondition
from quantlab.records.verification import Outcome
from quantlab.verification import checks, run_variant
from quantlab.verification.checks import (
    bandwidth,
    cpu_only,
    energy,
    engine,
    head,
    identity,
    overhead,
    places,
    variant,
)
from quantlab.verification.contract import Context

Patch = pytest.MonkeyPatch
CONFIG = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1024,
}
CACHE_BYTES = 4 * 2 * 2 * 64 * (8 + 4) * 2
"""4 layers, keys and values, 2 heads of 64, 12 tokens, bfloat16."""


WEIGHTS = 100


class Bench:
    """Stands for the workspace: gives made-up records instead of running a stage."""

    broken: str = ""
    record: MeasureRecord

    def __init__(
        self, root: Path, device: Device, model: str, dtype: str = "float32", label: str = ""
    ) -> None:
        self.root, self.device, self.model = root, device, model

    def cell(self, slug: str) -> Any:
        (self.root / "config.json").write_text(__import__("json").dumps(CONFIG))
        ids = np.arange(32).reshape(2, 16)
        prepared = SimpleNamespace(weights=self.root, token_ids=lambda purpose: ids)
        manifest = SimpleNamespace(format="safetensors")
        checkpoint = SimpleNamespace(manifest=manifest, disk_bytes=1000)
        return SimpleNamespace(prepared=prepared, checkpoint=lambda: checkpoint)

    def use_engine(self, slug: str, name: str | None = None) -> None:
        self.engine = name

    def quantized(self, slug: str) -> QuantizeRecord:
        after = 9.0 if self.broken == "reload" else 5.0
        return QuantizeRecord(
            model="wide",
            variant=slug,
            quantized_layers=28,
            expected_layers=28,
            stored_bytes=WEIGHTS // 2 if self.broken == "weights" else WEIGHTS,
            loss_in_memory_nats=5.0,
            loss_reloaded_nats=after,
            loss_tolerance_nats=0.05,
        )

    def measured(self, slug: str) -> MeasureRecord:
        memory = MEMORY.model_copy(update={"cache_dtype": "bfloat16", "weights_bytes": WEIGHTS})
        if self.broken == "resident":
            memory = memory.model_copy(update={"weights_bytes": 90})
        if self.broken == "memory":
            memory = memory.model_copy(update={"peak_process_rss_bytes": 99})
        cache = CACHE_BYTES // 2 if self.broken == "cache" else CACHE_BYTES
        speed = _speed("Linear × 29" if self.broken == "kernel" else "Packed × 28", kv_cache_bytes=cache)
        return MeasureRecord(model="wide", variant=slug, engine="transformers", memory=memory, speed=speed)

    def diverged(self, slug: str) -> Any:
        return _diverged(0.9 if self.broken == "divergence" else 0.001, rounded=0.01)

    def reference(self) -> Any:
        wrong = self.broken == "reference"
        return SimpleNamespace(
            dtype="bfloat16", head_max_difference=0.0, head_divergence_nats=0.5 if wrong else 0.0
        )

    def answers(self, slug: str, prompts: list[str], tokens: int) -> list[tuple[int, ...]]:
        return [()] * len(prompts) if self.broken == "answers" else [(5,)] * len(prompts)


def context(device: Device, root: Path, subject: str = "") -> Context:
    return Context(device, root, 60, subject)


def _stages(monkeypatch: Patch, broken: str) -> None:
    monkeypatch.setattr(Bench, "broken", broken)
    monkeypatch.setattr(run_variant, "_planned", lambda bench, slug: WEIGHTS)
    for module in (engine, variant, overhead, head, cpu_only, places):
        monkeypatch.setattr(module, "Bench", Bench)


STAGES = ("resident", "reload", "weights", "memory", "cache", "divergence", "answers")


@pytest.mark.parametrize("broken", ["", *STAGES])
def test_an_engine_fails_on_any_broken_stage(
    broken: str, cpu: Device, tmp_path: Path, monkeypatch: Patch
) -> None:
    _stages(monkeypatch, broken)
    outcome = engine.CHECK.run(context(cpu, tmp_path, "transformers"))
    assert outcome.status == ("failed" if broken else "passed"), outcome


@pytest.mark.parametrize("broken", ["", *STAGES, "kernel"])
def test_a_variant_fails_on_any_broken_stage(
    broken: str, cpu: Device, tmp_path: Path, monkeypatch: Patch
) -> None:
    _stages(monkeypatch, broken)
    outcome = variant.CHECK.run(context(cpu, tmp_path, "wide/gptq-4"))
    assert outcome.status == ("failed" if broken else "passed"), outcome


@pytest.mark.parametrize("broken", ["", "reference", "divergence"])
def test_a_head_that_loses_fails(broken: str, cpu: Device, tmp_path: Path, monkeypatch: Patch) -> None:
    _stages(monkeypatch, broken)
    outcome = head.CHECK.run(context(cpu, tmp_path, "bfloat16"))
    assert outcome.status == ("failed" if broken else "passed"), outcome


def test_a_reference_of_another_dtype_fails() -> None:
    assert head.judge("float32", 0, 0, 0, "bfloat16").status == "failed"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"gpus": 0}, "the driver shows 1 GPUs, torch sees 0"),
        ({"memory_bytes": 40 * 2**30}, "bytes of memory, torch 42,949,672,960"),
        ({"errors": {"float32": 0.3, "bfloat16": 0.01}}, "a product in float32 is wrong"),
        ({"errors": {"float32": float("nan"), "bfloat16": 0.01}}, "a product in float32 is wrong"),
        ({"threads": 10**6}, "torch uses 1000000 threads"),
    ],
)
def test_a_device_that_is_another_fails(
    change: Mapping[str, Any], said: str | None, gpu: Device, tmp_path: Path, monkeypatch: Patch
) -> None:
    whole = identity.Seen(1, 79 * 2**30, {"float32": 1e-4, "bfloat16": 0.01}, 1)
    monkeypatch.setattr(identity, "look", lambda device: whole._replace(**change))
    monkeypatch.setattr(identity, "_facts", lambda device: {})
    if "errors" in change and change["errors"]["float32"] != change["errors"]["float32"]:
        assert identity.complaints(gpu, whole._replace(**change))
        return
    outcome = identity.CHECK.run(context(gpu, tmp_path))
    assert said in outcome.reason if said else outcome.status == "passed", outcome


def test_this_processor_multiplies_right(cpu: Device) -> None:
    found = identity.look(cpu)
    assert found.errors["float32"] < 1e-5 < found.errors["bfloat16"] < 0.01


@pytest.mark.parametrize(
    ("added", "name", "said"),
    [
        (3.0e12, "NVIDIA H100 80GB HBM3", None),
        (5.0e11, "NVIDIA H100 80GB HBM3", "an addition 5e+11"),
        (3.0e12, "NVIDIA A10", "the data sheet says"),
    ],
)
def test_a_bandwidth_that_cannot_be_fails(
    added: float, name: str, said: str | None, gpu: Device, tmp_path: Path, monkeypatch: Patch
) -> None:
    copied = Bandwidth(measured_bytes_per_second=2.9e12, copied_bytes=2**30, threads=None)
    monkeypatch.setattr(bandwidth, "measure", lambda place: copied)
    monkeypatch.setattr(bandwidth, "added_bytes_per_second", lambda place, numbers: added)
    outcome = bandwidth.CHECK.run(context(gpu.model_copy(update={"name": name}), tmp_path))
    assert said in outcome.reason if said else outcome.status == "passed", outcome


def _meter(watts: float) -> Meter:
    joules: Iterator[float] = iter([0.0, watts * 2.0])
    return Meter((Counter(lambda: next(joules)),), source="a counter")


CARD = GpuCondition(
    uuid="GPU-0",
    name="card",
    sm_clock_mhz=1900,
    memory_clock_mhz=2600,
    power_limit_watts=700,
    power_watts=400,
)


@pytest.mark.parametrize(
    ("watts", "card", "said"),
    [
        (400, CARD, None),
        (0, CARD, "the energy counter did not move"),
        (900, CARD, "the limit is 700 W"),
        (30, CARD, "the driver shows 400 W"),
        (400, CARD.model_copy(update={"sm_clock_mhz": None}), "told no clocks"),
    ],
)
def test_a_counter_that_cannot_be_fails(
    watts: float, card: GpuCondition, said: str | None, gpu: Device, tmp_path: Path, monkeypatch: Patch
) -> None:
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(energy, "meter", lambda device: _meter(watts))
    monkeypatch.setattr(energy, "_work", lambda place, seconds: None)
    monkeypatch.setattr(energy, "conditions", lambda device: Conditions(gpus=(card,)))
    monkeypatch.setattr(energy.time, "perf_counter", lambda: next(clock))
    outcome = energy.CHECK.run(context(gpu, tmp_path))
    assert said in outcome.reason if said else outcome.status == "passed", outcome


def test_without_a_counter_energy_does_not_apply(cpu: Device, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(energy, "meter", lambda device: Meter((), reason="no RAPL"))
    outcome = energy.CHECK.run(context(cpu, tmp_path))
    assert (outcome.status, outcome.reason) == ("not_applicable", "no RAPL")


@pytest.mark.parametrize(("held", "status"), [(250_000_000, "passed"), (900_000_000, "failed")])
def test_an_overhead_above_the_planners_fails(
    held: int, status: str, cpu: Device, tmp_path: Path, monkeypatch: Patch
) -> None:
    _stages(monkeypatch, "")
    memory = MEMORY.model_copy(update={"peak_process_rss_bytes": 500 + 110 + held})
    whole = Bench.measured
    monkeypatch.setattr(
        Bench, "measured", lambda self, slug: whole(self, slug).model_copy(update={"memory": memory})
    )
    outcome = overhead.CHECK.run(context(cpu, tmp_path, "transformers"))
    assert outcome.status == status, outcome
    assert outcome.figures["overhead_bytes"] == held


@pytest.mark.parametrize(("peak_gib", "status"), [(3, "passed"), (9, "failed")])
def test_on_a_gpu_the_overhead_is_what_the_driver_saw_more(
    peak_gib: int, status: str, gpu: Device, tmp_path: Path, monkeypatch: Patch
) -> None:
    _stages(monkeypatch, "")
    whole = Bench.measured
    driver = {"sampled": seen(peak_gib * 2**30)}
    monkeypatch.setattr(Bench, "measured", lambda self, slug: whole(self, slug).model_copy(update=driver))
    outcome = overhead.CHECK.run(context(gpu, tmp_path, "transformers"))
    assert outcome.status == status, outcome


class _Sampler:
    """Stands for the sampling process: says what it was told to have seen."""

    found: Any = None

    def __init__(self, file: Path, uuids: Any) -> None:
        assert uuids == ["GPU-0"]

    def __enter__(self) -> _Sampler:
        return self

    def __exit__(self, *_: object) -> None: ...

    def watch(self, pid: int, step: str) -> None: ...

    def result(self) -> Any:
        return self.found


@pytest.mark.parametrize(
    ("found", "visible", "status"),
    [
        (seen(None, used=1000, before=1000), "", "passed"),
        (seen(None, used=1000, before=1000), None, "passed"),
        (seen(300 * 2**20), "", "failed"),
        (seen(None, used=2**30, before=1000), None, "failed"),
        (seen(None, used=2**30, before=1000), "", "passed"),  # somebody else's: this process sees no GPU
        (None, "0", "failed"),
    ],
)
def test_a_process_for_the_cpu_that_opens_a_gpu_fails(
    found: Any, visible: str | None, status: str, gpu: Device, tmp_path: Path, monkeypatch: Patch
) -> None:
    _stages(monkeypatch, "")
    monkeypatch.setattr(_Sampler, "found", found)
    monkeypatch.setattr(cpu_only, "SamplingClient", _Sampler)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    monkeypatch.setattr(cpu_only, "environment_of", lambda cell, stage, device: environment)
    outcome = cpu_only.CHECK.run(context(gpu, tmp_path, "gptq"))
    assert outcome.status == status, outcome


@pytest.mark.parametrize(
    ("by_device", "shift", "said"),
    [
        ({"cuda:0": 500, "cpu": 500}, 0.0, None),
        ({"cuda:0": 1000}, 0.0, "nothing lies on cpu"),
        ({"cuda:0": 500, "cpu": 500}, 3.0, "the split model diverges"),
    ],
)
def test_a_model_over_two_places_that_is_another_fails(
    by_device: dict[str, int], shift: float, said: str | None, gpu: Device, tmp_path: Path, monkeypatch: Patch
) -> None:
    import torch

    _stages(monkeypatch, "")
    logits = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)

    def opened(checkpoint: Any, device: str) -> Any:
        moved = logits + shift * np.eye(16, 64, dtype=np.float32) if device.endswith(",cpu") else logits
        memory = SimpleNamespace(by_device=by_device)
        return SimpleNamespace(logits=lambda ids: moved, memory=lambda: memory, close=lambda: None)

    fake = SimpleNamespace(open_checkpoint=opened)
    monkeypatch.setattr(places.engines, "load", lambda name: fake)
    monkeypatch.setattr(places.engines, "engine_for", lambda form: "any")
    monkeypatch.setattr(places, "free_vram_bytes", lambda gpus: {0: 2**20})
    monkeypatch.setattr(torch, "empty", lambda size, dtype, device: np.zeros(1))
    outcome = places.CHECK.run(context(gpu, tmp_path))
    assert said in outcome.reason if said else outcome.status == "passed", outcome


def test_every_check_is_seen_to_fail_in_this_file() -> None:
    shown: set[str] = {
        "engine",
        "variant",
        "head",
        "identity",
        "bandwidth",
        "energy",
        "overhead",
        "cpu_only",
        "places",
    }
    assert shown == set(checks.names())


def test_checks_of_a_gpu_do_not_apply_to_a_cpu(cpu: Device, gpu: Device) -> None:
    for name in ("cpu_only", "places"):
        assert {one.why_not for one in checks.load(name).subjects(cpu)} == {"no GPU"}
        assert "" in {one.why_not for one in checks.load(name).subjects(gpu)}


def test_every_method_at_every_width_and_every_engine_is_tried(cpu: Device) -> None:
    from quantlab import engines, methods

    tried = {one.name for one in variant.CHECK.subjects(cpu)}
    for name in methods.names():
        widths = [bits for bits in methods.load(name).bits if bits < 16]
        assert {f"wide/{name}-{bits}" for bits in widths} <= tried
        assert not widths or any(one.startswith(f"narrow/{name}-") for one in tried)
    assert {one.name for one in engine.CHECK.subjects(cpu)} == set(engines.names())


def test_an_engine_that_is_not_the_usual_one_runs_what_it_reads(
    cpu: Device, tmp_path: Path, monkeypatch: Patch
) -> None:
    _stages(monkeypatch, "")
    monkeypatch.setattr(variant, "absent", lambda name: "")
    chosen: list[str | None] = []
    monkeypatch.setattr(Bench, "use_engine", lambda self, slug, name=None: chosen.append(name))
    others = [one.name for one in variant.CHECK.subjects(cpu) if "@" in one.name]
    assert "wide/gptq-4@vllm" in others and not any("gguf" in name for name in others)
    run: Callable[[Context], Outcome] = variant.CHECK.run
    assert run(context(cpu, tmp_path, "wide/gptq-4@vllm")).status == "passed"
    run(context(cpu, tmp_path, "wide/gptq-4"))
    assert chosen == ["vllm", None]


def test_fp8_is_unpacked_where_the_gpu_has_no_instructions_for_it(
    cpu: Device, gpu: Device, monkeypatch: Patch
) -> None:
    from quantlab import methods

    (slug,) = [
        f"{n}-8"
        for n in methods.names()
        if methods.load(n).multiplies_in(8) == "fp8" and methods.load(n).bits
    ]
    for capability, packed in (((8, 6), False), ((8, 9), True), ((10, 0), True)):
        monkeypatch.setattr(run_variant, "_capability", lambda device, found=capability: found)
        assert run_variant.multiplies_packed(gpu, slug) == packed
    assert not run_variant.multiplies_packed(cpu, slug) and run_variant.multiplies_packed(cpu, "gptq-4")


def test_an_engine_that_reserves_its_share_has_no_overhead_on_a_gpu(cpu: Device, gpu: Device) -> None:
    from quantlab import engines

    reserving = {name for name in engines.names() if engines.load(name).reserves_gpu}
    assert reserving
    for device, apart in ((gpu, True), (cpu, False)):
        why = {one.name: one.why_not for one in overhead.CHECK.subjects(device)}
        told = [why[name] for name in reserving if "not installed" not in why[name]]
        assert all(("its share" in reason) == apart for reason in told)
        assert apart or not any("its share" in reason for reason in why.values())


@pytest.mark.parametrize("asked", ["transformers", "vllm", None])
def test_the_recipe_names_an_engine_only_where_it_is_not_the_usual_one(
    asked: str | None, cpu: Device, tmp_path: Path
) -> None:
    import yaml

    from quantlab.verification.bench import Bench as Whole

    for file in ("models/wide/text/text.json", "recipes/wide.yaml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "models/wide/text/text.json").write_text("{}")  # as if the model were prepared
    (tmp_path / "recipes/wide.yaml").write_text("model: wide\nengine: another\n")
    Whole(tmp_path, cpu, "wide").use_engine("gptq-4", asked)
    recipe = yaml.safe_load((tmp_path / "recipes/wide.yaml").read_text())
    assert recipe == {"model": "wide", "engine": "vllm" if asked == "vllm" else None}
