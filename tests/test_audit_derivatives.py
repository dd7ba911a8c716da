"""Finite differences and loops on linear force fields, where gradient error, asymmetry and work are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from remul_md.analysis.audit.derivatives import finite_differences, loop_works
from remul_md.analysis.audit.probe import Probe, ProbedFrames

N_ATOMS = 5


class LinearForces(Calculator):
    """f = -(S + A) x with S symmetric, A antisymmetric; the energy is that of S alone, far from 0 as totals are."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def __init__(self, symmetric: np.ndarray, antisymmetric: np.ndarray, *, factor: float = 1.0) -> None:
        super().__init__()
        self.symmetric, self.antisymmetric, self.factor = symmetric, antisymmetric, factor

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions.ravel()
        forces = -self.factor * (self.symmetric + self.antisymmetric) @ x
        self.results = {"energy": float(0.5 * x @ self.symmetric @ x) - 4209.0, "forces": forces.reshape(-1, 3)}


def linear(
    *, share: float = 0.0, factor: float = 1.0, seed: int = 0
) -> tuple[Probe, ProbedFrames, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(3 * N_ATOMS, 3 * N_ATOMS))
    symmetric, antisymmetric = matrix + matrix.T, share * (matrix - matrix.T)
    atoms = Atoms("C5", positions=rng.normal(size=(N_ATOMS, 3)))
    atoms.calc = LinearForces(symmetric, antisymmetric, factor=factor)
    probe = Probe(atoms)
    positions = rng.normal(size=(4, N_ATOMS, 3))
    samples = [probe(place) for place in positions]
    frames = ProbedFrames(positions, np.array([s.energy for s in samples]), np.stack([s.forces for s in samples]))
    return probe, frames, symmetric, antisymmetric


def test_an_exact_gradient_has_no_error_and_no_asymmetry() -> None:
    probe, frames, _, _ = linear()
    found = finite_differences(probe, frames, n_probes=6, rng=np.random.default_rng(1))
    assert found.slope.shape == (4, 6)
    assert found.gradient_error < 1e-8  # rounding of 4209 eV over the step
    assert found.jacobian_asymmetry == pytest.approx(0.0, abs=1e-10)


@pytest.mark.slow
def test_a_wrong_factor_is_found_as_that_share_of_the_forces() -> None:
    probe, frames, _, _ = linear(factor=1.03)
    found = finite_differences(probe, frames, n_probes=400, rng=np.random.default_rng(1))
    true_forces = frames.forces / 1.03
    expected = 0.03 * np.sqrt(np.mean(true_forces**2))
    assert found.gradient_error == pytest.approx(expected, rel=0.06)  # 1600 directions: 1/sqrt(2 * 1600) = 0.02
    assert found.jacobian_asymmetry == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("share", [0.01, 0.4])
def test_the_asymmetry_is_that_of_the_matrix(share: float) -> None:
    probe, frames, symmetric, antisymmetric = linear(share=share)
    found = finite_differences(probe, frames, n_probes=24, rng=np.random.default_rng(2))
    expected = np.linalg.norm(antisymmetric) / np.linalg.norm(symmetric + antisymmetric)
    assert found.jacobian_asymmetry == pytest.approx(expected, rel=0.1)


def test_forces_that_never_change_have_no_jacobian() -> None:
    probe, frames, _, _ = linear(factor=0.0)
    assert finite_differences(probe, frames, n_probes=2, rng=np.random.default_rng(2)).jacobian_asymmetry is None


def test_the_work_round_a_loop_is_that_of_the_antisymmetric_part() -> None:
    probe, frames, _, antisymmetric = linear(share=0.2)
    amplitude = 0.07
    works = loop_works(probe, frames, n_loops=3, n_points=7, amplitude_A=amplitude, rng=np.random.default_rng(3))
    assert works.shape == (4, 3)
    rng = np.random.default_rng(3)
    for work in works.ravel():
        u, v = (amplitude * rng.standard_normal((2, N_ATOMS, 3))).reshape(2, -1)
        # r = u cos + v sin, dr = (-u sin + v cos): the integral of -(A r) dr is -pi (v A u - u A v).
        assert work == pytest.approx(-2.0 * np.pi * v @ antisymmetric @ u, rel=1e-9)
    assert np.abs(works).min() > 1e-4
    probe, frames, _, _ = linear()
    none = loop_works(probe, frames, n_loops=3, n_points=7, amplitude_A=amplitude, rng=np.random.default_rng(3))
    assert np.abs(none).max() < 1e-12
