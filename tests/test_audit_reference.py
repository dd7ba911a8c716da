"""Bonds pulled beside a reference: the deviation of the force, and bumps that the reference does not have."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from planted_faults import copper_lj

from remul_md import InputError
from remul_md.analysis import run_audit
from remul_md.analysis.audit.reference import STRETCH_A, Stretch


class Bond(Calculator):
    """Two atoms with a Morse bond; `bump` adds a Gaussian hill of 0.3 eV at 2.4 Angstrom, `pull` a constant force."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def __init__(
        self, *, bump: float = 0.0, pull: float = 0.0, offset: float = 0.0, fails_beyond: float = 99.0
    ) -> None:
        super().__init__()
        self.bump, self.pull, self.offset, self.fails_beyond = bump, pull, offset, fails_beyond

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        d = self.atoms.positions[1] - self.atoms.positions[0]
        r = np.linalg.norm(d)
        if r > self.fails_beyond:
            raise RuntimeError("no convergence")
        decay, hill = np.exp(-2.0 * (r - 1.1)), self.bump * np.exp(-(((r - 2.4) / 0.2) ** 2))
        slope = 16.0 * (1.0 - decay) * decay - hill * 2.0 * (r - 2.4) / 0.04 + self.pull
        energy = 4.0 * (1.0 - decay) ** 2 + hill + self.pull * r + self.offset
        self.results = {"energy": float(energy), "forces": np.array([slope * d / r, -slope * d / r])}


def stretched(own: Calculator, reference: Calculator) -> Stretch:
    atoms = Atoms("CO", positions=[[0.2, 0.1, 0.0], [0.2, 0.1, 1.15]])
    atoms.calc = own
    (stretch,) = run_audit(atoms, only=["net_force"], reference=reference).stretches
    return stretch


def test_a_calculator_beside_itself_differs_in_nothing() -> None:
    stretch = stretched(Bond(), Bond(offset=-4209.0))
    assert stretch.force_rms == pytest.approx(0.0, abs=1e-9)
    assert stretch.spurious_energy_extrema == stretch.spurious_force_extrema == ()
    assert stretch.lengths[0] == pytest.approx(0.75 * 1.15, abs=0.05)
    assert 1.15 + 0.9 * STRETCH_A < stretch.lengths[-1] <= 1.15 + STRETCH_A
    assert np.abs(stretch.energies).min() == 0.0  # relative to the structure


def test_the_force_is_off_by_what_was_added() -> None:
    stretch = stretched(Bond(pull=0.03), Bond())
    assert stretch.force_rms == pytest.approx(0.03, rel=1e-6)
    assert (stretch.forces - stretch.reference_forces) == pytest.approx(-0.03)  # it pulls together


def test_a_bump_is_one_maximum_and_one_well_too_many() -> None:
    stretch = stretched(Bond(bump=0.3), Bond())
    top, well = stretch.spurious_energy_extrema
    assert top == pytest.approx(2.45, abs=0.15)
    assert 2.5 < well < 3.2
    assert len(stretch.spurious_force_extrema) >= 2
    assert stretched(Bond(bump=0.3), Bond(bump=0.3)).spurious_energy_extrema == ()
    assert stretched(Bond(), Bond(bump=0.3)).spurious_energy_extrema == ()  # missing ones are no spurious ones
    assert stretched(Bond(bump=0.001), Bond()).spurious_energy_extrema == ()


def test_where_one_of_the_two_fails_nothing_is_compared() -> None:
    stretch = stretched(Bond(), Bond(fails_beyond=2.9))
    assert stretch.n_failed > 3
    assert stretch.lengths[-1] < 2.9
    assert stretch.force_rms == pytest.approx(0.0, abs=1e-9)


def test_it_is_told_and_changes_no_verdict() -> None:
    atoms = copper_lj()
    plain = run_audit(atoms, only=["net_force"]).to_json()
    assert "stretches" not in plain
    told = run_audit(atoms, only=["net_force"], reference=EMT()).to_json()
    assert told["checks"] == plain["checks"]
    (stretch,) = told["stretches"]
    assert stretch["label"].startswith("bond Cu")
    json.dumps(told, allow_nan=False)


def test_mistakes_are_explained() -> None:
    crystal = bulk("Cu", cubic=True)
    crystal.calc = EMT()
    with pytest.raises(InputError, match="bonds of molecules"):
        run_audit(crystal, only=["net_force"], reference=EMT())
    atoms = molecule("CH3OH")
    atoms.symbols[0] = "U"
    atoms.calc = copper_lj().calc
    with pytest.raises(InputError, match="the reference"):
        run_audit(atoms, only=["net_force"], reference=EMT())
