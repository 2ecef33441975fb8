"""lm-eval's items per second on a GGUF file: our in-process batched model against lm-eval's `gguf` model over
a server.

    pip install 'quantlab[bench]'
    python benchmarks/tasks_gguf.py MODEL.gguf TOKENIZER_FOLDER [--items 20] [--task arc_easy]

The peer is what lm-eval offers for GGUF: `lm_eval.models.gguf.GGUFLM`, which asks llama-cpp-python's server
for the log-probabilities of prompt and continuation, one request at a time. Both see the same items of the
embedded task set in the same run, loading excluded. Printed are both rates, their ratio, and how many answers
agree."""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from _answers import Answers, ask

from quantlab.engines.llama_cpp import LlamaCppEngine
from quantlab.processors import cores
from quantlab.progress import noise_to


def _server(file: Path, port: int, log: Any) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "llama_cpp.server",
        "--model",
        str(file),
        "--port",
        str(port),
        "--n_ctx",
        "2048",
    ]
    return subprocess.Popen(
        [*command, "--logits_all", "true", "--n_threads", str(cores())], stdout=log, stderr=log
    )


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(
                f"the server ended: {log.read_text()[-1000:]}\nIs it installed? pip install 'quantlab[bench]'"
            )
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--task", default="arc_easy")
    parser.add_argument("--fewshot", type=int, default=0, help="examples before each question")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, noise_to(Path(folder) / "log.txt"):
        engine = LlamaCppEngine(arguments.file, arguments.tokenizer, "cpu")
        in_process = ask(engine.language_model(8), arguments.task, arguments.items, arguments.fewshot)
        engine.close()
    print(
        f"quantlab, in process      {len(in_process.items) / in_process.seconds:8.2f} items/s, accuracy"
        f" {in_process.accuracy:.3f}"
    )
    over_server = _peer(arguments)
    if isinstance(over_server, str):
        print(f"lm-eval gguf over server  failed: {over_server}")
        return
    print(
        f"lm-eval gguf over server  {len(over_server.items) / over_server.seconds:8.2f} items/s, accuracy"
        f" {over_server.accuracy:.3f}"
    )
    same = sum(answer.choice == over_server.items[item].choice for item, answer in in_process.items.items())
    print(
        f"ratio {over_server.seconds / in_process.seconds:.2f}; the same answer on {same} of"
        f" {len(in_process.items)} items"
    )


def _peer(arguments: argparse.Namespace) -> Answers | str:
    """lm-eval's own answers, or why there are none and where its source says so."""
    from lm_eval.models.gguf import GGUFLM

    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as file:
            process = _server(arguments.file, port, file)
            try:
                _wait(port, process, log)
                return ask(
                    GGUFLM(base_url=f"http://127.0.0.1:{port}"),
                    arguments.task,
                    arguments.items,
                    arguments.fewshot,
                )
            except Exception as error:  # the peer may fail in any way; that is a result too
                last = traceback.extract_tb(error.__traceback__)[-1]
                return (
                    f"{type(error).__name__}: {' '.join(str(error).split())[:200]} at"
                    f" {Path(last.filename).name}:{last.lineno}: {last.line}"
                )
            finally:
                process.terminate()
                process.wait(30)


if __name__ == "__main__":
    main()
