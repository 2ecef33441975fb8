"""Compare the planner's overhead with what an engine held beside weights, cache and activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quantlab import engines
from quantlab.architecture.shape import Architecture, read_architecture
from quantlab.formats.json_file import read_object
from quantlab.hardware.device import Device
from quantlab.names import parse_variant
from quantlab.planning.activations import activation_bytes, llama_activation_bytes
from quantlab.planning.calibration import calibration
from quantlab.planning.rig import overhead_bytes
from quantlab.records import MeasureRecord
from quantlab.records.verification import Outcome
from quantlab.verification.bench import Bench, on_gpu
from quantlab.verification.checks.engine import RANK, absent
from quantlab.verification.contract import Check, Context, Subject, judged, not_applicable
from quantlab.verification.models import WIDE
from quantlab.verification.rules import driver_bytes

_ROOM = 1.25
"""Times the highest figure of the planner that may be held: its figures on a CPU are of one model."""


class Overhead(NamedTuple):
    """Bytes beside weights and cache, and what the planner says they are."""

    measured: int
    low: int
    high: int


def run(context: Context) -> Outcome:
    """Of the 16-bit variant of the engine that the subject names."""
    name = context.subject
    bench = Bench(context.root, context.device, WIDE)
    slug = engines.load(name).sixteen_bit
    bench.use_engine(slug, name)
    record = bench.measured(slug)
    config = read_object(bench.cell(slug).prepared.weights / "config.json")
    found = overhead_of(record, read_architecture(config), on_gpu(context.device))
    if found is None:
        return not_applicable("the planner has no figure for this engine on this device, or nothing was seen")
    return judge(found)


def judge(found: Overhead) -> Outcome:
    """Fails where more is held than the planner's highest figure and its room: a plan would not hold."""
    most = int(_ROOM * found.high)
    said = []
    if found.measured > most:
        said.append(
            f"{found.measured:,} bytes are held beside weights, cache and activations, the planner takes"
            f" {found.low:,} to {found.high:,}: its plans are too optimistic"
        )
    return judged(
        said,
        {
            "overhead_bytes": found.measured,
            "planned_lowest_bytes": found.low,
            "planned_highest_bytes": found.high,
        },
        {"beside the plan": "less than the planner's lowest"} if found.measured < found.low else {},
    )


def overhead_of(record: MeasureRecord, architecture: Architecture, gpu: bool) -> Overhead | None:
    """Of a measurement; None where its memory or the planner's figure is not known."""
    memory, speed = record.memory, record.speed
    assert memory is not None and speed is not None
    if memory.weights_bytes is None:
        return None
    held = memory.weights_bytes + (memory.kv_cache_bytes or 0) + (memory.state_bytes or 0)
    if not gpu:
        ends = calibration().cpu.overhead_bytes.get(record.engine or "")
        above = memory.peak_process_rss_bytes - memory.empty_process_rss_bytes
        return Overhead(above - held, *ends) if ends else None
    peak = driver_bytes(record.sampled)
    if peak is None:
        return None
    point = max(speed.points, key=lambda p: p.batch * (p.context_tokens + p.prompt_tokens))
    tokens = point.context_tokens + point.prompt_tokens
    method = parse_variant(record.variant).method
    in_layers = engines.load(record.engine or "").splits_by_layers
    estimate = llama_activation_bytes if in_layers else activation_bytes
    return Overhead(peak - held - estimate(architecture, tokens, point.batch), *overhead_bytes(method))


def subjects(device: Device) -> Sequence[Subject]:
    """Every engine, right after its own check, whose measurement is taken."""
    return [
        Subject(name, RANK + 2 * place + 1, absent(name) or _reserving(name, device))
        for place, (name, _) in enumerate(engines.with_sixteen_bit())
    ]


def _reserving(name: str, device: Device) -> str:
    """Why an engine's overhead cannot be seen; empty where it can."""
    reserves = on_gpu(device) and engines.load(name).reserves_gpu
    return "the engine takes its share of the GPU as it opens, whatever it needs" if reserves else ""


CHECK = Check(
    name="overhead",
    proves="the planner's overhead holds: what an engine takes beside weights, cache and activations",
    run=run,
    subjects=subjects,
    usual_seconds=20,
    limit_seconds=1800,
)
