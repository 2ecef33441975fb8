"""Look up the names that a model can have, where its weights are, and the source of each fact."""

from quantlab.catalogue.entry import Entry, entries, user_file

__all__ = ["Entry", "entries", "user_file"]
