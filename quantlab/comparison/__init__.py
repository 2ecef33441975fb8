"""Compare variants: drops, ratios, savings, noise, verdicts and status, each computed once."""
