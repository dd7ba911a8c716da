"""One file a format: each reads a trajectory some frames at a time."""
