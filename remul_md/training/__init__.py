"""The one trainer, its objectives and its checkpoints."""
