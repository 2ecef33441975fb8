"""Run the shipped DVC pipeline in the workspace that `quantlab run` makes."""
