"""Our divergence of a GGUF pair against llama.cpp's own `llama-perplexity --kl-divergence`, in the same run.

    python benchmarks/divergence_vs_llama_cpp.py REFERENCE.gguf VARIANT.gguf TOKENIZER_FOLDER [--windows 8] [--length 512]

Both read the embedded evaluation text. llama-perplexity is built once, from the source that the installed
llama-cpp-python vendors, into quantlab's cache (see llama_tools.py).
It stores log-probabilities in 16 bits, ours are exact: that is the difference to be seen. Printed are both columns of
statistics, and the tokens per second of each, loading included, with their ratio.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from llama_tools import ENVIRONMENT, build

from quantlab.analysis.divergence import summarize, window_values
from quantlab.device import cores
from quantlab.engines.llama_cpp import LlamaCppEngine
from quantlab.text import embedded_passages

Found = tuple[dict[str, float], float]
"""Statistics by name, and seconds."""


def theirs(binary: Path, reference: Path, variant: Path, text: Path, base: Path, arguments: argparse.Namespace) -> Found:
    """llama-perplexity's statistics, and the seconds of both of its passes."""
    length = str(arguments.length)
    common = [str(binary), "-f", str(text), "-c", length, "--chunks", str(arguments.windows), "-t", str(cores()), "-fa", "off"]
    common += ["-b", length, "-ub", length, "--kl-divergence-base", str(base)]
    began = time.perf_counter()
    subprocess.run([*common, "-m", str(reference)], env=ENVIRONMENT, check=True, capture_output=True)
    done = subprocess.run([*common, "-m", str(variant), "--kl-divergence"], env=ENVIRONMENT, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    output = done.stdout + done.stderr
    patterns = {
        "perplexity": r"Mean PPL\(Q\)\s*:\s*(\S+)",
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
    return {name: float(found[1]) for name, pattern in patterns.items() if (found := re.search(pattern, output))}, seconds


def ours(reference: Path, variant: Path, tokenizer: Path, text: str, arguments: argparse.Namespace) -> Found:
    """The same statistics as quantlab computes them."""
    from transformers import AutoTokenizer

    ids = np.array(AutoTokenizer.from_pretrained(tokenizer)(text)["input_ids"], np.int64)
    windows = ids[: arguments.windows * arguments.length].reshape(arguments.windows, arguments.length)
    began = time.perf_counter()
    engines = [LlamaCppEngine(path, tokenizer, "cpu") for path in (reference, variant)]
    found = summarize([window_values(engines[0].logits(window), engines[1].logits(window), window) for window in windows])
    seconds = time.perf_counter() - began
    for engine in engines:
        engine.close()
    return {
        "perplexity": found.perplexity.value,
        "ln PPL ratio": found.log_perplexity_ratio.value,
        "KL divergence": found.kl.value,
        "token standard error": found.kl_token_standard_error,
        "maximum": found.kl_max,
        **{name: found.kl_percentiles[name].value for name in ("p99.9", "p99", "p95", "p90", "median")},
        "top-1 agreement %": 100 * found.top1_agreement.value,
        "delta p mean %": 100 * found.delta_p.value,
        "delta p RMS %": 100 * found.delta_p_rms.value,
    }, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("variant", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    arguments = parser.parse_args()
    binary, text = build("llama-perplexity"), "\n\n".join(embedded_passages("evaluation"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text, encoding="utf-8")
        mine, my_seconds = ours(arguments.reference, arguments.variant, arguments.tokenizer, text, arguments)
        peer, peer_seconds = theirs(binary, arguments.reference, arguments.variant, path, Path(folder) / "base.kld", arguments)
    print(f"{'':24} {'quantlab':>14} {'llama.cpp':>14} {'difference':>12}")
    for name, value in mine.items():
        other = peer.get(name)
        print(f"{name:24} {value:14.6f} " + (f"{other:14.6f} {value - other:12.6f}" if other is not None else f"{'not found':>14}"))
    tokens = arguments.windows * arguments.length
    mine_rate, peer_rate = tokens / my_seconds, tokens / peer_seconds
    print(f"{'tokens/s, loading too':24} {mine_rate:14.1f} {peer_rate:14.1f} {'ratio':>6} {mine_rate / peer_rate:.2f}")


if __name__ == "__main__":
    main()
