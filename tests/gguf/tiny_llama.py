"""What the tiny models of these tests are made of: a text, an architecture, a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEXT = (
    "the quick brown fox jumps over the lazy dog while a cat sleeps near the warm stove and dreams of small"
    " grey mice. "
)
ARCHITECTURE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,  # as spread out as a trained model's logits, so that quantization shows
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_tokenizer(folder: Path) -> Any:
    """Byte pairs with byte fallback and a begin token, as llama.cpp's converter knows them."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    raw.train_from_iterator(
        TEXT.split() * 2, trainers.BpeTrainer(vocab_size=320, special_tokens=special, show_progress=False)
    )
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
