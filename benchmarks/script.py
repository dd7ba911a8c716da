"""How a benchmark is called: arguments, one CPU thread, a user's mistake as one line, the command in its results."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence

import torch

from remul_md.errors import InputError


def run_script(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace, list[str]], None],
    arguments: Sequence[str] | None = None,
) -> None:
    """Call `run` with the parsed options and with the arguments as they were given (default: of the command line)."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    try:
        run(options, given)
    except InputError as error:
        parser.error(str(error))


def told_command(script: str, given: Sequence[str], told: Mapping[str, str]) -> str:
    """The command as a file of results tells it: `told` says what stands for names of folders of this machine."""
    return shlex.join(["python", f"benchmarks/{script}.py", *(told.get(part, part) for part in given)])
