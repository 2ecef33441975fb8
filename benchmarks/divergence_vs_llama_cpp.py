"""Our divergence of a GGUF pair against llama.cpp's own `llama-perplexity --kl-divergence`, in the same run.

    python benchmarks/divergence_vs_llama_cpp.py REFERENCE.gguf VARIANT.gguf TOKENIZER_FOLDER \\
        [--windows 8] [--length 512] [--rounds 3]

Both read the beginning of the embedded evaluation text, as much of it as the windows need, and must find the
same token ids in it. llama-perplexity is built once, from the source that the installed llama-cpp-python
vendors, into quantlab's cache (see llama_tools.py). It stores log-probabilities in 16 bits, ours are exact:
that is the difference to be seen.

Timed on both sides: tokenizing, loading both models, every window through both, the statistics. Left out:
Python's imports on our side; nothing on theirs, which starts in some hundredths of a second. Both files are
read once before, so that neither side waits for the disk. The sides take turns, and each one's quickest round
counts: what else runs on the machine only slows. Tokens per second of processor time stand beside it, because
it slows that less. A token counts once, though both models see it."""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from llama_tools import ENVIRONMENT, build
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from quantlab.analysis.divergence import scored, summarize, window_values
from quantlab.engines.llama_cpp import LlamaCppEngine
from quantlab.models.text import embedded_passages, starts_with_bos
from quantlab.processors import cores
from quantlab.progress import noise_to

PATTERNS = {
    "perplexity": r"Mean PPL\(Q\)\s*:\s*(\S+)",
    "reference perplexity": r"Mean PPL\(base\)\s*:\s*(\S+)",
    "ln PPL ratio": r"Mean ln\(PPL\(Q\)/PPL\(base\)\)\s*:\s*(\S+)",
    "KL divergence": r"Mean\s+KLD:\s*(\S+)",
    "token standard error": r"Mean\s+KLD:\s*\S+\s*±\s*(\S+)",
    "maximum": r"Maximum KLD:\s*(\S+)",
    "p99.9": r"99\.9%\s+KLD:\s*(\S+)",
    "p99": r"99\.0%\s+KLD:\s*(\S+)",
    "p95": r"95\.0%\s+KLD:\s*(\S+)",
    "p90": r"90\.0%\s+KLD:\s*(\S+)",
    "median": r"Median\s+KLD:\s*(\S+)",
    "top-1 agreement %": r"Same top p:\s*(\S+)",
    "delta p mean %": r"Mean\s+Δp:\s*(\S+)",
    "delta p RMS %": r"RMS Δp\s*:\s*(\S+)",
}
"""Where llama-perplexity prints what we name so."""


class Side(NamedTuple):
    """What one side says, and how long it took."""

    statistics: dict[str, float]
    token_ids: NDArray[np.int64]
    """The windows' tokens, shape (windows * length,), before each window's first one gives way to BOS."""
    seconds: float
    cpu_seconds: float
    """Of all threads."""


