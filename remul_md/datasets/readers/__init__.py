"""One file a format: each reads a file and gives `Frames` in eV and Angstrom."""
