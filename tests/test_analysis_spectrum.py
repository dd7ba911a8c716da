"""Spectra of motions whose frequencies and degrees of freedom are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analysis_runs import ethanol_run
from ase import units
from ase.units import kB
from spring_molecule import spring_molecule

from remul_md.analysis.spectrum import density_of_states, strongest_lines, trajectory_spectrum, write_spectrum_png
from remul_md.analysis.vibrations import vibrations
from remul_md.dynamics.read import read_trajectory
from remul_md.dynamics.trajectory import TrajectoryArrays
from remul_md.errors import InputError

MASSES = np.array([1.008, 12.011, 15.999, 14.007, 31.0])
LINES = np.array([3650.0, 1712.0, 812.0, 812.0, 233.0])  # 1/cm, of each atom


def oscillators(*, n_frames: int, interval_fs: float, temperature_K: float, seed: int = 0) -> np.ndarray:
    """Momenta of five atoms on three springs each, every degree of freedom with kT: m <v^2> = kT."""
    rng = np.random.default_rng(seed)
    time_fs = interval_fs * np.arange(n_frames)
    phase = rng.uniform(0.0, 2.0 * np.pi, size=(5, 3))
    turn = 2.0 * np.pi * 2.99792458e-5 * LINES[None, :, None] * time_fs[:, None, None] + phase
    amplitude = np.sqrt(2.0 * kB * temperature_K * MASSES) * units.fs  # of the momentum, amu Angstrom/fs
    return amplitude[None, :, None] * np.cos(turn)


def share(spectrum, low: float, high: float) -> float:
    inside = (spectrum.wavenumbers_per_cm > low) & (spectrum.wavenumbers_per_cm < high)
    return float(spectrum.density[inside].sum() * spectrum.wavenumbers_per_cm[1])


def test_lines_stand_where_they_are_and_count_their_degrees_of_freedom():
    momenta = oscillators(n_frames=12000, interval_fs=2.0, temperature_K=250.0)
    found = density_of_states(momenta, masses=MASSES, frame_interval_fs=2.0, temperature_K=250.0)
    assert found.resolution_per_cm == pytest.approx(10.0, rel=0.01)
    assert found.n_segments > 5
    assert found.warning == ""
    peaks = strongest_lines(found)
    np.testing.assert_allclose(peaks, [233.0, 812.0, 1712.0, 3650.0], atol=0.5 * found.resolution_per_cm)
    assert found.integral == pytest.approx(15.0, rel=0.01)
    for line, n_dof in ((233.0, 3.0), (812.0, 6.0), (1712.0, 3.0), (3650.0, 3.0)):
        assert share(found, line - 60.0, line + 60.0) == pytest.approx(n_dof, rel=0.02)
    half = density_of_states(momenta, masses=MASSES, frame_interval_fs=2.0, temperature_K=500.0)
    assert half.integral == pytest.approx(7.5, rel=0.01)  # motion of 250 K is half of what 500 K would excite


def test_frames_given_out_some_at_a_time_give_the_spectrum_of_all():
    momenta = oscillators(n_frames=1201, interval_fs=2.0, temperature_K=250.0)
    momenta *= np.random.default_rng(5).uniform(0.5, 1.5, size=(1201, 1, 1))  # no two pieces are alike
    positions = np.zeros((1201, 5, 3)) + np.random.default_rng(6).normal(size=(5, 3))
    run = TrajectoryArrays(
        positions=positions,
        atomic_numbers=np.array([1, 6, 8, 7, 15]),
        masses=MASSES,
        time_ps=0.002 * np.arange(1201),
        pbc=np.zeros(3, dtype=bool),
        cell=np.zeros((1201, 3, 3)),
        momenta=momenta,
    )
    assert len(list(run.blocks())) == 5
    for resolution in (15.0, 40.0, 300.0):  # pieces of several blocks, of about one, and many in one
        found = trajectory_spectrum(run, resolution_per_cm=resolution)
        n_dof = 15  # it turns and moves
        kelvin = (momenta**2 / MASSES[:, None]).sum() / 1201 / units.fs**2 / (n_dof * kB)
        wanted = density_of_states(
            momenta, masses=MASSES, frame_interval_fs=2.0, temperature_K=kelvin, resolution_per_cm=resolution
        )
        assert found.n_segments == wanted.n_segments
        np.testing.assert_allclose(found.wavenumbers_per_cm, wanted.wavenumbers_per_cm, rtol=1e-12)
        np.testing.assert_allclose(found.density, wanted.density, rtol=1e-9, atol=1e-12)


def test_a_line_is_as_wide_as_is_said():
    """One bin's answer while a line is moved past it, at a width of 40 1/cm."""
    time_fs = 2.0 * np.arange(600)
    answers, places = [], np.linspace(1600.0, 1700.0, 201)
    for place in places:
        momenta = np.zeros((600, 2, 3))
        momenta[:, 1, 0] = np.cos(2.0 * np.pi * 2.99792458e-5 * place * time_fs)
        found = density_of_states(
            momenta, masses=MASSES[1:3], frame_interval_fs=2.0, temperature_K=300.0, resolution_per_cm=40.0
        )
        nearest = int(np.argmin(np.abs(found.wavenumbers_per_cm - 1650.0)))
        answers.append(found.density[nearest])
    above = places[np.array(answers) > 0.5 * max(answers)]
    assert found.resolution_per_cm == pytest.approx(40.0, rel=0.02)
    assert above[-1] - above[0] == pytest.approx(40.0, rel=0.03)