def theirs(
    binary: Path, reference: Path, variant: Path, text: Path, base: Path, arguments: argparse.Namespace
) -> Side:
    """llama-perplexity's statistics, and the seconds of both of its passes."""
    length = str(arguments.length)
    common = [
        str(binary),
        "-f",
        str(text),
        "-c",
        length,
        "--chunks",
        str(arguments.windows),
        "-t",
        str(cores()),
        "-fa",
        "off",
    ]
    common += ["-b", length, "-ub", length, "--kl-divergence-base", str(base)]
    began, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    _run([*common, "-m", str(reference)])
    output = _run([*common, "-m", str(variant), "--kl-divergence"])
    seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        name: float(match[1]) for name, pattern in PATTERNS.items() if (match := re.search(pattern, output))
    }
    return Side(
        figures, _stored_tokens(base), seconds, used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime
    )


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, env=ENVIRONMENT, check=False, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        sys.exit(f"{Path(command[0]).name} failed with code {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout + done.stderr


def _stored_tokens(base: Path) -> NDArray[np.int64]:
    """The token ids in the head of a base file: 8 letters; length, vocabulary, windows; the ids; all of 32
    bits."""
    with base.open("rb") as file:
        assert file.read(8) == b"_logits_", "llama-perplexity writes another format of base file"
        length, _, windows = np.frombuffer(file.read(12), np.int32)
        return np.frombuffer(file.read(4 * int(length) * int(windows)), np.int32).astype(np.int64)


def enough_text(tokenizer: Any, tokens: int) -> str:
    """The first passages of the evaluation text that give so many tokens."""
    text = ""
    for passage in embedded_passages("evaluation"):
        text += passage + "\n\n"
        tokens -= len(tokenizer.encode(passage, add_special_tokens=False))
        if tokens < 0:
            return text
    sys.exit("the embedded text is shorter than these windows: ask for fewer")


def ours(
    reference: Path, variant: Path, tokenizer: Path, bos: int | None, text: str, arguments: argparse.Namespace
) -> Side:
    """The same statistics as quantlab computes them."""
    began, cpu = time.perf_counter(), time.process_time()
    ids = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    flat = np.array(
        [*(() if bos is None else (bos,)), *ids][: arguments.windows * arguments.length], np.int64
    )
    windows = flat.reshape(arguments.windows, arguments.length).copy()
    if bos is not None:
        windows[:, 0] = bos
    engines = [LlamaCppEngine(path, tokenizer, "cpu") for path in (reference, variant)]
    first = scored(arguments.length).start  # llama-perplexity too asks for the logits of the second half only
    summary = summarize(
        [window_values(engines[0].logits(w, first), engines[1].logits(w, first), w) for w in windows]
    )
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    for engine in engines:
        engine.close()
    statistics = {
        "perplexity": summary.perplexity.value,
        "reference perplexity": summary.reference_perplexity.value,
        "ln PPL ratio": summary.log_perplexity_ratio.value,
        "KL divergence": summary.kl.value,
        "token standard error": summary.kl_token_standard_error,
        "maximum": summary.kl_max,
        **{name: summary.kl_percentiles[name].value for name in ("p99.9", "p99", "p95", "p90", "median")},
        "top-1 agreement %": 100 * summary.top1_agreement.value,
        "delta p mean %": 100 * summary.delta_p.value,
        "delta p RMS %": 100 * summary.delta_p_rms.value,
    }
    return Side(statistics, flat, seconds, cpu_seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path)
    parser.add_argument("variant", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    binary = build("llama-perplexity")
    # llama-perplexity wants two windows of text at the least
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    bos, text = (
        starts_with_bos(tokenizer),
        enough_text(tokenizer, max(2, arguments.windows) * arguments.length),
    )
    for file in (arguments.reference, arguments.variant):
        file.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text, encoding="utf-8")
        rounds: list[tuple[Side, Side]] = []
        for _ in range(arguments.rounds):
            with noise_to(Path(folder) / "log.txt"):
                own = ours(arguments.reference, arguments.variant, arguments.tokenizer, bos, text, arguments)
            rounds.append(
                (
                    own,
                    theirs(
                        binary,
                        arguments.reference,
                        arguments.variant,
                        path,
                        Path(folder) / "base.kld",
                        arguments,
                    ),
                )
            )
    show(rounds, arguments.windows * arguments.length)


def show(rounds: list[tuple[Side, Side]], tokens: int) -> None:
    """Print both sides' figures beside each other. Exits where their token ids differ."""
    mine, peer = rounds[0]
    other_ids = int((mine.token_ids != peer.token_ids).sum())
    if other_ids:
        sys.exit(
            f"{other_ids} of {mine.token_ids.size} token ids differ: the tokenizer's folder does not belong"
            " to these files"
        )
    print(f"{'':24} {'quantlab':>14} {'llama.cpp':>14} {'difference':>12}")
    for name, value in mine.statistics.items():
        other = peer.statistics.get(name)
        print(
            f"{name:24} {value:14.6f} "
            + (f"{other:14.6f} {value - other:12.6f}" if other is not None else f"{'not found':>14}")
        )
    for what, field in (("tokens/s", "seconds"), ("tokens/s of CPU time", "cpu_seconds")):
        mine_rate, peer_rate = (
            tokens / min(getattr(both[side], field) for both in rounds) for side in (0, 1)
        )
        print(f"{what:24} {mine_rate:14.1f} {peer_rate:14.1f} {'ratio':>6} {mine_rate / peer_rate:5.2f}")


if __name__ == "__main__":
    main()
