"""Turn records into tables, plots and markdown. Measure nothing and import no torch."""
