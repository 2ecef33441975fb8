"""Find where a checkpoint's loss comes from."""
