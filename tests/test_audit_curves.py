"""Jumps, kinks and wells of curves that are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from remul_md.analysis.audit.curves import interval_integrals, node_residuals, other_minima
from remul_md.analysis.audit.paths import scan_paths
from remul_md.analysis.audit.probe import Probe
from remul_md.analysis.audit.smoothness import FORCE_STEP_A, MIN_STEP_A, Scan, scan

UNEVEN = np.array([0.0, 0.1, 0.35, 0.5, 0.9, 1.0, 1.4])


def test_cubics_are_integrated_and_foretold_exactly() -> None:
    def cubic(x):
        return 2.0 - x + 3.0 * x**2 - 4.0 * x**3

    def integral(x):
        return 2.0 * x - x**2 / 2 + x**3 - x**4

    assert interval_integrals(UNEVEN, cubic(UNEVEN)) == pytest.approx(np.diff(integral(UNEVEN)), abs=1e-13)
    curves = np.stack([cubic(UNEVEN), -cubic(UNEVEN), UNEVEN, 0 * UNEVEN, UNEVEN**2, UNEVEN**3], axis=1).reshape(
        -1, 2, 3
    )
    residual = node_residuals(UNEVEN, curves)
    assert residual is not None
    assert residual.shape == UNEVEN.shape
    assert np.abs(residual).max() < 1e-13
    assert node_residuals(UNEVEN[:4], curves[:4]) is None
    # Two points: the trapezoid is all there is.
    assert interval_integrals(UNEVEN[:2], UNEVEN[:2]) == pytest.approx([0.005])


def test_a_jump_shows_at_both_ends_of_its_interval_and_a_slope_does_not() -> None:
    x = np.linspace(0.0, 1.0, 12)
    y = np.zeros((12, 2, 3))
    y[:, 1, 2] = 5.0 * x
    smooth = node_residuals(x, y)
    assert smooth is not None
    assert smooth.max() < 1e-13
    y[7:, 1, 2] += 0.3
    residual = node_residuals(x, y)
    assert residual is not None
    assert sorted(np.argsort(residual)[-2:]) == [6, 7]
    assert residual[[6, 7]] == pytest.approx(0.15)


def test_minima_besides_the_first() -> None:
    x = np.linspace(-2.0, 3.0, 501)
    # Wells at -1 and 1 of depth 1, tilted; the second is 0.1 lower.
    energies = (x**2 - 1.0) ** 2 - 0.05 * x
    ((at, depth, barrier),) = other_minima(x, energies, start=-1.2, min_depth=0.01)
    assert at == pytest.approx(1.0, abs=0.02)
    assert depth == pytest.approx(1.05, abs=0.01)
    assert barrier == pytest.approx(0.95, abs=0.01)
    assert other_minima(x, energies, start=-1.2, min_depth=1.2) == ()
    assert other_minima(x, x**2 + 1e-4 * np.sin(300 * x), start=0.3, min_depth=1e-3) == ()


def test_ripples_of_a_plateau_are_one_minimum() -> None:
    r = np.linspace(0.0, 10.0, 101)
    energies = np.where(r < 3.0, r, 2.0)  # up to 3, down to a plateau
    energies[40:90:10] -= 1e-4  # rounding: dips of one depth
    ((at, depth, barrier),) = other_minima(r, energies, start=0.0, min_depth=1e-2)
    assert at >= 3.9
    assert depth == pytest.approx(0.9, abs=0.01)
    assert barrier == pytest.approx(2.9, abs=0.01)


def test_an_end_lower_than_the_way_to_it_is_a_hole() -> None:
    r = np.linspace(0.5, 4.0, 200)
    morse = (1.0 - np.exp(-2.0 * (r - 1.0))) ** 2
    assert other_minima(r, morse, start=1.1, min_depth=0.01) == ()
    # Below 0.7 the energy falls again: atoms fall into each other.
    hole = np.where(r < 0.7, morse[np.argmin(np.abs(r - 0.7))] - 3.0 * (0.7 - r), morse)
    ((at, depth, barrier),) = other_minima(r, hole, start=1.1, min_depth=0.01)
    assert at == 0.5
    assert depth == pytest.approx(0.6, abs=0.04)
    assert barrier == pytest.approx((1 - np.exp(0.6)) ** 2, abs=0.05)


class Pair(Calculator):
    """Two atoms with a Morse bond, and what is added to its energy and slope at a distance."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def __init__(self, added) -> None:
        super().__init__()
        self.added = added

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        d = self.atoms.positions[1] - self.atoms.positions[0]
        r = np.linalg.norm(d)
        decay = np.exp(-2.0 * (r - 1.1))
        energy, slope = self.added(r)
        energy, slope = energy + 4.0 * (1.0 - decay) ** 2, slope + 16.0 * (1.0 - decay) * decay
        self.results = {"energy": float(energy), "forces": np.array([slope * d / r, -slope * d / r])}


