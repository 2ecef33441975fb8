"""Our speed figures of a transformers checkpoint against a bare `generate`, in the same run.

    cd WORKSPACE; python PATH/benchmarks/harness_overhead.py MODEL VARIANT \\
        [--prompt 128] [--decode 32] [--rounds 5]

Ours are the measure stage's: a worker process that is asked for a prefill and a decode. The bare ones come
from another process with nothing of quantlab's in it but this file:
`AutoModelForCausalLM.from_pretrained(...).generate`, greedy, of forced length. A generation of one token is a
prefill; one of N + 1 tokens less that is a decode of N. The two processes take turns. Printed are the medians
with the whole spread, and the ratio of our speed to theirs round by round."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from quantlab.measuring.worker_client import GridPoint, Worker
from quantlab.workspace.cell import Cell


def bare(folder: str, ids: list[int]) -> None:
    """The bare process: one line with the count of new tokens in, one with seconds out."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # GPTQModel greets on standard output
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", device_map={"": "cpu"}).eval()
    model.generation_config.eos_token_id = (
        None  # no token ends it, and nothing is added to a step to keep it going
    )
    prompt = torch.tensor([ids])
    print("ready", file=answers)
    for line in sys.stdin:
        with torch.inference_mode():
            began = time.perf_counter()
            made = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=int(line), do_sample=False
            )
            seconds = time.perf_counter() - began
        assert made.shape[1] == prompt.shape[1] + int(line)
        print(seconds, file=answers)


def show(what: str, mine: list[float], other: list[float]) -> None:
    print(f"\n{what}, tokens/s     median     lowest    highest")
    for name, values in (
        ("quantlab", mine),
        ("generate", other),
        ("ratio", [a / b for a, b in zip(mine, other, strict=True)]),
    ):
        print(f"{name:12} {statistics.median(values):10.3f} {min(values):10.3f} {max(values):10.3f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("variant")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    cell, work = (
        Cell(Path.cwd(), arguments.model, arguments.variant),
        GridPoint(1, 0, arguments.prompt, arguments.decode),
    )
    ids = cell.prepared.token_ids("evaluation").ravel()[: arguments.prompt].tolist()
    command = [sys.executable, __file__, "--bare", str(cell.checkpoint().weights), json.dumps(ids)]
    mine: list[tuple[float, float]] = []
    other: list[tuple[float, float]] = []
    with (
        Worker(cell, "transformers", "cpu") as worker,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer,
    ):
        assert peer.stdin is not None and peer.stdout is not None
        worker.open_device()
        worker.load()
        peer.stdout.readline()

        def generated(tokens: int) -> float:
            assert peer.stdin is not None and peer.stdout is not None
            peer.stdin.write(f"{tokens}\n")
            peer.stdin.flush()
            return float(peer.stdout.readline())

        for _ in range(arguments.rounds + 1):
            mine.append((worker.prefill(work)["seconds"], worker.decode(work)["seconds"]))
            first, again = (
                generated(1),
                generated(1),
            )  # the first finds the other process's data in the caches, as our prefill does
            other.append((first, generated(arguments.decode + 1) - again))
        peer.stdin.close()
    _show(arguments, worker.about, mine, other)


def _show(
    arguments: argparse.Namespace,
    about: dict[str, Any],
    mine: list[tuple[float, float]],
    other: list[tuple[float, float]],
) -> None:
    """Print both sides' rates; the first round only warmed up."""
    print(
        f"{arguments.model}--{arguments.variant}: {about['kernel']}, {about['dtype']},"
        f" {about['threads']} threads"
    )
    for index, (what, tokens) in enumerate((("prefill", arguments.prompt), ("decode", arguments.decode))):
        show(
            f"{what} of {tokens}",
            [tokens / pair[index] for pair in mine[1:]],
            [tokens / pair[index] for pair in other[1:]],
        )


if __name__ == "__main__":
    bare(sys.argv[2], json.loads(sys.argv[3])) if sys.argv[1:2] == ["--bare"] else main()
