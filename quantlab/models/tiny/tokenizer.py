"""Write a tokenizer of 1,000 pieces and 24 special tokens, the same on every machine.

Its merges spell the words of words.txt from left to right, so nothing is trained. Most families get byte
pairs as GPT-2's; `pieces` are SentencePiece's with bytes for what has no piece, with the tokenizer.model that
those releases have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

WORDS = Path(__file__).with_name("words.txt")
PIECES = 1000
SPECIAL = ("<s>", "</s>", "<pad>", "<unk>", "<|im_start|>", "<|im_end|>")
SIZE = 1024
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SPACE = "▁"
_NORMAL, _CONTROL, _UNUSED, _BYTE = 1, 3, 5, 6
"""Kinds of pieces in SentencePiece's model file."""


def write_tokenizer(folder: Path, pieces: bool, special: tuple[str, ...] = ()) -> None:
    """Write tokenizer.json and its configuration, and tokenizer.model where it is made of `pieces`."""
    from transformers import PreTrainedTokenizerFast

    vocabulary, merges = _vocabulary(pieces)
    named = (*SPECIAL, *special)
    named += tuple(f"<|reserved_{i}|>" for i in range(SIZE - PIECES - len(named)))
    raw = _pieces(vocabulary, merges) if pieces else _bytes(vocabulary, merges)
    raw.add_special_tokens(list(named))
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
        add_bos_token=True,
    )
    made.save_pretrained(folder)
    if pieces:
        (folder / "tokenizer.model").write_bytes(_model_file(vocabulary, named))


def _vocabulary(pieces: bool) -> tuple[list[str], list[tuple[str, str]]]:
    """The first pieces, bytes and letters, then one piece for each merge of a word's next letter."""
    from tokenizers import pre_tokenizers

    space = _SPACE if pieces else "Ġ"
    if pieces:
        first = [f"<0x{byte:02X}>" for byte in range(256)] + [_SPACE, *map(chr, range(33, 127))]
    else:
        first = sorted(pre_tokenizers.ByteLevel.alphabet())
    known, merges = dict.fromkeys(first), []
    for word in WORDS.read_text(encoding="utf-8").split():
        left = space
        for letter in word:
            if left + letter not in known and len(known) < PIECES:
                known[left + letter] = None
                merges.append((left, letter))
            left += letter
            if left not in known:
                break
    assert len(known) == PIECES, f"words.txt has too few words: {len(known)} pieces"
    return list(known), merges


def _bytes(vocabulary: list[str], merges: list[tuple[str, str]]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    raw = Tokenizer(models.BPE(vocab=_numbered(vocabulary), merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return raw


def _pieces(vocabulary: list[str], merges: list[tuple[str, str]]) -> Any:
    """As transformers converts a SentencePiece model, with a beginning-of-text token before every text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors

    raw = Tokenizer(models.BPE(vocab=_numbered(vocabulary), merges=merges, byte_fallback=True, fuse_unk=True))
    raw.normalizer = normalizers.Replace(" ", _SPACE)
    raw.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", PIECES)])
    return raw


def _numbered(vocabulary: Iterable[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(vocabulary)}


def _model_file(vocabulary: list[str], special: tuple[str, ...]) -> bytes:
    """The pieces in SentencePiece's format: an earlier merge has a higher score."""
    from sentencepiece import sentencepiece_model_pb2 as format_

    model: Any = format_.ModelProto()  # type: ignore[attr-defined]  # made when it is imported
    for number, piece in enumerate((*vocabulary, *special)):
        kind = _BYTE if number < 256 else _NORMAL if number < PIECES else _CONTROL
        kind = 2 if piece == "<unk>" else _UNUSED if "reserved" in piece else kind
        model.pieces.add(piece=piece, score=-float(number), type=kind)
    model.trainer_spec.model_type = 2  # byte pairs
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.bos_id, model.trainer_spec.eos_id = PIECES, PIECES + 1
    model.trainer_spec.pad_id, model.trainer_spec.unk_id = PIECES + 2, PIECES + 3
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    return bytes(model.SerializeToString(deterministic=True))
