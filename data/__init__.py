"""Data files only, no code: molecules, shipped potentials and presets, each folder with its source and licence."""
