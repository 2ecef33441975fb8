"""Read what files hold: one reader for each format."""

from typing import Final, Literal

Format = Literal["safetensors", "gguf"]
SAFETENSORS: Final = "safetensors"
GGUF: Final = "gguf"
