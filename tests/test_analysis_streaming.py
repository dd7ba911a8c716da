"""Long files are measured some frames at a time, and files of other programs with a topology."""

from __future__ import annotations

import gc
import json
import shutil
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from analysis_runs import ethanol_run, tilted_ethanol
from ase.io import read, write
from ase.io.trajectory import Trajectory

from remul_md.analysis.along import measure_run
from remul_md.analysis.log import read_log
from remul_md.analysis.trajectory import analyze_frames, analyze_trajectory
from remul_md.dynamics import trajectory
from remul_md.dynamics.read import open_trajectory, read_trajectory
from remul_md.dynamics.readers import ase_files
from remul_md.dynamics.readers.h5md import export_h5md
from remul_md.dynamics.trajectory import joined
from remul_md.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """141 frames; H5MD and topology beside it."""
    path = ethanol_run(tmp_path_factory.mktemp("run"), length_ps=0.7, equilibrate_ps=0.1)
    export_h5md(path, path.with_suffix(".h5md"))
    return path


def repeated(source: Path, target: Path, times: int) -> Path:
    """The same H5MD frames again and again, with times that go on."""
    shutil.copy(source, target)
    with h5py.File(target, "r+") as handle:
        clock = handle["particles/trajectory/position/time"]
        n_frames, seen = len(clock), set()

        def extend(_: str, dataset: object) -> None:
            if not isinstance(dataset, h5py.Dataset) or dataset.shape[:1] != (n_frames,) or dataset.id in seen:
                return
            seen.add(dataset.id)
            values = np.tile(dataset[:], (times,) + (1,) * (dataset.ndim - 1))
            dataset.resize(len(values), axis=0)
            dataset[:] = np.arange(len(values)) * 0.005 if dataset.name.endswith("time") else values

        handle.visititems(extend)
        assert len(clock) == times * n_frames
    return target


def peak_bytes(path: Path, n_frames: int) -> int:
    """Of the analysis of a file without rotations."""
    analyze_trajectory(path)  # what is imported and cached on the way does not count
    tracemalloc.start()
    try:
        analysis = analyze_trajectory(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        assert len(analysis.time_ps) == n_frames


def test_memory_holds_a_few_numbers_of_each_frame(run, tmp_path):
    short = repeated(run.with_suffix(".h5md"), tmp_path / "short.h5md", 8)
    long = repeated(run.with_suffix(".h5md"), tmp_path / "long.h5md", 40)
    added = (peak_bytes(long, 40 * 141) - peak_bytes(short, 8 * 141)) / (32 * 141)
    # Positions, momenta, forces and cell are 720 bytes a frame of nine atoms; some copies of them are made on the way.
    assert added < 250


def test_memory_does_not_hold_the_frames_of_ase(run, tmp_path):
    frames = read(run, index=":")
    with Trajectory(tmp_path / "long.traj", "w") as writer:
        for number in range(6 * 141):
            frames[number % 141].info["time_ps"] = 0.005 * number
            writer.write(frames[number % 141])
    held = []
    tracemalloc.start()
    try:
        for _ in open_trajectory(tmp_path / "long.traj").blocks():
            gc.collect()  # ASE's frames are cyclic
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert len(held) == 14
    # From the third block to the last but one there are 640 frames; an Atoms object with its results takes some 3,000.
    assert (held[-2] - held[2]) / 640 < 300


@pytest.mark.parametrize("suffix", [".traj", ".h5md", ".extxyz"])
def test_blocks_make_no_difference(run, tmp_path, monkeypatch, suffix):
    path = run.with_suffix(suffix)
    if suffix == ".extxyz":
        path = tmp_path / "run.extxyz"
        write(path, read(run, index=":"), format="extxyz")
    whole = read_trajectory(path)
    expected = analyze_frames(whole, atoms=tilted_ethanol(), n_rotation_frames=5, n_draws=2)
    assert expected.bonds.deviation_A.shape == expected.angle_swept_deg.shape == (141,)
    monkeypatch.setattr(trajectory, "MAX_BLOCK_FRAMES", 13)
    monkeypatch.setattr(ase_files, "ASE_FRAMES_AT_ONCE", 11)
    opened = open_trajectory(path)
    assert opened.n_frames == 141
    assert {len(block) for block in opened.blocks()} <= {13, 11, 141 % 13, 141 % 11}
    found = analyze_frames(opened, atoms=tilted_ethanol(), n_rotation_frames=5, n_draws=2)
    for field in ("angle_swept_deg", "net_torque_eV", "net_force_eV_per_A", "time_ps"):
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.rotational.error_meV_per_A, expected.rotational.error_meV_per_A, rtol=1e-12)
    assert np.array_equal(found.pair_distances.half_counts, expected.pair_distances.half_counts)
    assert found.pair_distances.mean == pytest.approx(expected.pair_distances.mean, rel=1e-13)
    assert found.bonds.worst_pair == expected.bonds.worst_pair
    np.testing.assert_allclose(found.bonds.deviation_A, expected.bonds.deviation_A, atol=1e-14)
    if suffix != ".extxyz":  # ASE writes no momenta there without being asked
        assert found.drift.slope_meV_per_atom_ps == expected.drift.slope_meV_per_atom_ps
        np.testing.assert_allclose(found.momentum.angular_change_hbar, expected.momentum.angular_change_hbar, atol=1e-9)
        assert found.momentum.reference_hbar == pytest.approx(expected.momentum.reference_hbar, rel=1e-12)
    together = joined(list(opened.blocks()))
    assert np.array_equal(together.positions, whole.positions)


