"""How a benchmark is called: its arguments, one CPU thread, and a user's mistake as one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

from remul_md.errors import InputError


def run_script(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace, list[str]], None],
    arguments: Sequence[str] | None,
) -> None:
    """Call `run` with the parsed options and with the arguments as they were given (default: of the command line)."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    try:
        run(options, given)
    except InputError as error:
        parser.error(str(error))
