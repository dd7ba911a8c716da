"""Distributions of constructed frames whose shapes are known, and the gap between them."""

from __future__ import annotations

import numpy as np
import pytest

from remul_md.analysis import distributions
from remul_md.analysis.distributions import (
    PAIR_DISTANCES,
    density_gap,
    pair_distance_distribution,
    sampling_gap,
    structure_distributions,
)
from remul_md.errors import InputError


def dimers(lengths: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Frames of two atoms that far apart, in random directions and places."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(len(lengths), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    start = rng.normal(size=(len(lengths), 3))
    return np.stack([start, start + direction * lengths[:, None]], axis=1)


def peroxides(dihedrals_deg: np.ndarray, *, angle_deg: float = 100.0) -> np.ndarray:
    """H-O-O-H frames with these dihedral angles, [T, 4, 3]; bonds 0.97 and 1.45 Angstrom."""
    bend, turn = np.radians(angle_deg), np.radians(dihedrals_deg)
    zero = np.zeros_like(turn)
    oxygen = np.stack([zero, zero, zero], axis=1), np.stack([zero, zero, zero + 1.45], axis=1)
    first = np.stack([zero + 0.97 * np.sin(bend), zero, zero + 0.97 * np.cos(bend)], axis=1)
    last = 0.97 * np.stack([np.sin(bend) * np.cos(turn), np.sin(bend) * np.sin(turn), zero - np.cos(bend)], axis=1)
    return np.stack([first, *oxygen, last + np.array([0.0, 0.0, 1.45])], axis=1)


HOOH = np.array([1, 8, 8, 1])
BONDS = np.array([[0, 1], [1, 2], [2, 3]])


def test_a_known_density_comes_out():
    """Lengths uniform on [1.3, 1.9]: density 1 / 0.6 there and none elsewhere, mean 1.6, deviation 0.6 / sqrt(12)."""
    rng = np.random.default_rng(4)
    found = pair_distance_distribution(dimers(rng.uniform(1.3, 1.9, 30000)))
    assert found.n_values == 30000
    assert found.density.sum() * found.bins.width == pytest.approx(1.0)
    inside = (found.centers > 1.3) & (found.centers < 1.9)
    np.testing.assert_allclose(found.density[inside], 1.0 / 0.6, rtol=0.15)
    assert (found.density[~inside] == 0.0).all()
    assert found.mean == pytest.approx(1.6, abs=0.005)
    assert found.std == pytest.approx(0.6 / np.sqrt(12.0), rel=0.01)


def test_the_gap_of_two_boxes_is_what_does_not_overlap():
    """Uniform on [1, 2] against [1.5, 2.5]: half of each stands where the other has nothing, integral 1."""
    grid = (np.arange(4000) + 0.5) / 4000
    one, other = (pair_distance_distribution(dimers(start + grid)) for start in (1.0, 1.5))
    assert density_gap(one, other) == pytest.approx(1.0, abs=1e-3)
    assert density_gap(one, one) == 0.0
    far = pair_distance_distribution(dimers(4.0 + grid))
    assert density_gap(one, far) == pytest.approx(2.0)


def test_the_gap_of_two_normal_laws():
    """Equal widths s, means 2 d apart: the integral is 2 erf(d / (s sqrt 2))."""
    from scipy.special import erf
    from scipy.stats import norm

    quantiles = (np.arange(20000) + 0.5) / 20000
    width, half = 0.15, 0.06
    one, other = (
        pair_distance_distribution(dimers(norm.ppf(quantiles, loc=middle, scale=width)))
        for middle in (2.0 - half, 2.0 + half)
    )
    assert density_gap(one, other) == pytest.approx(2.0 * erf(half / (width * np.sqrt(2.0))), rel=0.01)


def test_the_sampling_gap_is_that_of_independent_samples():
    rng = np.random.default_rng(7)
    gaps, expected = [], []
    for _ in range(20):
        one = pair_distance_distribution(dimers(rng.normal(2.0, 0.1, 900)))
        other = pair_distance_distribution(dimers(rng.normal(2.0, 0.1, 4100)))
        gaps.append(density_gap(one, other))
        expected.append(sampling_gap(one, other))
    assert np.mean(expected) == pytest.approx(np.mean(gaps), rel=0.15)


def test_halves_that_differ_are_seen():
    """A run that changes its conformation in the middle knows little about their ratio."""
    steps = pair_distance_distribution(dimers(np.repeat([1.51, 2.51], 500)))
    mixed = pair_distance_distribution(dimers(np.tile([1.51, 2.51], 500)))
    assert steps.half_gap == pytest.approx(2.0)
    assert mixed.half_gap == 0.0
    assert density_gap(steps, mixed) == 0.0
    assert np.isnan(sampling_gap(steps, pair_distance_distribution(dimers(np.array([1.5])))))


def test_angles_and_dihedrals_of_a_constructed_run():
    rng = np.random.default_rng(2)
    turns = np.where(rng.random(3000) < 0.25, rng.uniform(-120.0, -90.0, 3000), rng.uniform(60.0, 100.0, 3000))
    found = structure_distributions(peroxides(turns), atomic_numbers=HOOH, pairs=BONDS)
    assert list(found) == [PAIR_DISTANCES, "bond H-O", "bond O-O", "angle H-O-O", "dihedral H-O-O-H"]
    assert found["bond H-O"].mean == pytest.approx(0.97)
    assert found["bond H-O"].std == pytest.approx(0.0, abs=1e-7)
    assert found["bond H-O"].n_values == 2 * 3000
    assert found["bond O-O"].mean == pytest.approx(1.45)
    assert found["angle H-O-O"].mean == pytest.approx(100.0)
    assert found[PAIR_DISTANCES].n_values == 6 * 3000
    dihedral = found["dihedral H-O-O-H"]
    assert dihedral.mean is None
    share = {
        sign: (dihedral.density * (np.sign(dihedral.centers) == sign)).sum() * dihedral.bins.width for sign in (-1, 1)
    }
    assert share[-1] + share[1] == pytest.approx(1.0)
    assert share[-1] == pytest.approx((turns < 0).mean())
    inside = (dihedral.centers > 60.0) & (dihedral.centers < 100.0)
    np.testing.assert_allclose(dihedral.density[inside], 0.75 / 40.0, rtol=0.2)


def test_half_a_turn_is_in_the_last_bin():
    straight = structure_distributions(
        np.array([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]] * 5),
        atomic_numbers=np.array([8, 6, 8]),
        pairs=np.array([[0, 1], [1, 2]]),
    )
    angle = straight["angle O-C-O"]
    assert angle.half_counts[:, -1].sum() == 5
    assert angle.n_outside == 0
    trans = structure_distributions(peroxides(np.array([180.0, 180.0])), atomic_numbers=HOOH, pairs=BONDS)
    counts = trans["dihedral H-O-O-H"].half_counts.sum(axis=0)
    assert counts[0] + counts[-1] == 2


