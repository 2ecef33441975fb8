"""The catalogue: the names that a model can have, where its weights are, and the source of each fact."""

from quantlab.catalogue.entry import Entry, entries, user_file
from quantlab.models.resolved import ResolvedModel, resolve

__all__ = ["Entry", "ResolvedModel", "entries", "resolve", "user_file"]
