"""A small Llama of width 256, trained for about a minute on the embedded text: real enough that quantization
shows.

Cached in quantlab's cache under a hash of what it is made of; the same seed and machine give the same model.
"""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path
from typing import Any

from quantlab.files import cache_folder, new_folder
from quantlab.models.text import embedded_passages

CONFIG: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
RECIPE = {
    "seed": 7,
    "calibration": {"text": "embedded", "windows": 8, "length": 64},
    "evaluation": {"text": "embedded", "windows": 4, "length": 64},
    "measure": {"prompt_tokens": 16, "decode_tokens": 4, "repeats": 2},
    "tasks": {"set": "embedded", "names": ["copa"], "items": 10},
}
"""A short run."""
STEPS, BATCH, LENGTH = 300, 8, 128


def tokenizer(folder: Path, size: int) -> Any:
    """Byte pairs with byte fallback as Llama 2's, which llama.cpp's converter knows; trained on the embedded
    text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    words = " ".join(embedded_passages("calibration")[:400]).split()
    raw.train_from_iterator((f" {word}" for word in words), trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.save_pretrained(folder)
    return made


def trained_llama() -> Path:
    """The folder of the trained model."""
    key = hashlib.sha256(
        repr((CONFIG, STEPS, BATCH, LENGTH, Path(__file__).read_bytes())).encode()
    ).hexdigest()[:12]
    target = cache_folder() / "tests" / f"llama-256-{key}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "training.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not target.is_dir():
            with new_folder(target) as folder:
                _train(folder)
    return target


def _train(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tokenizer(folder, CONFIG["vocab_size"])
    ids = torch.tensor(
        [i for passage in embedded_passages("calibration") for i in made(passage + "\n\n")["input_ids"]]
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG | {"vocab_size": len(made)})).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        begins = torch.randint(0, len(ids) - LENGTH, (BATCH,))
        batch = torch.stack([ids[b : b + LENGTH] for b in begins])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(folder)
