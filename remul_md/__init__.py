"""remul-md: unconstrained transformer potentials that learn rotations, for molecular dynamics with ASE.

Public names are resolved on first use, so that `import remul_md` loads neither torch nor ASE.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from remul_md._version import __version__

_PUBLIC = {
    "Batch": "remul_md.structures.batch",
    "Frames": "remul_md.structures.frames",
    "InputError": "remul_md.errors",
    "Potential": "remul_md.potentials.potential",
    "Prediction": "remul_md.structures.batch",
    "RemulCalculator": "remul_md.calculators",
    "load_potential": "remul_md.potentials.potential",
    "read_frames": "remul_md.datasets",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'remul_md' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
