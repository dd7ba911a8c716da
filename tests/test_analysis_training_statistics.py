"""What a run is held against: the same checks whatever the order of its atoms, and a molecule that is another."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from ase.data import atomic_masses

from remul_md.analysis.training_statistics import TrainingStatistics
from remul_md.analysis.trajectory import TrajectoryAnalysis, analyze_frames
from remul_md.analysis.verdicts import INSIDE, INTACT
from remul_md.datasets import read_frames
from remul_md.dynamics.trajectory import TrajectoryArrays
from remul_md.potentials.domain import Domain, domain_of
from remul_md.structures.topology import bond_pairs

REVERSED = np.arange(9)[::-1]
MIXED = np.array([4, 1, 8, 0, 6, 2, 7, 3, 5])
N_FRAMES = 13


@pytest.fixture(scope="module")
def domain() -> Domain:
    return domain_of(read_frames("rmd17/ethanol/train-01"))


def run_of(positions: np.ndarray, numbers: np.ndarray) -> TrajectoryArrays:
    return TrajectoryArrays(
        positions=positions,
        atomic_numbers=numbers,
        masses=atomic_masses[numbers],
        time_ps=0.01 * np.arange(len(positions)),
        pbc=np.zeros(3, dtype=bool),
        cell=np.zeros((len(positions), 3, 3)),
    )


def analysed(domain: Domain, positions: np.ndarray, numbers: np.ndarray) -> TrajectoryAnalysis:
    statistics = TrainingStatistics.of(domain, numbers=numbers, positions=positions[0])
    return analyze_frames(run_of(positions, numbers), training_statistics=statistics)


def verdicts(analysis: TrajectoryAnalysis) -> dict[str, tuple[bool | None, float, float]]:
    return {verdict.name: (verdict.passed, verdict.value, verdict.threshold) for verdict in analysis.verdicts}


@pytest.mark.parametrize("order", [REVERSED, MIXED], ids=["reversed", "mixed"])
@pytest.mark.parametrize("scale", [1.0, 1.2], ids=["as it is", "inflated"])
def test_a_run_has_the_same_verdicts_in_any_order(domain: Domain, order: np.ndarray, scale: float) -> None:
    frames = read_frames("rmd17/ethanol/test-01")
    positions = frames.positions.reshape(-1, 9, 3)[:N_FRAMES].copy()
    positions[4:] *= scale
    numbers = frames.frame_numbers(0)
    expected = verdicts(analysed(domain, positions, numbers))
    assert {INTACT, INSIDE} <= expected.keys()
    assert expected[INTACT][0] is (scale == 1.0)
    assert expected[INTACT][2] == 0.1
    found = verdicts(analysed(domain, positions[:, order], numbers[order]))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values), name


def test_a_textbook_geometry_is_the_trained_molecule(domain: Domain) -> None:
    """ASE numbers the hydrogens of its ethanol otherwise than rMD17 does."""
    textbook = molecule("CH3CH2OH")
    statistics = TrainingStatistics.of(domain, numbers=textbook.numbers, positions=textbook.positions)
    assert statistics.unlike == ""
    assert statistics.bonds is not None
    np.testing.assert_array_equal(statistics.bonds.pairs, bond_pairs(textbook.numbers, textbook.positions))
    passed, value, limit = verdicts(analysed(domain, np.tile(textbook.positions, (3, 1, 1)), textbook.numbers))[INTACT]
    assert (passed, limit) == (True, 0.1)
    assert value == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("order", [np.arange(9), REVERSED, MIXED], ids=["as trained", "reversed", "mixed"])
def test_the_reference_frame_comes_in_the_order_of_the_run(domain: Domain, order: np.ndarray) -> None:
    """The angle from the training frame counts turns, not the numbering."""
    reference = np.array(domain.reference_positions)
    numbers = np.array(domain.reference_numbers)[order]
    statistics = TrainingStatistics.of(domain, numbers=numbers, positions=reference[order] + 3.0)
    np.testing.assert_allclose(statistics.reference_positions, reference[order])


@pytest.mark.parametrize("order", [np.arange(9), REVERSED], ids=["as trained", "reversed"])
def test_a_run_that_begins_as_another_molecule_is_not_intact(domain: Domain, order: np.ndarray) -> None:
    ether = molecule("CH3OCH3")
    positions = np.tile(ether.positions[order], (3, 1, 1))
    analysis = analysed(domain, positions, ether.numbers[order])
    verdict = next(verdict for verdict in analysis.verdicts if verdict.name == INTACT)
    assert verdict.passed is False
    assert "the bonds are not those trained on (missing 1 C-C, 1 H-O; new 1 C-H, 1 C-O" in verdict.why


def test_a_composition_without_known_bonds_has_a_wider_limit_and_says_so(domain: Domain) -> None:
    water = molecule("H2O")
    analysis = analysed(domain, np.tile(water.positions, (3, 1, 1)), water.numbers)
    assert verdicts(analysis)[INTACT] == (True, 0.0, 0.5)
    assert any("knows no bonds of this composition" in note for note in analysis.notes)
