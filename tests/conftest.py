"""The environment that the libraries read when they are imported, as quantlab.stages.isolation sets it for a
stage."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
