"""Processes beside this one: how they start, and what they are told."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context, parent_process
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext


def process_context() -> ForkServerContext | SpawnContext:
    """New processes, as copies of a server that has imported torch and computed nothing.

    They start in a tenth of a second, where a new interpreter needs three, and share the memory of what is imported. In
    a copy of this process itself, threads that the copy does not have may hold a lock. Where there is no such server,
    as on Windows, they are new interpreters.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "remul_md.calculators.ase", "remul_md.training.fit"])
    return context


def process_pool(n_processes: int) -> ProcessPoolExecutor:
    """Processes of one thread each, which see the environment of this one as it is now, not as the server's was.

    Several processes share the cores; one thread gives the same bits everywhere, and tblite shares torch's OpenMP. They
    end when this process is killed, so that one that goes on where it stopped shares its files with nobody.
    """
    return ProcessPoolExecutor(
        n_processes, mp_context=process_context(), initializer=_begin, initargs=(dict(os.environ),)
    )


def _begin(environment: Mapping[str, str]) -> None:
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
