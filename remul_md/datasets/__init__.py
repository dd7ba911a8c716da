"""Frames from files and names: readers, the registry of data sets, fetching, splits.

Everything that leaves this package is in eV, Angstrom and eV/Angstrom.
"""

from remul_md.datasets.download import fetch
from remul_md.datasets.read import read_frames
from remul_md.datasets.registry import DatasetEntry, DatasetStatus, list_datasets
from remul_md.datasets.splits import Split, make_split
from remul_md.datasets.summary import describe
from remul_md.datasets.writers import write_frames

__all__ = [
    "DatasetEntry",
    "DatasetStatus",
    "Split",
    "describe",
    "fetch",
    "list_datasets",
    "make_split",
    "read_frames",
    "write_frames",
]
