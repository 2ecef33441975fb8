"""Give a vocabulary the tokens that it lacks for the rows of the embedding.

Releases pad the embedding to a round number of rows. llama.cpp's converter adds unused tokens for most kinds
of vocabulary, and forgets them for one that is read from tokenizer.json as Llama's; llama.cpp then refuses
the file."""

from __future__ import annotations

import json
from pathlib import Path

from quantlab.architecture.gguf_header import read_header


def rows_without_token(gguf: Path) -> range:
    """Rows of a file's embedding that no token of its vocabulary names."""
    header = read_header(gguf)
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    embedding = header.tensors.get("token_embd.weight")
    if not isinstance(tokens, list) or embedding is None:
        return range(0)
    return range(len(tokens), embedding.shape[-1])


def add_tokens(folder: Path, rows: range) -> bool:
    """Add an unused token for each row to the tokenizer.json of a copied folder; whether it has one."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return False
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    unused = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] += [{"id": row, "content": f"[PAD{row}]"} | unused for row in rows]
    path.unlink()  # a link to the model's own
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return True
