"""Find the items of a task that are not independent: questions on one passage."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

SHARED_FIELDS = ("passage", "article", "story", "paragraph", "context")
"""Fields of lm-eval's documents that several questions share: boolq and drop, race, coqa, multirc, squad."""


def cluster_of(sample: Mapping[str, Any]) -> str:
    """The cluster of one of lm-eval's samples: a hash of the text it shares, else of the item itself."""
    doc = sample.get("doc")
    texts = (
        [doc[field] for field in SHARED_FIELDS if isinstance(doc.get(field), str) and doc[field]]
        if isinstance(doc, Mapping)
        else []
    )
    item = f"item {sample.get('subtask', '')} {sample['doc_id']}"
    return hashlib.sha256(texts[0].encode()).hexdigest()[:16] if texts else item
