"""Processes beside this one are copies of one that computed nothing, and see what this one sees."""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing import get_all_start_methods
from pathlib import Path

import pytest
import torch

from remul_md.processes import process_context, process_pool


def seen(name: str) -> tuple[str | None, str, int, int]:
    return os.environ.get(name), os.getcwd(), torch.get_num_threads(), os.getppid()


def test_a_process_sees_the_environment_and_the_folder_as_they_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second pool, too, although its server began before."""
    parents = set()
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        monkeypatch.setenv("REMUL_MD_TOLD", place)
        with process_pool(1) as pool:
            told, folder, n_threads, parent = pool.submit(seen, "REMUL_MD_TOLD").result()
        assert (told, Path(folder), n_threads) == (place, tmp_path / place, 1)
        parents.add(parent)
    if "forkserver" in get_all_start_methods():
        assert len(parents) == 1
        assert os.getpid() not in parents


def test_a_lock_of_another_thread_is_not_held_there() -> None:
    with LOCK, process_pool(1) as pool:
        assert pool.submit(takes_the_lock).result()


LOCK = threading.Lock()


def takes_the_lock() -> bool:
    return LOCK.acquire(timeout=5.0)


@pytest.mark.skipif("forkserver" not in get_all_start_methods(), reason="no server of processes here")
def test_what_takes_long_to_import_is_there_already() -> None:
    """Nothing here imports the calculator, in which nearly all of the package is."""
    with process_context().Pool(1) as pool:
        assert pool.apply(is_imported, ("remul_md.calculators.ase",))


def is_imported(module: str) -> bool:
    return module in sys.modules
