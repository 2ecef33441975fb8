"""Generate greedy answers of a checkpoint for people to read; the same prompts and tokens in every engine."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from quantlab import engines
from quantlab.errors import QuantlabError
from quantlab.hardware.device import Device
from quantlab.hardware.target import require_memory
from quantlab.parsing import parse_object, read_text, trouble_with_text
from quantlab.progress import Progress
from quantlab.workspace.cell import Cell

BATCH = 4
PROMPT_BYTES = 16 * 2**20
"""No file of prompts that people read the answers of is larger."""


class GeneratedAnswer(NamedTuple):
    """What a checkpoint says to one prompt."""

    text: str
    token_ids: tuple[int, ...]
    """The tokens that the model chose, without the one that ended the answer."""
    ended: bool
    """Whether the model ended it; False where the limit on tokens cut it off."""


def read_prompts(path: Path | None) -> list[str]:
    """One prompt per line, or JSON lines with `prompt`; the shipped ones where no file is named. Raises
    QuantlabError."""
    if path is None:
        text = files("quantlab.evaluation").joinpath("prompts.txt").read_text(encoding="utf-8")
        return [line for line in text.splitlines() if line.strip()]
    lines = [
        (number, line)
        for number, line in enumerate(read_text(path, PROMPT_BYTES).splitlines(), 1)
        if line.strip()
    ]
    read = _prompt if path.suffix == ".jsonl" else _plain_prompt
    prompts = [read(line, f"{path}, line {number}") for number, line in lines]
    if not prompts:
        raise QuantlabError(f"{path} is empty: write one prompt per line")
    return prompts


def _prompt(line: str, origin: str) -> str:
    prompt = parse_object(line, origin).get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise QuantlabError(f'{origin} has no prompt, but {prompt!r:.40}: write {{"prompt": "some text"}}')
    return prompt


def _plain_prompt(line: str, origin: str) -> str:
    if trouble := trouble_with_text(line):
        raise QuantlabError(f"{origin} holds {trouble}: take it out")
    return line


def generate(
    cell: Cell, device: Device, prompts: list[str], tokens: int, progress: Progress
) -> list[GeneratedAnswer]:
    """Answers of at most so many tokens, through the chat template where the tokenizer has one. Raises
    CellFailure."""
    checkpoint = cell.checkpoint()
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    module = engines.load(engines.engine_or_usual(checkpoint.manifest.format, cell.recipe.engine))
    with progress.step(f"{cell.variant.slug}: answering {len(prompts)} prompts", len(prompts)) as step:
        dense, demand = engines.runs_dense(checkpoint, device), engines.Demand(sequences=BATCH)
        engine = module.open_checkpoint(checkpoint, device.device, dense, demand=demand)
        lm = engine.language_model(BATCH)
        chat = getattr(lm.tokenizer, "chat_template", None)
        asked = [lm.apply_chat_template([{"role": "user", "content": p}]) if chat else p for p in prompts]
        answers: list[GeneratedAnswer] = []
        for begin in range(0, len(asked), BATCH):
            part = asked[begin : begin + BATCH]
            answers += answer(engine, lm.tokenizer, part, tokens)
            step.advance(len(part))
        engine.close()
    return answers


def answer(
    engine: engines.OpenCheckpoint, tokenizer: Any, prompts: list[str], tokens: int
) -> list[GeneratedAnswer]:
    """One batch of an engine's greedy answers."""
    ends = engine.end_ids()
    answers = []
    for ids in engine.generate(prompts, tokens):
        length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        text = str(tokenizer.decode(ids[:length], skip_special_tokens=True))
        answers.append(GeneratedAnswer(text, tuple(ids[:length]), length < len(ids)))
    return answers
