"""rMD17 split 01 of seven molecules (CC0), read by `remul_md.datasets.read_frames`; see README.md beside the files."""
