"""PBE/def2-SVP: the labels of rMD17 come back, broken bonds and atoms are right, what it cannot compute is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule

from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.labels.pbe import NotConverged
from remul_md.labels.sources import label_source, names_calculator

Run = Callable[..., tuple[int, str, str]]
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


def pbe(atoms: Atoms, **options: Any) -> Atoms:
    pytest.importorskip("pyscf", reason='needs PySCF (pip install "remul-md[pbe]")')
    atoms = atoms.copy()
    atoms.calc = label_source("pbe", **options).make()
    return atoms


def test_what_it_cannot_compute_is_refused() -> None:
    with pytest.raises(InputError, match=r"CH3 has 9 electrons, .*--spin 1"):
        pbe(molecule("CH3")).get_potential_energy()
    with pytest.raises(InputError, match=r"H2O has 10 electrons, .*--spin 2"):
        pbe(molecule("H2O"), spin=1).get_potential_energy()
    with pytest.raises(InputError, match="H has 1 electrons, of which 3"):
        pbe(Atoms("H"), spin=3).get_potential_energy()
    with pytest.raises(InputError, match=r"spin .*>= 0, got -1"):
        label_source("pbe", spin=-1)
    with pytest.raises(InputError, match="computed for molecules"):
        pbe(bulk("Si")).get_potential_energy()


# eV; unrestricted, followed to a stable solution
ATOMS = [
    ("H", 1, -13.568),
    pytest.param("C", 2, -1027.263, marks=pytest.mark.slow),
    pytest.param("O", 2, -2038.532, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("symbol", "unpaired", "energy"), ATOMS)
def test_isolated_atoms_have_the_spin_of_hund(symbol: str, unpaired: int, energy: float) -> None:
    atom = pbe(Atoms(symbol, positions=[[0.3, -0.2, 1.0]]))
    assert atom.get_potential_energy() == pytest.approx(energy, abs=1.5e-3)
    half = unpaired / 2
    assert atom.calc.results["spin_squared"] == pytest.approx(half * (half + 1), abs=0.01)
    assert np.abs(atom.get_forces()).max() < 1e-6


@pytest.mark.parametrize(("number", "unpaired"), [(2, 0), (5, 1), (7, 3), (8, 2), (10, 0), (24, 6), (26, 4), (29, 1)])
def test_unpaired_electrons_of_atoms(number: int, unpaired: int) -> None:
    pytest.importorskip("pyscf", reason='needs PySCF (pip install "remul-md[pbe]")')
    from remul_md.labels.pbe import unpaired_in_atom

    assert unpaired_in_atom(number) == unpaired


def test_one_atom_through_the_command(cli: Run, tmp_path: Path) -> None:
    pytest.importorskip("pyscf", reason='needs PySCF (pip install "remul-md[pbe]")')
    (tmp_path / "atom.extxyz").write_text("1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n")
    code, out, err = cli("label", "pbe", tmp_path / "atom.extxyz", tmp_path / "isolated.extxyz")
    assert code == 0, err
    assert "1 frames labelled by PBE/def2-SVP" in out
    found = read_frames(tmp_path / "isolated.extxyz", require=("energy", "forces"))
    assert found.energy == pytest.approx(-13.568, abs=1e-3)
    atoms = ase.io.read(tmp_path / "isolated.extxyz")
    assert atoms.info["spin_squared"] == pytest.approx(0.75, abs=1e-3)


def test_a_broken_bond_gives_two_atoms() -> None:
    """Hydrogen at 4 Angstrom is two atoms, of opposite spin; restricted it would be 2 eV above."""
    apart = pbe(Atoms("H2", positions=[[0, 0, 0], [0, 0, 4.0]]))
    assert apart.get_potential_energy() == pytest.approx(2 * -13.568, abs=5e-3)
    assert apart.calc.results["spin_squared"] == pytest.approx(1.0, abs=0.01)
    assert np.abs(apart.get_forces()).max() < 0.02
    together = pbe(Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.75]]))
    assert together.get_potential_energy() < -31.0
    assert together.calc.results["spin_squared"] == 0.0


@pytest.mark.slow
def test_forces_of_a_breaking_bond_are_derivatives() -> None:
    def stretched(length: float) -> Atoms:
        return pbe(Atoms("H2", positions=[[0, 0, 0], [0.3, 0, length]]))

    middle, step = stretched(2.0), 4e-3
    ends = [stretched(2.0 + steps * step).get_potential_energy() for steps in (-1, 1)]
    assert -(ends[1] - ends[0]) / (2 * step) == pytest.approx(middle.get_forces()[1, 2], abs=5e-4)
    assert 0.3 < middle.calc.results["spin_squared"] < 0.95


def test_an_intact_molecule_stays_restricted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No unrestricted calculation, no stability analysis: labels of molecules cost what they cost before."""
    water = pbe(molecule("H2O"))
    monkeypatch.setattr("remul_md.labels.pbe.PBECalculator._unrestricted", None)
    from pyscf import dft, gto

    atoms = list(zip(water.get_chemical_symbols(), water.positions.tolist(), strict=True))
    plain = dft.RKS(gto.M(atom=atoms, basis="def2-svp", verbose=0), xc="PBE").density_fit()
    plain.grids.level, plain.conv_tol = 4, 1e-9
    assert water.get_potential_energy() == float(plain.kernel()) * units.Hartree
    assert water.calc.results["spin_squared"] == 0.0


@pytest.mark.slow
def test_a_singlet_whose_electrons_stay_paired_has_the_restricted_energy() -> None:
    one, other = pbe(molecule("H2O")), pbe(molecule("H2O"), spin=0)
    assert other.get_potential_energy() == pytest.approx(one.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(other.get_forces(), one.get_forces(), atol=1e-5)
    assert other.calc.results["spin_squared"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_electrons_part_where_no_bond_is_long() -> None:
    """Oxygen has two unpaired electrons at the length of its bond; as a singlet they are of opposite spin."""
    found = pbe(molecule("O2"))
    found.get_potential_energy()
    assert found.calc.results["spin_squared"] == pytest.approx(1.0, abs=0.1)


def test_radicals_with_their_spin() -> None:
    radical = pbe(Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.98]]), spin=1)
    radical.get_potential_energy()
    assert radical.calc.results["spin_squared"] == pytest.approx(0.75, abs=0.02)


def test_heavy_elements_have_their_core_potential() -> None:
    pytest.importorskip("pyscf", reason='needs PySCF (pip install "remul-md[pbe]")')
    from remul_md.labels.pbe import _molecule

    assert _molecule(Atoms("BrI", positions=[[0, 0, 0], [0, 0, 2.5]]), spin=0).nelectron == 35 + 53 - 28


@pytest.mark.slow
def test_without_convergence_there_is_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyscf.scf import hf

    monkeypatch.setattr(hf.SCF, "max_cycle", 1)
    with pytest.raises(NotConverged, match="did not converge"):
        pbe(Atoms("H2", positions=[[0, 0, 0], [0, 0, 4.0]])).get_potential_energy()


def test_without_pyscf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyscf.dft", None)
    with pytest.raises(InputError, match=r'PySCF.*`pip install "remul-md\[pbe\]"`'):
        label_source("pbe")


@pytest.mark.parametrize(
    ("target", "expected"), [("pbe", True), ("xtb", True), ("ase.calculators.emt:EMT", True), ("ethanol", False)]
)
def test_names(target: str, expected: bool, tmp_path, monkeypatch) -> None:
    assert names_calculator(target) is expected
    monkeypatch.chdir(tmp_path)
    (tmp_path / target).write_text("a file comes first")
    assert not names_calculator(target)
