"""Run by `make test-wheel` from an empty environment outside the repository: does the installed wheel work?"""

from importlib.metadata import distribution
from pathlib import Path

import numpy as np

import remul_md
from remul_md import RemulCalculator, read_frames

here = Path(remul_md.__file__)
assert "site-packages" in here.parts, f"the wheel is not what was imported, but {here}"
frames = read_frames("rmd17/ethanol/test-01")
atoms = frames.atoms(0)
atoms.calc = RemulCalculator("ethanol", device="cpu")
error = 1000 * np.abs(atoms.get_forces() - frames.forces[: len(atoms)]).mean()
assert 0 < error < 60, f"force MAE of the shipped ethanol potential on one frame: {error:.1f} meV/Angstrom"
files = {str(file) for file in distribution("remul-md").files or []}
assert any(name.endswith("LICENSE") for name in files)
assert not any(name.startswith(("calculators", "data", "tests")) for name in files), "a generic name leaked out"
print(f"wheel {remul_md.__version__}: ethanol frame 0, force MAE {error:.1f} meV/Angstrom")