def scanned(added) -> Scan:
    atoms = Atoms("CO", positions=[[0.2, 0.1, 0.0], [0.2, 0.1, 1.15]])
    atoms.calc = Pair(added)
    (path,) = scan_paths(atoms)
    return scan(Probe(atoms), path, energy_limit=2.6e-4, force_limit=0.013, depth_limit=0.026)


def test_a_smooth_bond_is_smooth_with_few_points() -> None:
    found = scanned(lambda r: (0.0, 0.0))
    assert found.energy_jump < 1e-4
    assert found.force_jump < 0.01
    assert found.jump_at == ()
    assert found.minima == ()
    assert found.n_unresolved == 0
    assert len(found.values) < 110
    assert found.values[-1] == pytest.approx(1.15 + 9.0)


def test_a_jump_of_the_energy_is_located_and_measured() -> None:
    found = scanned(lambda r: (0.004 * (r > 3.217), 0.0))
    assert found.energy_jump == pytest.approx(0.004, rel=0.02)
    assert found.jump_at
    assert found.jump_at[0] == pytest.approx(3.217, abs=MIN_STEP_A)
    at_jump, at_start = (4.0 * (1.0 - np.exp(-2.0 * (r - 1.1))) ** 2 for r in (3.217, 1.15))
    assert found.barrier_to(found.jump_at[0]) == pytest.approx(at_jump - at_start, abs=0.01)
    assert found.barrier_to(1.11) == 0.0  # downhill
    assert len(found.jump_at) == 1


def test_a_jump_of_the_forces_is_located_and_measured() -> None:
    found = scanned(lambda r: (0.2 * max(r - 2.719, 0.0), 0.2 * (r > 2.719)))
    assert found.force_jump == pytest.approx(0.2, rel=0.2)
    assert found.energy_jump < 2.6e-4
    assert found.jump_at
    assert np.abs(np.array(found.jump_at) - 2.719).max() < 2 * FORCE_STEP_A
    assert found.n_unresolved == 0


@pytest.mark.parametrize("r0", [1.22, 2.731])
def test_a_kink_of_the_forces_counts_by_what_it_does_within_a_time_step(r0: float) -> None:
    """The slope of the force changes, the force does not: found where a step costs some 0.01 kT."""

    def kink(size):
        return lambda r: (0.5 * size * max(r - r0, 0.0) ** 2, size * max(r - r0, 0.0))

    assert scanned(kink(0.0)).force_jump < 0.01
    assert scanned(kink(3.0)).jump_at == ()
    found = scanned(kink(24.0))
    assert found.force_jump > 0.013
    assert min(abs(at - r0) for at in found.jump_at) < 2 * FORCE_STEP_A


def test_a_steep_but_smooth_step_is_no_jump() -> None:
    def step(width):
        def added(r):
            rise = np.tanh((r - 3.0) / width)
            return 0.005 * rise, 0.005 / width * (1.0 - rise**2)

        return added

    found = scanned(step(0.05))
    assert found.jump_at == ()
    assert found.energy_jump < 1e-4
    # Within the way of a time step it is as bad as a jump, of the force: 1.2 eV/A that come and go.
    found = scanned(step(0.004))
    assert found.energy_jump < 2.6e-4
    assert found.force_jump > 0.013


def test_one_point_that_cannot_be_calculated_is_passed_over_and_counted() -> None:
    def fails(r):
        if 4.0 < r < 4.12:  # one point of the grid, and the middle of the interval about it
            raise RuntimeError("no convergence")
        return 0.004 * (r > 4.9), 0.0

    found = scanned(fails)
    assert found.values[-1] == pytest.approx(1.15 + 9.0)
    assert len(found.failures) >= 1
    assert found.failures[0].startswith("bond O1-C0 at 4.")
    assert found.ended_early == ()
    assert found.energy_jump == pytest.approx(0.004, rel=0.02)  # the rest is judged
    assert found.n_unresolved == 0  # nothing there looks like a jump

    def jumps_where_it_fails(r):
        return (fails(r)[0] + 0.003 * (r > 4.05), 0.0)

    assert scanned(jumps_where_it_fails).n_unresolved == 1


def test_noise_that_no_halving_explains_is_counted() -> None:
    rng = np.random.default_rng(0)
    found = scanned(lambda r: (0.05 * rng.standard_normal(), 0.0))
    assert found.n_unresolved > 0.2 * found.n_intervals


def test_a_second_well_is_found() -> None:
    def well(r):
        bump = -0.5 * np.exp(-(((r - 3.0) / 0.2) ** 2))
        return bump, bump * -2.0 * (r - 3.0) / 0.04

    ((at, depth, barrier),) = scanned(well).minima
    assert at == pytest.approx(3.0, abs=0.1)
    r = np.linspace(1.1, 3.5, 5000)
    energies = 4.0 * (1.0 - np.exp(-2.0 * (r - 1.1))) ** 2 + np.array([well(x)[0] for x in r])
    top = energies[r < 2.9].max()
    assert barrier == pytest.approx(top, abs=0.02)
    assert depth == pytest.approx(top - energies[r > 2.8].min(), abs=0.02)
