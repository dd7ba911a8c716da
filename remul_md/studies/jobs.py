"""Independent runs in processes of their own, one thread each; what is done already is not done again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from remul_md.errors import InputError
from remul_md.files import changed_values
from remul_md.files import read_json as read_object
from remul_md.files import write_json as write_object
from remul_md.outputs import make_way
from remul_md.progress import progress_bar

log = logging.getLogger(__name__)

CONFIG, RESULT, RESULTS, COSTS = "study.json", "result.json", "results.json", "costs.json"


def run_jobs(
    function: Callable[..., dict[str, Any]],
    jobs: Mapping[str, tuple[Any, ...]],
    *,
    n_jobs: int,
    report: Callable[[str, dict[str, Any]], str] = lambda name, result: name,
) -> dict[str, dict[str, Any]]:
    """Call `function(*arguments)` for each named job; results in the order of `jobs`.

    Processes are spawned, not forked: a fork of a process that has used torch's threads can hang. One job fails,
    the others are finished or cancelled, and what they have written stays for a resumption.

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
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn"), initializer=_prepare_process) as pool:
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


def prepare_study(
    folder: Path, decisive: Mapping[str, Any], *, run_names: Sequence[str], resume: bool, overwrite: bool = False
) -> None:
    """Make the folder of a study, which this process owns, and write the options that decide its numbers.

    Args:
        folder: of the study.
        decisive: options that decide the numbers, JSON-able.
        run_names: what a run writes into its own folder within.
        resume: go on with the study that the folder holds.
        overwrite: remove it, with all its runs.
    Raises:
        InputError: the folder holds another study, one that is not to be resumed, or cannot be written.
    """
    written = folder / CONFIG
    if written.is_file():
        present = [folder / name for name in (CONFIG, RESULTS, COSTS) if (folder / name).exists()]
        present += [path for name in run_names for path in folder.glob(f"*/{name}")]
        make_way(present, resume=resume, overwrite=overwrite, option="--run-dir")
    if written.is_file():
        old = read_json(written)
        if changed := changed_values(old, decisive):
            raise InputError(f"{folder}: was started with other options: {'; '.join(changed)}; use a new --run-dir")
        return
    make_folder(folder)
    write_json(written, decisive)


def make_folder(folder: Path) -> None:
    """Make a folder of a study, with its parents.

    Raises:
        InputError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error}); choose another --run-dir") from error


def fingerprint_of(*parts: Any) -> str:
    """Hash of what decides the numbers of a run; JSON-able parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def finished_result(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """What an earlier call found in the folder of a run, or None if there is nothing yet.

    Raises:
        InputError: the folder holds a result of other options.
    """
    if not (folder / RESULT).is_file():
        return None
    done = read_json(folder / RESULT)
    if done.get("fingerprint") == fingerprint:
        return done
    raise InputError(f"{folder}: holds a result of other options; use a new --run-dir")


def _prepare_process() -> None:
    import torch

    torch.set_num_threads(1)  # several processes share the cores; and one thread gives the same bits everywhere
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed study leaves no process behind that a resumed one would share its folders with."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """`files.write_json` for what a study writes."""
    write_object(path, content, hint="free space or choose another folder")


def read_json(path: Path) -> dict[str, Any]:
    """`files.read_json` for what a study has written."""
    return read_object(path, hint="make it with `remul-md study`")
