"""Acetylacetone at 300 and 600 K (MIT), to train and test on; see README.md beside the files."""
