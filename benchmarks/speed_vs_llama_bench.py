"""Our speed figures of a GGUF file against llama.cpp's own `llama-bench`, in the same run.

    python benchmarks/speed_vs_llama_bench.py FILE.gguf TOKENIZER_FOLDER \\
        [--prompt 512] [--decode 128] [--rounds 5]

Both run the same file with the same threads, batches of 2,048 tokens computed 512 at a time, no flash
attention, a float16 cache. In each round ours does one prefill and one decode, in a process that stays and
ends its threads for the while, and then llama-bench is started for one repeat of a prompt and one of a
generation behind a prompt of the same length (its -d): a machine that gets slower slows both. Printed are the
medians with the whole spread, and the ratio of ours to theirs round by round."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from llama_tools import build

from quantlab.engines.llama_cpp import LlamaCppEngine
from quantlab.models.text import embedded_passages
from quantlab.processors import cores


class Rates(NamedTuple):
    """Tokens per second."""

    prefill: float
    decode: float


def theirs(binary: Path, file: Path, arguments: argparse.Namespace) -> Rates:
    """One repeat of each test, its own warm-up before it."""
    command = [
        str(binary),
        "-m",
        str(file),
        "-t",
        str(cores()),
        "-fa",
        "0",
        "-b",
        "2048",
        "-ub",
        "512",
        "-ngl",
        "0",
        "-r",
        "1",
        "-o",
        "json",
    ]
    tests = (
        ["-p", str(arguments.prompt), "-n", "0"],
        ["-p", "0", "-n", str(arguments.decode), "-d", str(arguments.prompt)],
    )
    entries = [
        json.loads(subprocess.run(command + test, check=True, capture_output=True, text=True).stdout)[0]
        for test in tests
    ]
    return Rates(*(float(entry["avg_ts"]) for entry in entries))


def ours(engine: LlamaCppEngine, prompt: np.ndarray, decode: int) -> Rates:
    """As the measure stage times it."""
    began = time.perf_counter()
    engine.prefill(prompt)
    middle = time.perf_counter()
    engine.decode(decode)
    end = time.perf_counter()
    _end_idle_threads()
    return Rates(prompt.size / (middle - began), decode / (end - middle))


def _end_idle_threads() -> None:
    """With OMP_WAIT_POLICY=active, OpenMP's threads spin for as long as they have nothing to do: on
    llama-bench's cores."""
    for name in ("libgomp.so.1", "libomp.so.5", "libomp.dylib"):
        try:
            ctypes.CDLL(name).omp_pause_resource_all(
                1
            )  # omp_pause_soft of OpenMP 5.0: the next parallel region starts them anew
        except (OSError, AttributeError):
            continue


def line(name: str, values: list[float]) -> str:
    return f"{name:12} {statistics.median(values):10.1f} {min(values):10.1f} {max(values):10.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    from transformers import AutoTokenizer

    text = "\n\n".join(embedded_passages("evaluation")[:50])
    prompt = np.array(
        [AutoTokenizer.from_pretrained(arguments.tokenizer)(text)["input_ids"][: arguments.prompt]], np.int64
    )
    binary, engine = build("llama-bench"), LlamaCppEngine(arguments.file, arguments.tokenizer, "cpu")
    ours(engine, prompt, arguments.decode)
    pairs = [
        (ours(engine, prompt, arguments.decode), theirs(binary, arguments.file, arguments))
        for _ in range(arguments.rounds)
    ]
    print(
        f"{arguments.file.name}, {cores()} threads,"
        f" OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'unset')}, {engine.kernel}"
    )
    for index, what in enumerate(
        (f"prefill of {arguments.prompt}", f"decode of {arguments.decode} behind it")
    ):
        mine, other = ([pair[side][index] for pair in pairs] for side in (0, 1))
        ratios = [a / b for a, b in zip(mine, other, strict=True)]
        print(f"\n{what}, tokens/s     median     lowest    highest")
        print(line("quantlab", mine), line("llama-bench", other), sep="\n")
        print(f"{'ratio':12} {statistics.median(ratios):10.3f} {min(ratios):10.3f} {max(ratios):10.3f}")
    engine.close()


if __name__ == "__main__":
    main()
