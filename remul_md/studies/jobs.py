"""Independent runs in processes of their own, one thread each; what is done already is not done again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from remul_md.errors import InputError
from remul_md.files import read_json as read_object
from remul_md.files import write_json as write_object
from remul_md.processes import process_pool
from remul_md.progress import progress_bar

log = logging.getLogger(__name__)


def run_jobs(
    function: Callable[..., dict[str, Any]],
    jobs: Mapping[str, tuple[Any, ...]],
    *,
    n_jobs: int,
    report: Callable[[str, dict[str, Any]], str] = lambda name, result: name,
) -> dict[str, dict[str, Any]]:
    """Call `function(*arguments)` for each named job; results in the order of `jobs`.

    One job fails, the others are finished or cancelled, and what they have written stays for a resumption.

    Args:
        function: importable by name.
        jobs: arguments of each job.
        n_jobs: processes at a time, >= 1.
        report: one line for a finished job.
    Raises:
        InputError: n_jobs < 1, a job raised it, or a process was killed.
    """
    from tqdm.contrib.logging import logging_redirect_tqdm

    if n_jobs < 1:
        raise InputError(f"the number of parallel jobs must be >= 1, got {n_jobs}")
    results: dict[str, dict[str, Any]] = {}
    bar = progress_bar(shown=True, total=len(jobs), unit="run")
    with process_pool(n_jobs) as pool:
        futures = {pool.submit(function, *arguments): name for name, arguments in jobs.items()}
        try:
            with logging_redirect_tqdm():
                for future in as_completed(futures):
                    results[futures[future]] = future.result()
                    bar.update()
                    log.info("%s", report(futures[future], results[futures[future]]))
        except BrokenProcessPool as error:
            raise InputError("a process of the study was killed; go on with --resume") from error
        finally:
            bar.close()
            pool.shutdown(wait=False, cancel_futures=True)
    return {name: results[name] for name in jobs}


def fingerprint_of(*parts: Any) -> str:
    """Hash of what decides the numbers of a run; JSON-able parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """`files.write_json` for what a study writes."""
    write_object(path, content, hint="free space or choose another folder")


def read_json(path: Path) -> dict[str, Any]:
    """`files.read_json` for what a study has written."""
    return read_object(path, hint="make it with `remul-md study`")
