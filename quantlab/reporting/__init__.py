"""Records to tables, plots and markdown. Nothing here measures, and nothing imports torch."""
