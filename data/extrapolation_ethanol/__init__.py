"""Ethanol beyond the data (MIT), for tests of potentials only; see README.md beside the files."""
