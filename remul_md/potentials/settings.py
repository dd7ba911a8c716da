"""What a process has set of torch for itself must not reach a potential, and a potential leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from remul_md.errors import InputError


@contextmanager
def own_settings(*, n_threads: int | None = None) -> Iterator[None]:
    """Single precision as torch's default type, no inference mode, and the number of threads that was asked for.

    Other packages set the default type for their own models, a program may call within `torch.inference_mode()`, and
    torch takes all cores: constants would be made in another precision, gradients refused, and small molecules, which
    are many small operations, slowed by threads that wait for each other. All of it is as before afterwards.

    Args:
        n_threads: of operations on the CPU, or None for those that torch has.
    """
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    asked = threads if n_threads is None else n_threads
    with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
        try:
            if dtype != torch.float32:
                torch.set_default_dtype(torch.float32)
            if asked != threads:
                torch.set_num_threads(asked)
            yield
        finally:
            if dtype != torch.float32:
                torch.set_default_dtype(dtype)
            if asked != threads:
                torch.set_num_threads(threads)


def check_threads(n_threads: int | None) -> None:
    """Refuse a number of threads that is none.

    Raises:
        InputError: less than 1, or no whole number.
    """
    if n_threads is not None and (isinstance(n_threads, bool) or not isinstance(n_threads, int) or n_threads < 1):
        raise InputError(f"n_threads must be a whole number >= 1, or None for what torch is set to, got {n_threads!r}")
