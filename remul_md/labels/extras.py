"""Packages that only some labels and studies need, installed by an extra of this one."""

from __future__ import annotations

import importlib
from importlib import metadata

from remul_md.errors import InputError


def require_package(name: str, *, module: str, need: str, extra: str) -> str:
    """Name and version of an optional package.

    Args:
        name: of its distribution.
        module: what is imported to see that it works.
        need: "METHOD needs PACKAGE", as the message begins.
        extra: of this package, which installs it.
    Raises:
        InputError: it cannot be imported; the extra is named.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f'{need}, which cannot be imported ({error}); install it with `pip install "remul-md[{extra}]"`'
        ) from error
    return f"{name} {metadata.version(name)}"
