"""PBE/def2-SVP: the labels of rMD17 come back; what it cannot compute is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase.build import bulk, molecule

from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.labels.sources import label_source, names_calculator

pytestmark = pytest.mark.timeout(600)  # seconds of CPU time, minutes where others have the cores


@pytest.mark.slow
def test_the_level_of_the_labels() -> None:
    """A frame of rMD17: forces within 0.3 meV/A of the label, the energy of all electrons within 50 meV."""
    pytest.importorskip("pyscf", reason='needs PySCF (pip install "remul-md[pbe]")')
    frames = read_frames("rmd17/ethanol/train-01").select([3])
    assert frames.energy is not None
    assert frames.forces is not None
    atoms = frames.atoms(0)
    atoms.calc = label_source("pbe").make()
    assert np.abs(atoms.get_forces() - frames.forces).mean() < 3e-4
    assert atoms.get_potential_energy() == pytest.approx(frames.energy[0], abs=0.05)


def test_what_it_cannot_compute_is_refused() -> None:
    pytest.importorskip("pyscf", reason='needs PySCF (pip install "remul-md[pbe]")')
    radical = molecule("CH3")
    radical.calc = label_source("pbe").make()
    with pytest.raises(InputError, match="CH3 has 9 electrons"):
        radical.get_potential_energy()
    crystal = bulk("Si")
    crystal.calc = label_source("pbe").make()
    with pytest.raises(InputError, match="computed for molecules"):
        crystal.get_potential_energy()


def test_without_pyscf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyscf.dft", None)
    with pytest.raises(InputError, match=r'PBE/def2-SVP needs PySCF.*install it with `pip install "remul-md\[pbe\]"`'):
        label_source("pbe")


@pytest.mark.parametrize(
    ("target", "expected"), [("pbe", True), ("xtb", True), ("ase.calculators.emt:EMT", True), ("ethanol", False)]
)
def test_names(target: str, expected: bool, tmp_path, monkeypatch) -> None:
    assert names_calculator(target) is expected
    monkeypatch.chdir(tmp_path)
    (tmp_path / target).write_text("a file comes first")
    assert not names_calculator(target)
