"""Run by `make test-wheel` outside the repository: does the installed wheel work, with nothing but what it declares?"""

import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def declared(name: str) -> set[str]:
    """The distributions that come along where `name` is installed, itself among them."""
    found, waiting = set[str](), [(name, frozenset[str]())]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:  # of another system
            continue
        found.add(canonicalize_name(name))
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
                entry = canonicalize_name(requirement.name), frozenset(requirement.extras)
                if entry not in seen:
                    seen.add(entry)
                    waiting.append(entry)
    return found


class Hidden:
    """Makes modules of other distributions as absent as they would be in an empty environment."""

    def __init__(self, allowed: set[str]) -> None:
        owners = packages_distributions().items()
        self.names = {name for name, of in owners if allowed.isdisjoint(map(canonicalize_name, of))}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}: the wheel does not declare it", name=name)
        return None


hidden = Hidden(declared("remul-md"))
assert {"pytest", "mypy", "pyscf", "tblite"} <= hidden.names, "these are for development, or extras"
assert not {"torch", "ase", "scipy"} & hidden.names
sys.meta_path.insert(0, hidden)

import numpy as np  # noqa: E402

import remul_md  # noqa: E402
from remul_md import RemulCalculator, read_frames  # noqa: E402

here = Path(remul_md.__file__)
assert "site-packages" in here.parts, f"the wheel is not what was imported, but {here}"
assert Path(sys.prefix) in here.parents, f"the wheel is not what was imported, but {here}"
frames = read_frames("rmd17/ethanol/test-01")
atoms = frames.atoms(0)
atoms.calc = RemulCalculator("ethanol", device="cpu")
error = 1000 * np.abs(atoms.get_forces() - frames.forces[: len(atoms)]).mean()
assert 0 < error < 60, f"force MAE of the shipped ethanol potential on one frame: {error:.1f} meV/Angstrom"
files = {str(file) for file in distribution("remul-md").files or []}
assert any(name.endswith("LICENSE") for name in files)
assert not any(name.startswith(("calculators", "data", "tests")) for name in files), "a generic name leaked out"
print(f"wheel {remul_md.__version__}: ethanol frame 0, force MAE {error:.1f} meV/Angstrom")