def test_coarse_frames_and_short_runs_warn():
    momenta = oscillators(n_frames=400, interval_fs=5.0, temperature_K=300.0)
    coarse = density_of_states(momenta, masses=MASSES, frame_interval_fs=5.0, temperature_K=300.0)
    assert "Write a frame every 3.8 fs" in coarse.warning
    assert coarse.wavenumbers_per_cm[-1] == pytest.approx(3335.6, abs=1.0)
    heavy = density_of_states(momenta[:, 1:], masses=MASSES[1:], frame_interval_fs=5.0, temperature_K=300.0)
    assert heavy.n_segments == 1
    assert "too short for 10 1/cm; its lines are 24 1/cm wide" in heavy.warning


def test_a_run_of_a_molecule_has_its_harmonic_lines(tmp_path: Path):
    """At 20 K a spring molecule moves at its normal modes."""
    atoms = spring_molecule("CH3CH2OH")
    expected = vibrations(atoms).modes.vibrations_per_cm
    path = ethanol_run(
        tmp_path, tilted=False, length_ps=1.0, equilibrate_ps=0.0, temperature_K=20.0, frame_interval_fs=2.0
    )
    found = trajectory_spectrum(read_trajectory(path), resolution_per_cm=40.0)
    assert found.warning == ""
    assert found.integral == pytest.approx(24.0, rel=0.1)  # 3N - 3: the centre of mass is at rest
    lines = strongest_lines(found)
    fast = lines[lines > 300.0]
    assert len(fast) >= 4
    gaps = np.abs(fast[:, None] - expected[None, :]).min(axis=1)
    assert gaps.max() < 30.0
    json.loads(json.dumps(found.to_json(), allow_nan=False))
    write_spectrum_png(found, tmp_path / "new" / "spectrum.png", title="ethanol")
    assert (tmp_path / "new" / "spectrum.png").stat().st_size > 10000
    with pytest.raises(InputError, match="cannot be written"):
        write_spectrum_png(found, tmp_path / "spectrum.words", title="ethanol")


def arrays(**changes) -> TrajectoryArrays:
    rng = np.random.default_rng(0)
    momenta = rng.normal(size=(40, 5, 3))
    content = {
        "positions": rng.normal(size=(40, 5, 3)),
        "atomic_numbers": np.array([1, 6, 8, 7, 15]),
        "masses": MASSES,
        "time_ps": 1e-3 * np.arange(40),
        "pbc": np.zeros(3, dtype=bool),
        "cell": np.zeros((40, 3, 3)),
        "momenta": momenta,
    }
    return TrajectoryArrays(**{**content, **changes})


def test_what_has_no_spectrum_is_refused():
    with pytest.raises(InputError, match="has no momenta"):
        trajectory_spectrum(arrays(momenta=None))
    uneven = 1e-3 * np.arange(40)
    uneven[20:] += 0.001
    with pytest.raises(InputError, match="needs even times"):
        trajectory_spectrum(arrays(time_ps=uneven))
    with pytest.raises(InputError, match="all momenta are zero"):
        trajectory_spectrum(arrays(momenta=np.zeros((40, 5, 3))))
    with pytest.raises(InputError, match="T at least 16"):
        density_of_states(np.ones((15, 5, 3)), masses=MASSES, frame_interval_fs=1.0, temperature_K=300.0)
    with pytest.raises(InputError, match="resolution_per_cm must be > 0, got 0"):
        density_of_states(
            np.ones((20, 5, 3)), masses=MASSES, frame_interval_fs=1.0, temperature_K=300.0, resolution_per_cm=0
        )
    with pytest.raises(InputError, match="all momenta are zero"):
        density_of_states(np.zeros((20, 5, 3)), masses=MASSES, frame_interval_fs=1.0, temperature_K=300.0)
    short = arrays()
    with pytest.raises(InputError, match="needs at least 16 frames, got 7"):
        trajectory_spectrum(arrays(positions=short.positions[:7], time_ps=short.time_ps[:7], momenta=short.momenta[:7]))


def test_frames_written_twice_do_not_shift_the_lines(tmp_path):
    """Programs write the first frame of a continued run again; the time between frames then seems longer than it is."""
    path = ethanol_run(
        tmp_path, tilted=False, length_ps=1.0, equilibrate_ps=0.0, temperature_K=20.0, frame_interval_fs=2.0
    )
    once = read_trajectory(path)
    repeated = np.sort(np.concatenate([np.arange(len(once)), np.arange(8, len(once), 9)]))
    twice = replace(once.part(repeated), time_ps=0.002 * np.arange(len(repeated)))
    found, expected = trajectory_spectrum(twice), trajectory_spectrum(once)
    np.testing.assert_allclose(strongest_lines(found), strongest_lines(expected))
    np.testing.assert_allclose(found.density, expected.density, rtol=1e-9)
    n_repeats = len(repeated) - len(once)
    assert f"{n_repeats} frames repeat the one before" in found.warning
    assert "repeat" not in expected.warning
    stamped = replace(once.part(repeated), time_ps=once.time_ps[repeated])  # each says the time of its twin
    np.testing.assert_allclose(trajectory_spectrum(stamped).density, expected.density, rtol=1e-9)
    with pytest.raises(InputError, match="at least 16 frames, got 9"):
        trajectory_spectrum(twice.part(np.repeat(np.arange(10), 3)))
