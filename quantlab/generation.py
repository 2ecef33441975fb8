"""Greedy answers of a checkpoint to prompts, for people to read; the same prompts and tokens in every engine."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from quantlab import engines
from quantlab.cell import Cell, require_memory
from quantlab.device import Device
from quantlab.errors import CellFailure, QuantlabError
from quantlab.parsing import parse_object, read_text, trouble_with_text
from quantlab.progress import Progress
from quantlab.stages.diverge import runs_dense

BATCH = 4
PROMPT_BYTES = 16 * 2**20
"""No file of prompts that people read the answers of is larger."""


class Answer(NamedTuple):
    """What a checkpoint says to one prompt."""

    text: str
    token_ids: tuple[int, ...]
    """The tokens that the model chose, without the one that ended the answer."""
    ended: bool
    """Whether the model ended it; False where the limit on tokens cut it off."""


def read_prompts(path: Path | None) -> list[str]:
    """One prompt per line, or JSON lines with `prompt`; the shipped ones where no file is named. Raises QuantlabError."""
    if path is None:
        text = files("quantlab").joinpath("prompts.txt").read_text(encoding="utf-8")
        return [line for line in text.splitlines() if line.strip()]
    lines = [(number, line) for number, line in enumerate(read_text(path, PROMPT_BYTES).splitlines(), 1) if line.strip()]
    read = _prompt if path.suffix == ".jsonl" else _plain_prompt
    prompts = [read(line, f"{path}, line {number}") for number, line in lines]
    if not prompts:
        raise QuantlabError(f"{path} is empty: write one prompt per line")
    return prompts


def _prompt(line: str, origin: str) -> str:
    found = parse_object(line, origin).get("prompt")
    if not isinstance(found, str) or not found.strip():
        raise QuantlabError(f'{origin} has no prompt, but {found!r:.40}: write {{"prompt": "some text"}}')
    return found


def _plain_prompt(line: str, origin: str) -> str:
    if trouble := trouble_with_text(line):
        raise QuantlabError(f"{origin} holds {trouble}: take it out")
    return line


def generate(cell: Cell, device: Device, prompts: list[str], tokens: int, progress: Progress) -> list[Answer]:
    """Answers of at most so many tokens, through the chat template where the tokenizer has one. Raises CellFailure."""
    checkpoint = cell.checkpoint()
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    module = engines.load(engines.engine_or_usual(checkpoint.manifest.format, cell.recipe.engine))
    with progress.step(f"{cell.variant.slug}: answering {len(prompts)} prompts", len(prompts)) as step:
        engine = module.open_checkpoint(checkpoint, device.device, runs_dense(checkpoint, device))
        lm = engine.language_model(BATCH)
        chat = getattr(lm.tokenizer, "chat_template", None)
        asked = [lm.apply_chat_template([{"role": "user", "content": p}]) if chat else p for p in prompts]
        answers: list[Answer] = []
        for begin in range(0, len(asked), BATCH):
            part = asked[begin : begin + BATCH]
            answers += answer(lm, part, tokens)
            step.advance(len(part))
        engine.close()
    return answers


def answer(lm: Any, prompts: list[str], tokens: int) -> list[Answer]:
    """One batch of greedy answers of an engine's language model."""
    made = lm.continuations(prompts, tokens) if hasattr(lm, "continuations") else _transformers(lm, prompts, tokens)
    ends = end_ids(lm)
    found = []
    for ids in made:
        length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        text = str(lm.tokenizer.decode(ids[:length], skip_special_tokens=True))
        found.append(Answer(text, tuple(ids[:length]), length < len(ids)))
    return found


def end_ids(lm: Any) -> frozenset[int]:
    """The tokens that end an answer, as the model's generation config says."""
    if hasattr(lm, "end_ids"):
        return frozenset(lm.end_ids)
    ends = lm.model.generation_config.eos_token_id
    ends = lm.tokenizer.eos_token_id if ends is None else ends
    return frozenset(ends if isinstance(ends, list) else [ends])


def _transformers(lm: Any, prompts: list[str], tokens: int) -> list[list[int]]:
    """lm-eval's HFLM gives texts only: its model is asked as it asks it, and the tokens are kept."""
    import torch

    if tokens >= lm.max_length:
        raise CellFailure("unsupported", f"{tokens} tokens of an answer are asked for, the model's context has {lm.max_length}")
    ids, mask = lm.tok_batch_encode(prompts, left_truncate_len=lm.max_length - tokens)
    pad = lm.tokenizer.pad_token_id
    with torch.inference_mode():
        made = lm.model.generate(
            input_ids=ids.to(lm.device), attention_mask=mask.to(lm.device), max_new_tokens=tokens, do_sample=False, pad_token_id=pad
        )
    return [row.tolist() for row in made[:, ids.shape[1] :]]