def test_values_outside_are_counted_and_part_of_the_gap():
    near = pair_distance_distribution(dimers(np.full(10, 1.5)))
    lost = pair_distance_distribution(dimers(np.repeat([1.5, 250.0], [6, 4])))
    assert lost.n_outside == 4
    assert lost.n_values == 10
    assert lost.density.sum() * lost.bins.width == pytest.approx(0.6)
    assert density_gap(near, lost) == pytest.approx(0.4 + 0.4)
    assert lost.to_json()["n_outside"] == 4


def test_blocks_do_not_change_the_result(monkeypatch):
    frames = peroxides(np.random.default_rng(0).uniform(-180.0, 180.0, 101))
    whole = structure_distributions(frames, atomic_numbers=HOOH, pairs=BONDS)
    monkeypatch.setattr(distributions, "FRAMES_AT_ONCE", 7)
    parts = structure_distributions(frames, atomic_numbers=HOOH, pairs=BONDS)
    for name, found in whole.items():
        np.testing.assert_array_equal(found.half_counts, parts[name].half_counts)
        assert found.mean == pytest.approx(parts[name].mean)


def test_json_holds_the_filled_bins():
    content = pair_distance_distribution(dimers(np.array([1.51, 1.515, 1.57]))).to_json()
    assert content["first_center"] == pytest.approx(1.51)
    assert content["density"] == pytest.approx([2 / 3 / 0.02, 0.0, 0.0, 1 / 3 / 0.02])


def test_what_cannot_be_counted_is_refused():
    good = peroxides(np.array([90.0, 100.0]))
    with pytest.raises(InputError, match="at least one frame and two atoms"):
        pair_distance_distribution(good[:0])
    with pytest.raises(InputError, match="at least one frame and two atoms"):
        pair_distance_distribution(good[:, :1])
    with pytest.raises(InputError, match="positions of frame 1 are not finite"):
        pair_distance_distribution(np.where(np.arange(2)[:, None, None] == 1, np.nan, good))
    with pytest.raises(InputError, match="need 4 elements, got 3"):
        structure_distributions(good, atomic_numbers=HOOH[:3], pairs=BONDS)
    found = structure_distributions(good, atomic_numbers=HOOH, pairs=BONDS)
    with pytest.raises(InputError, match=r"distance .*angle"):
        density_gap(found["bond O-O"], found["angle H-O-O"])
