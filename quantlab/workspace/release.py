"""Record the multimodal release that a text model was taken out of, and how their names go together."""

from __future__ import annotations

from quantlab.frozen import Frozen
from quantlab.workspace.checkpoint import FileEntry


class Release(Frozen):
    """A release with towers around a language model; only the language model is quantized and measured."""

    model_type: str
    weights: str
    """Folder of the release, from the folder of source.json."""
    files: dict[str, FileEntry]
    body: str
    """What the release's files write where the text model writes `model.`."""
    head: str | None
    """The release's name of the output head, without `.weight`; None where it is tied to the embedding."""
    body_module: str
    """The module of the release's class that is the text model's `model`."""
    head_module: str
    towers: tuple[str, ...]
    """Modules of the release's class beside the language model: they stay in 16 bits."""
    tower_tensors: int
    tower_parameters: int
    tower_bytes: int

    def stored_name(self, name: str) -> str | None:
        """What the release's files call a tensor of the text model; None for one that it has no place for."""
        return _replaced(name, self.body, self.head)

    def is_of_tower(self, stored: str) -> bool:
        """Whether a tensor of the release's files is no part of the text model."""
        return not (stored.startswith(self.body) or stored == f"{self.head}.weight")

    def module_name(self, name: str) -> str | None:
        """What the release's class calls a module of the text model."""
        return _replaced(name, f"{self.body_module}.", self.head_module)

    @property
    def note(self) -> str:
        """One line for the reader of the run and of the report."""
        return (
            f"It is the language part of a {self.model_type} release: that is quantized and measured, and the"
            f" towers and projectors ({self.tower_tensors} tensors, {self.tower_bytes / 1e6:,.1f} MB) stay in"
            " 16 bits, unchanged, and count in a checkpoint's size."
        )


def _replaced(name: str, body: str, head: str | None) -> str | None:
    if name.startswith("model."):
        return body + name.removeprefix("model.")
    if head and (name == "lm_head" or name.startswith("lm_head.")):
        return head + name.removeprefix("lm_head")
    return None