def test_a_bond_that_breaks_in_a_later_block_is_found(run, monkeypatch):
    frames = read_trajectory(run)
    torn = frames.positions.copy()
    torn[40:, 1] += [0.0, 0.0, 0.9]
    torn[90:, 2] += [0.0, 1.5, 0.0]
    whole = measure_run(replace(frames, positions=torn), sample=np.array([0, 140])).bonds
    monkeypatch.setattr(trajectory, "MAX_BLOCK_FRAMES", 17)
    found = measure_run(replace(frames, positions=torn), sample=np.array([0, 140])).bonds
    assert found.first_off_frame == whole.first_off_frame == 40
    assert found.first_off_pair == whole.first_off_pair
    assert found.worst_pair == whole.worst_pair
    assert found.max_bond_deviation_A == whole.max_bond_deviation_A


def test_what_later_frames_lack_or_do_wrong_is_noticed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(ase_files, "ASE_FRAMES_AT_ONCE", 16)

    def written(name, spoil):
        frames = read(run, index=":50")
        spoil(frames)
        write(tmp_path / name, frames)
        return tmp_path / name

    def without_forces(frames):
        for frame in frames[33:]:
            frame.calc = None

    bare = analyze_trajectory(written("forces.traj", without_forces))
    assert bare.net_torque_eV is None
    assert bare.drift is None
    assert bare.momentum is not None
    assert any("the trajectory has no forces" in note for note in bare.notes)
    for name, spoil, message in (
        ("time.traj", lambda frames: frames[32].info.pop("time_ps"), "15 of 16 frames carry time_ps"),
        ("late.traj", lambda frames: [f.info.pop("time_ps") for f in frames[32:]], "0 of 16 frames carry time_ps"),
        (
            "step.traj",
            lambda frames: frames[32].info.update(time_ps=0.01),
            r"not grow at frame 32 \(0.155 to 0.01",
        ),
        ("other.traj", lambda frames: frames[32].numbers.__setitem__(1, 7), r"frame 32 is CH6NO, .*C2H6O"),
        ("nan.traj", lambda frames: frames[40].positions.__setitem__((2, 1), np.nan), "positions of frame 40 is not"),
    ):
        with pytest.raises(InputError, match=message):
            analyze_trajectory(written(name, spoil))
    np.testing.assert_allclose(np.diff(read_trajectory(run, frame_interval_fs=2.0).time_ps), 0.002)


def test_h5md_with_uneven_elements_is_refused(run, tmp_path):
    path = tmp_path / "uneven.h5md"
    shutil.copy(run.with_suffix(".h5md"), path)
    with h5py.File(path, "r+") as handle:
        handle["particles/trajectory/velocity/value"].resize(100, axis=0)
    with pytest.raises(InputError, match="velocity has 100 frames"):
        read_trajectory(path)


def test_a_log_is_read_row_by_row(run, tmp_path):
    text = run.with_suffix(".log.csv").read_text()
    lines = text.splitlines()
    expected = np.loadtxt(lines[1:], delimiter=",")
    found = read_log(run.with_suffix(".log.csv"))
    assert np.array_equal(np.stack([found.time_ps, found.potential_energy, found.kinetic_energy]), expected[:, 1:4].T)
    cut = tmp_path / "cut.csv"
    cut.write_text(text[: text.rindex(",")])
    assert len(read_log(cut).time_ps) == len(found.time_ps) - 1
    cut.write_text("\n".join([lines[0], lines[1], lines[2][:9], lines[3]]))
    with pytest.raises(InputError, match="the log cannot be read"):
        read_log(cut)


