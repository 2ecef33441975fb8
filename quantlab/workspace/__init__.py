"""Find files of a workspace: cells, checkpoints, records, work in progress."""
