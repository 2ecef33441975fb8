"""lm-eval's items per second on a GGUF file: our in-process batched model against lm-eval's `gguf` model over a server.

    pip install 'quantlab[bench]'
    python benchmarks/tasks_gguf.py MODEL.gguf TOKENIZER_FOLDER [--items 20] [--task arc_easy]

The peer is what lm-eval offers for GGUF: `lm_eval.models.gguf.GGUFLM`, which asks llama-cpp-python's server for the
log-probabilities of prompt and continuation, one request at a time. Both see the same items of the embedded task set in
the same run, loading excluded. Printed are both rates, their ratio, and how many answers agree.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from quantlab.device import cores
from quantlab.engines.llama_cpp import LlamaCppEngine
from quantlab.recipe import TasksSpec
from quantlab.stages.evaluate import choose_items, load_tasks


def _evaluate(lm: Any, task: str, items: int) -> tuple[dict[int, float], float]:
    """Each item's accuracy, and the seconds."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder:
        (loaded,) = load_tasks(TasksSpec(names=(task,)), Path(folder))
        chosen = choose_items(len(loaded.eval_docs), items, 1234)
        began = time.perf_counter()
        found = simple_evaluate(
            lm,
            tasks=[loaded],
            samples={task: chosen},
            bootstrap_iters=0,
            log_samples=True,
            task_manager=TaskManager(include_defaults=False),
        )
        seconds = time.perf_counter() - began
    return {int(s["doc_id"]): float(s["acc"]) for s in found["samples"][task]}, seconds


def _server(file: Path, port: int, log: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(file), "--port", str(port), "--n_ctx", "2048"]
    return subprocess.Popen([*command, "--logits_all", "true", "--n_threads", str(cores())], stdout=log, stderr=log)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"the server ended: {log.read_text()[-1000:]}\nIs it installed? pip install 'quantlab[bench]'")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit("the server did not answer within a minute")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--task", default="arc_easy")
    arguments = parser.parse_args()
    engine = LlamaCppEngine(arguments.file, arguments.tokenizer, "cpu")
    ours, my_seconds = _evaluate(engine.language_model(8), arguments.task, arguments.items)
    engine.close()
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as file:
            process = _server(arguments.file, port, file)
            try:
                _wait(port, process, log)
                from lm_eval.models.gguf import GGUFLM

                peer: tuple[dict[int, float], float] | str = _evaluate(
                    GGUFLM(base_url=f"http://127.0.0.1:{port}"), arguments.task, arguments.items
                )
            except Exception as error:  # the peer may fail in any way; that is a result too
                peer = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            finally:
                process.terminate()
                process.wait(30)
    print(f"quantlab, in process      {len(ours) / my_seconds:8.2f} items/s, accuracy {sum(ours.values()) / len(ours):.3f}")
    if isinstance(peer, str):
        print(f"lm-eval gguf over server  failed: {peer}")
        return
    theirs, peer_seconds = peer
    same = sum(ours[item] == theirs[item] for item in ours)
    print(f"lm-eval gguf over server  {len(theirs) / peer_seconds:8.2f} items/s, accuracy {sum(theirs.values()) / len(theirs):.3f}")
    print(f"ratio {peer_seconds / my_seconds:.2f}; the same right or wrong on {same} of {len(ours)} items")


if __name__ == "__main__":
    main()
