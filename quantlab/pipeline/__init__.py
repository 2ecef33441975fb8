"""The shipped DVC pipeline, and the workspace that `quantlab run` and `quantlab init` make of it."""
