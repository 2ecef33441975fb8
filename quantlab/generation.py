"""Greedy answers of a checkpoint to prompts, for people to read; the same prompts and tokens in every engine."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from quantlab import engines
from quantlab.cell import Cell, require_memory
from quantlab.device import Device
from quantlab.errors import QuantlabError
from quantlab.progress import Progress
from quantlab.stages.diverge import runs_dense

BATCH = 4


class Answer(NamedTuple):
    """What a checkpoint says to one prompt."""

    text: str
    token_ids: tuple[int, ...]
    """The text's, by the model's tokenizer."""


def read_prompts(path: Path | None) -> list[str]:
    """One prompt per line, or JSON lines with `prompt`; the shipped ones where no file is named. Raises QuantlabError."""
    if path is None:
        text = files("quantlab").joinpath("prompts.txt").read_text(encoding="utf-8")
        return [line for line in text.splitlines() if line.strip()]
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        prompts = [str(json.loads(line)["prompt"]) for line in lines] if path.suffix == ".jsonl" else lines
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise QuantlabError(
            f"{path} has no prompts ({type(error).__name__}): one per line, or JSON lines with `prompt` in a .jsonl file"
        ) from None
    if not prompts:
        raise QuantlabError(f"{path} is empty: write one prompt per line")
    return prompts


def generate(cell: Cell, device: Device, prompts: list[str], tokens: int, progress: Progress) -> list[Answer]:
    """Answers of at most so many tokens, through the chat template where the tokenizer has one. Raises CellFailure."""
    from lm_eval.api.instance import Instance

    checkpoint = cell.checkpoint()
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    module = engines.load(engines.engine_for(checkpoint.manifest.format))
    with progress.step(f"{cell.variant.slug}: answering {len(prompts)} prompts", len(prompts)) as step:
        engine = module.open_checkpoint(checkpoint, device.device, runs_dense(checkpoint, device))
        lm = engine.language_model(BATCH)
        chat = getattr(lm.tokenizer, "chat_template", None)
        asked = [lm.apply_chat_template([{"role": "user", "content": p}]) if chat else p for p in prompts]
        texts: list[str] = []
        settings = {"until": [], "max_gen_toks": tokens, "do_sample": False}
        for begin in range(0, len(asked), BATCH):
            part = asked[begin : begin + BATCH]
            requests: list[Any] = [Instance("generate_until", {}, (text, dict(settings)), begin + i) for i, text in enumerate(part)]
            texts += lm.generate_until(requests, disable_tqdm=True)
            step.advance(len(part))
        answers = [Answer(text, tuple(lm.tokenizer.encode(text, add_special_tokens=False))) for text in texts]
        engine.close()
    return answers
