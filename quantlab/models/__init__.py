"""Find a model's source, get it from the hub, and check its files before any weights are loaded.

Every check raises QuantlabError in one line that says what, why and what to do.
"""

from pathlib import Path

from quantlab.errors import QuantlabError
from quantlab.formats.safetensors import check_weights, parameters, weight_files
from quantlab.models.config import check_config, check_stored, read_config
from quantlab.models.disk import disk_needed_bytes, require_disk
from quantlab.models.gguf_file import check_gguf
from quantlab.models.hub import Download, download
from quantlab.models.hub import check as check_hub
from quantlab.models.positions import check_windows, positions_of
from quantlab.models.quantized import require_unquantized
from quantlab.models.tokenizer import check_tokenizer

__all__ = [
    "Download",
    "check_config",
    "check_folder",
    "check_gguf",
    "check_hub",
    "check_tokenizer",
    "check_weights",
    "check_windows",
    "disk_needed_bytes",
    "download",
    "parameters",
    "positions_of",
    "read_config",
    "require_disk",
    "weight_files",
]


def check_folder(folder: Path, trust_remote_code: bool = False, source: bool = True) -> None:
    """Raise QuantlabError where a folder's model cannot be loaded safely: its config, its weights, its
    code.

    A `source` is what everything is compared with, and is refused where it is quantized already."""
    if not folder.is_dir():
        raise QuantlabError(
            f"the folder {folder} does not exist: name a folder with config.json and safetensors, or a"
            " GGUF file"
        )
    config = read_config(folder)
    check_weights(folder)
    check_config(folder, trust_remote_code)
    check_stored(config, folder)
    if source:
        require_unquantized(config, str(folder), folder)
