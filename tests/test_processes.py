"""Processes beside this one are copies of one that computed nothing, and see what this one sees."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from remul_md.processes import IMPORTED_BEFORE, process_context, process_pool

LOCK = threading.Lock()


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
    if sys.platform == "linux":
        assert len(parents) == 1
        assert os.getpid() not in parents


def test_a_lock_of_another_thread_is_not_held_there() -> None:
    with LOCK, process_pool(1) as pool:
        assert pool.submit(takes_the_lock).result()


def takes_the_lock() -> bool:
    return LOCK.acquire(timeout=5.0)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are copies of a server on Linux only")
def test_what_takes_long_to_import_is_there_already() -> None:
    """Nothing here imports the calculator, in which nearly all of the package is."""
    with process_context().Pool(1) as pool:
        assert pool.apply(is_imported, ("remul_md.calculators.ase",))


def is_imported(module: str) -> bool:
    return module in sys.modules


NO_DEVICE = """
import importlib, torch

def asked(*given):
    raise AssertionError("asked for a device")

torch.cuda.is_available = torch.cuda.device_count = torch._C._cuda_getDeviceCount = asked
for name in {names!r}:
    importlib.import_module(name)
try:
    torch.cuda.device_count()
except AssertionError:
    print("imported")
"""


def test_what_is_imported_there_asks_for_no_device() -> None:
    code = NO_DEVICE.format(names=IMPORTED_BEFORE)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "imported\n", done.stderr
