"""The shipped DVC pipeline, and the workspace that `quantlab run` makes of it."""
