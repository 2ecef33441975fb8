"""Store the unquantized model's output, and compute its exact logits."""