@pytest.fixture(scope="module")
def other_formats(run):
    """The run as TRR (velocities and forces), DCD (positions) and XYZ (no times) with its topology."""
    import MDAnalysis

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a PDB without what a protein has, and of formats that are to change
        universe = MDAnalysis.Universe(str(run.with_suffix(".topology.pdb")), str(run.with_suffix(".h5md")))
        for suffix in (".trr", ".dcd", ".xyz"):
            name = str(run.with_name(f"other{suffix}"))
            with MDAnalysis.Writer(name, n_atoms=9, dt=0.005) as writer:
                for _ in universe.trajectory:
                    writer.write(universe.atoms)
    return run.with_name("other.trr"), run.with_name("other.dcd"), run.with_name("other.xyz")


@pytest.mark.filterwarnings("error")
def test_files_of_other_programs_are_read_with_a_topology(run, other_formats, monkeypatch):
    monkeypatch.setattr(trajectory, "MAX_BLOCK_FRAMES", 50)
    trr, dcd, xyz = other_formats
    topology = run.with_suffix(".topology.pdb")
    known = read_trajectory(run)
    found = joined(list(open_trajectory(trr, topology=topology).blocks()))
    assert found.atomic_numbers.tolist() == known.atomic_numbers.tolist()
    np.testing.assert_allclose(found.masses, known.masses)
    np.testing.assert_allclose(found.time_ps, known.time_ps, atol=1e-5)
    np.testing.assert_allclose(found.positions, known.positions, atol=1e-5)
    np.testing.assert_allclose(found.momenta, known.momenta, atol=1e-6 * np.abs(known.momenta).max())
    np.testing.assert_allclose(found.forces, known.forces, atol=1e-6 * np.abs(known.forces).max())
    assert not found.pbc.any()
    one, expected = analyze_trajectory(trr, topology=topology), analyze_frames(replace(known, energy=None))
    assert one.formula == "C2H6O"
    assert one.n_dof == expected.n_dof == 24
    np.testing.assert_allclose(one.net_torque_eV, expected.net_torque_eV, atol=1e-4)
    assert one.momentum.reference_hbar == pytest.approx(expected.momentum.reference_hbar, rel=1e-4)
    assert any("lacks potential energies" in note for note in one.notes)
    positions_only = analyze_trajectory(dcd, topology=topology)
    assert positions_only.net_torque_eV is None
    assert positions_only.momentum is None
    np.testing.assert_allclose(positions_only.angle_swept_deg, expected.angle_swept_deg, atol=1e-3)
    notes = " ".join(positions_only.notes)
    assert "no forces" in notes
    assert "no momenta" in notes
    rotated = analyze_trajectory(dcd, topology=topology, atoms=tilted_ethanol(), n_rotation_frames=4, n_draws=2)
    assert rotated.net_torque_eV.shape == (4, 3)
    with pytest.raises(InputError, match=r"no time.*--frame-interval-fs"):
        analyze_trajectory(xyz, topology=topology)
    timed = analyze_trajectory(xyz, topology=topology, frame_interval_fs=5.0)
    np.testing.assert_allclose(timed.time_ps, known.time_ps, atol=1e-9)
    said = analyze_trajectory(trr, topology=topology, frame_interval_fs=4.0)
    np.testing.assert_allclose(np.diff(said.time_ps), 0.004)


def test_the_command_takes_a_topology(run, other_formats, tmp_path, capsys, monkeypatch):
    from remul_md.cli.app import main

    figures = tmp_path / "a.json"
    command = ["remul-md", "analyze", str(other_formats[1]), "--topology", str(run.with_suffix(".topology.pdb"))]
    monkeypatch.setattr("sys.argv", [*command, "--json", str(figures)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "note: No net torque: the trajectory has no forces" in said
    assert json.loads(figures.read_text())["n_frames"] == 141


def test_topologies_that_will_not_do_are_named(run, other_formats, tmp_path):
    dcd = other_formats[1]
    with pytest.raises(InputError, match=r"extension '\.dcd' .*--topology"):
        open_trajectory(dcd)
    with pytest.raises(InputError, match=r"topology '.*none.pdb' does not exist"):
        open_trajectory(dcd, topology=tmp_path / "none.pdb")
    text = run.with_suffix(".topology.pdb").read_text()
    fewer = tmp_path / "fewer.pdb"
    fewer.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("HETATM    9")))
    with pytest.raises(InputError, match=r"cannot read '.*other.dcd' with the topology"):
        open_trajectory(dcd, topology=fewer)
    nameless = tmp_path / "nameless.pdb"
    nameless.write_text("\n".join(line[:76].rstrip() for line in text.splitlines()))
    with pytest.raises(InputError, match="has no element for every atom"):
        next(open_trajectory(dcd, topology=nameless).blocks())
