"""Processes beside this one: how they start, and what they are told."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

# Nearly all of the package, and torch. Nothing of it may ask for a CUDA device: copies of a process that did have none.
IMPORTED_BEFORE = ("remul_md.calculators.ase", "remul_md.training.fit")


def process_context() -> ForkServerContext | SpawnContext:
    """New processes, as copies of a server that has imported torch and computed nothing.

    They start in a tenth of a second, where a new interpreter needs three, and share the memory of what is imported. In
    a copy of this process itself, threads that the copy does not have may hold a lock. On other systems
    they are new interpreters: macOS has libraries that break in a copy, Windows has no such server.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED_BEFORE))
    return context


def process_pool(n_processes: int) -> ProcessPoolExecutor:
    """Processes of one thread each, which see the environment of this one as it is now, not as the server's was.

    Several processes share the cores; one thread gives the same bits everywhere, and tblite shares torch's OpenMP. They
    end when this process is killed, so that one that goes on where it stopped shares its files with nobody.
    """
    return ProcessPoolExecutor(
        n_processes, mp_context=process_context(), initializer=begin_process, initargs=(dict(os.environ),)
    )


def begin_process(environment: Mapping[str, str]) -> None:
    """In a new process: see this environment, compute in one thread, end with the process that started it."""
    import torch

    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
