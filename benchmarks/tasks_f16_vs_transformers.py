"""Whether both engines answer alike on the same weights: an F16 GGUF in llama.cpp, its safetensors in
transformers.

    python benchmarks/tasks_f16_vs_transformers.py MODEL-F16.gguf WEIGHTS_FOLDER \\
        [--items 200] [--tasks piqa arc_easy]

The same items in the same order, through lm-eval's own tasks: quantlab's language model on the GGUF file, and
lm-eval's HFLM on the safetensors, in float32 and in float16. An item's answer is the choice with the highest
log-likelihood. Printed is how many answers are the same, and for each that is not, how far the two best
choices lie apart in each engine: less than the engines' rounding is a tie. The largest distance between the
engines on any one item's margin says what that is."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from _answers import Answers, ask

from quantlab.engines.llama_cpp import LlamaCppEngine
from quantlab.progress import noise_to

BATCH = 8


def hflm(weights: Path, dtype: str) -> Any:
    """lm-eval's own transformers model."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(weights, dtype=dtype).eval()
    return HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(weights), batch_size=BATCH)


def compare(task: str, dtype: str, llama: Answers, transformers: Answers) -> None:
    """Print how many answers are the same, and each that is not."""
    assert llama.items.keys() == transformers.items.keys()
    other = [item for item, answer in llama.items.items() if answer.choice != transformers.items[item].choice]
    right = sum(answer.right == transformers.items[item].right for item, answer in llama.items.items())
    apart = max(
        (
            abs(answer.margin_nats - transformers.items[item].margin_nats)
            for item, answer in llama.items.items()
            if item not in other
        ),
        default=0.0,
    )
    print(
        f"{task}, transformers in {dtype}: the same answer on {len(llama.items) - len(other)} of"
        f" {len(llama.items)} items, the same right or wrong on {right}; accuracy {llama.accuracy:.4f} and"
        f" {transformers.accuracy:.4f}; margins of the same answers differ by {apart:.4f} nats at the most"
    )
    for item in other:
        mine, its = llama.items[item], transformers.items[item]
        said = (
            f"llama.cpp {mine.choice} by {mine.margin_nats:.4f} nats, transformers {its.choice} by"
            f" {its.margin_nats:.4f} nats"
        )
        print(f"  item {item}: {said}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--tasks", nargs="+", default=["piqa", "arc_easy"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, noise_to(Path(folder) / "log.txt"):
        engine = LlamaCppEngine(arguments.file, arguments.weights, "cpu")
        lm = engine.language_model(BATCH)
        llama = {task: ask(lm, task, arguments.items) for task in arguments.tasks}
        engine.close()
    for dtype in ("float32", "float16"):
        with tempfile.TemporaryDirectory() as folder, noise_to(Path(folder) / "log.txt"):
            peer = hflm(arguments.weights, dtype)
            transformers = {task: ask(peer, task, arguments.items) for task in arguments.tasks}
        for task in arguments.tasks:
            compare(task, dtype, llama[task], transformers[task])


if __name__ == "__main__":
    main()
