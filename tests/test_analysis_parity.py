"""Parity: predictions beside labels, from the frames that a record names, drawn as densities that lose no point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from report_cases import drawn_parity

from remul_md.analysis.parity import MAX_FRAMES, known_parity, parity
from remul_md.analysis.report.parity import parity_figures
from remul_md.datasets.read import read_frames
from remul_md.errors import InputError
from remul_md.potentials.potential import load_potential


@pytest.fixture(scope="module")
def ethanol():
    return load_potential("ethanol", dtype="float64")


def test_errors_are_those_of_the_labels(ethanol):
    frames = read_frames("rmd17/ethanol/test-01").select(range(7))
    found = parity(ethanol, frames, forces="conservative", data="seven")
    assert found.forces.shape == found.predicted_forces.shape == (7 * 9 * 3,)
    assert 1.0 < found.force_mae_meV_per_A < 10.0
    shifted = replace(frames, forces=frames.forces + 0.5, energy=frames.energy - 2.0)
    moved = parity(ethanol, shifted, forces="conservative", data="seven")
    np.testing.assert_allclose(moved.predicted_forces - moved.forces, found.predicted_forces - found.forces - 0.5)
    np.testing.assert_allclose(moved.predicted_energy - moved.energy, found.predicted_energy - found.energy + 2.0)


def test_the_record_names_the_frames(ethanol):
    own = known_parity(ethanol, forces="conservative", evaluation=None)
    recorded = ethanol.provenance.run_of("conservative")["metrics"]["validation_force_mae_meV_per_A"]
    assert own.n_frames == 50
    assert own.force_mae_meV_per_A == pytest.approx(recorded, rel=0.02)  # trained on by consistency since
    tested = known_parity(ethanol, forces="direct", evaluation={"data": "rmd17/ethanol/test-01"})
    assert tested.n_frames == MAX_FRAMES
    assert tested.force_mae_meV_per_A > 1.5 * own.force_mae_meV_per_A  # direct forces are less accurate
    with pytest.raises(InputError, match="another potential"):
        known_parity(ethanol, forces="direct", evaluation={"data": "x", "potential_sha256": "0"})
    with pytest.raises(InputError, match="neither a file nor"):
        known_parity(ethanol, forces="direct", evaluation={"data": "no/such/frames.xyz"})


def test_a_density_counts_every_point_in_its_frame():
    found = drawn_parity()
    error = found.predicted_forces - found.forces
    forces, energies = parity_figures(found)
    (density, line) = forces.traces
    assert density.counts.shape == (len(density.y), len(density.x))
    n_beyond = int((np.abs(1e3 * error) > forces.box[3]).sum())
    assert 3 <= n_beyond <= 6
    assert density.counts.sum() == 900 - n_beyond
    assert f"{n_beyond}, the largest 500 meV" in forces.reading
    rows = density.counts.sum(axis=1)
    np.testing.assert_allclose((rows @ density.y) / rows.sum(), 1e3 * np.median(error), atol=0.5)
    assert line.y.tolist() == [0.0, 0.0]
    (of_energy, _) = energies.traces
    assert of_energy.counts.sum() == 30
    assert of_energy.y[np.argmax(of_energy.counts.sum(axis=1))] == pytest.approx(1.0, abs=0.06)  # meV
    written = forces.to_json()
    filled = [count for row in written["traces"][0]["counts"] for count in row if count is not None]
    assert min(filled) >= 1
    assert sum(filled) == density.counts.sum()
    assert parity_figures(None) == []
