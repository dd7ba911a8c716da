"""Trajectories: read back in every format, and H5MD as MDAnalysis sees it."""

import re
import warnings

import h5py
import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import read, write
from ase.io.trajectory import Trajectory
from spring_molecule import spring_molecule

from remul_md.analysis.trajectory import analyze_trajectory
from remul_md.dynamics import MDOptions, export_h5md, read_trajectory, run_md
from remul_md.dynamics.read import open_trajectory
from remul_md.dynamics.readers import h5md
from remul_md.errors import InputError

FIELDS = ("positions", "momenta", "forces", "energy", "time_ps", "masses", "atomic_numbers", "pbc", "cell")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    chosen = MDOptions(length_ps=0.35, equilibrate_ps=0.05, frame_interval_fs=2.5, seed=4)
    atoms = spring_molecule()
    masses = atoms.get_masses()
    masses[8] = 2.014  # one deuterium: masses are those of the run, not of the table
    atoms.set_masses(masses)
    return run_md(atoms, chosen, output=tmp_path_factory.mktemp("run") / "run.h5md", progress=False)


def universe(topology, trajectory):
    MDAnalysis = pytest.importorskip("MDAnalysis")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MDAnalysis.Universe(str(topology), str(trajectory))


def test_mdanalysis_reads_the_run_in_its_units(run):
    seen = universe(run.h5md.with_suffix(".topology.pdb"), run.h5md)
    frames = read(run.trajectory, index=":")
    assert run.h5md.suffix == ".h5md"
    assert len(seen.trajectory) == len(frames) == run.n_frames == 141  # more than two blocks of 64
    assert seen.atoms.elements.tolist() == frames[0].get_chemical_symbols()
    assert seen.atoms.masses[0] == pytest.approx(12.011)
    assert seen.trajectory.units == {
        "time": "ps",
        "length": "Angstrom",
        "velocity": "Angstrom/ps",
        "force": "kJ/(mol*Angstrom)",
    }
    for number in (0, 63, 64, 140):
        frame, ts = frames[number], seen.trajectory[number]
        assert ts.time == pytest.approx(0.0025 * number, abs=1e-12)
        assert ts.dimensions is None
        np.testing.assert_allclose(ts.positions, frame.positions, atol=1e-5)
        # 1 ASE time unit is 10.1805 fs = 0.0101805 ps; 1 eV is 96.485 kJ/mol: written out, not taken from the code.
        np.testing.assert_allclose(ts.velocities, frame.get_velocities() / 0.01018050571, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(ts.forces, frame.get_forces() * 96.48533, rtol=1e-5, atol=1e-3)
        assert ts.data["potential_energy"] == pytest.approx(frame.get_potential_energy(), rel=1e-12)
        assert ts.data["total_energy"] == pytest.approx(frame.get_total_energy(), rel=1e-12)
    # A velocity is a displacement in a time, in the units that MDAnalysis says they have.
    before, after = (seen.trajectory[number].positions.copy() for number in (39, 41))
    moved = (after - before) / (2 * 0.0025)
    heavy = seen.trajectory[40].velocities[:3]  # C and O hardly turn back within 5 fs, H does
    np.testing.assert_allclose(moved[:3], heavy, atol=0.5)
    assert np.abs(heavy).max() > 5.0


def test_h5md_follows_the_specification(run):
    with h5py.File(run.h5md) as handle:
        assert handle["h5md"].attrs["version"].tolist() == [1, 1]
        assert handle["h5md/creator"].attrs["name"] == "remul-md"
        particles = handle["particles/trajectory"]
        assert particles["box"].attrs["dimension"] == 3
        assert particles["box"].attrs["boundary"].tolist() == ["none"] * 3
        assert particles["species"][:].tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
        assert particles["mass"][8] == 2.014
        assert particles["velocity/time"] == particles["position/time"]  # one data set, linked
        assert particles["position/step"][:3].tolist() == [0, 5, 10]
        for name in ("potential_energy", "kinetic_energy", "total_energy"):
            assert handle[f"observables/{name}/value"].attrs["unit"] == "eV"


@pytest.mark.parametrize("suffix", [".h5md", ".extxyz"])
def test_every_format_gives_the_same_arrays(run, tmp_path, suffix):
    expected = read_trajectory(run.trajectory)
    frames = read(run.trajectory, index=":")
    assert len(expected) == 141
    assert np.array_equal(expected.positions[7], frames[7].positions)
    np.testing.assert_allclose(expected.momenta[7], frames[7].get_momenta() * units.fs, rtol=1e-14)
    assert expected.masses[8] == 2.014
    path = run.h5md
    if suffix == ".extxyz":
        path = tmp_path / "run.extxyz"
        write(path, frames, format="extxyz", columns=["symbols", "positions", "momenta", "masses"])
        # ASE writes 8 decimals and leaves forces out when columns are named.
    found = read_trajectory(path)
    for field in FIELDS:
        if suffix == ".extxyz" and field == "forces":
            continue
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), atol=1e-7, err_msg=field)
    np.testing.assert_allclose(found.atoms(3).get_momenta(), frames[3].get_momenta(), atol=1e-6)


def test_an_ordinary_extxyz_keeps_forces_and_energy(run, tmp_path):
    frames = read(run.trajectory, index=":5")
    write(tmp_path / "run.xyz", frames, format="extxyz")
    found = read_trajectory(tmp_path / "run.xyz")
    np.testing.assert_allclose(found.forces[4], frames[4].get_forces(), atol=1e-7)
    assert found.energy[4] == pytest.approx(frames[4].get_potential_energy(), abs=1e-7)


def test_a_periodic_run_keeps_its_box(tmp_path):
    atoms = bulk("Cu", cubic=True) * (1, 2, 3)
    atoms.calc = EMT()
    chosen = MDOptions(length_ps=0.02, equilibrate_ps=0.0, timestep_fs=2.0, frame_interval_fs=4.0)
    result = run_md(atoms, chosen, output=tmp_path / "run.h5md", progress=False)
    seen = universe(result.h5md.with_suffix(".topology.pdb"), result.h5md)
    np.testing.assert_allclose(seen.trajectory[2].dimensions, [*atoms.cell.lengths(), 90, 90, 90], rtol=1e-6)
    found = read_trajectory(result.h5md)
    assert found.pbc.all()
    np.testing.assert_allclose(found.cell[4], atoms.cell.array, atol=1e-12)


def test_times_come_from_the_file_or_from_the_caller(run, tmp_path, caplog):
    frames = read(run.trajectory, index=":5")
    for frame in frames:
        frame.info.clear()
    untimed = tmp_path / "untimed.traj"
    write(untimed, frames)
    with pytest.raises(InputError, match=r"carry no time .*frame_interval_fs \(--frame-interval-fs\)"):
        read_trajectory(untimed)
    given = read_trajectory(untimed, frame_interval_fs=7.0)
    np.testing.assert_allclose(given.time_ps, [0.0, 0.007, 0.014, 0.021, 0.028])
    assert np.array_equal(
        read_trajectory(run.trajectory, frame_interval_fs=2.5).time_ps, read_trajectory(run.h5md).time_ps
    )
    caplog.clear()
    for path in (run.trajectory, run.h5md):  # headers are filled in many units, so the caller is believed
        corrected = read_trajectory(path, frame_interval_fs=5.0)
        np.testing.assert_allclose(np.diff(corrected.time_ps), 0.005)
        assert "2.5 fs between its first frames; 5 fs" in caplog.text
        caplog.clear()
    with pytest.raises(InputError, match=r"frame_interval_fs .*got -1"):
        read_trajectory(run.trajectory, frame_interval_fs=-1.0)


def test_blank_lines_between_frames_end_nothing(run, tmp_path):
    frames = read(run.trajectory, index=":6")
    for name, some in (("a.xyz", frames[:2]), ("b.xyz", frames[2:])):
        write(tmp_path / name, some, format="extxyz")
    text = "\n".join((tmp_path / name).read_text() for name in ("a.xyz", "b.xyz"))
    (tmp_path / "both.xyz").write_text(text + "\n\n")
    found = read_trajectory(tmp_path / "both.xyz")
    assert len(found) == 6
    np.testing.assert_allclose(found.time_ps, 0.0025 * np.arange(6), atol=1e-12)


def test_an_at_sign_in_a_name_is_a_letter(run, tmp_path):
    frames = read(run.trajectory, index=":5")
    for name in ("run@300K.traj", "run@3.extxyz"):
        write(tmp_path / "run.tmp", frames, format="traj" if name.endswith("traj") else "extxyz")
        (tmp_path / "run.tmp").rename(tmp_path / name)
        assert len(read_trajectory(tmp_path / name)) == 5


def test_what_only_some_frames_have_is_left_out_with_a_word(run, tmp_path, caplog):
    frames = read(run.trajectory, index=":70")  # two blocks
    frames[3].calc = None
    del frames[69].arrays["momenta"]
    write(tmp_path / "some.traj", frames)
    found = read_trajectory(tmp_path / "some.traj")
    assert (found.forces, found.energy, found.momenta) == (None, None, None)
    assert "have forces (63 of 64): left out" in caplog.text
    assert "have momenta (5 of 6): left out" in caplog.text
    assert "have momenta (1 of 2): left out" in caplog.text


def without_time(frames):
    del frames[2].info["time_ps"]


def other_molecule(frames):
    frames[3].numbers[0] = 7


def not_finite(frames):
    frames[1].positions[4, 0] = np.nan


def twice(frames):
    frames.extend(frames[:2])


def none_left(frames):
    frames.clear()


def isotope(frames):
    frames[2].set_masses([12.0, 12.0, 16.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0])


def no_element(frames):
    for frame in frames:
        frame.numbers[4] = 0


def foreign_element(frames):
    frames[1].numbers[4] = 300


def no_mass(frames):
    for frame in frames:
        frame.set_masses([12.0, 12.0, 16.0, 0.0, 1.0, 1.0, 1.0, 1.0, 2.0])


def time_in_words(frames):
    frames[4].info["time_ps"] = "late"


def half_the_forces(frames):
    frames[2].calc.results["forces"] = frames[2].calc.results["forces"][:5]


def true_energy(frames):
    frames[2].calc.results["energy"] = True


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_time, "4 of 5 frames .*time_ps"),
        (other_molecule, "frame 3 is CH6NO, .*C2H6O"),
        (not_finite, "positions of frame 1 is not finite"),
        (twice, r"time does not grow at frame 5 \(0.01 to 0 ps\)"),
        (none_left, "holds no frame"),
        (isotope, "frame 2 is C2H6O, .*order, masses or pbc"),
        (no_element, "atom 4 has the atomic number 0"),
        (foreign_element, "frame 1: atom 4 has the atomic number 300"),
        (no_mass, r"the mass of atom 3 is 0\.0 amu"),
        (time_in_words, "time_ps of frame 4 is 'late'"),
        (half_the_forces, r"forces of frame 2 has shape \(5, 3\), expected \(9, 3\)"),
        (true_energy, "energy of frame 2 is 'True'"),
    ],
)
def test_unusable_trajectories_are_named(run, tmp_path, spoil, message):
    frames = read(run.trajectory, index=":5")
    spoil(frames)
    with Trajectory(tmp_path / "bad.traj", "w") as writer:
        for frame in frames:
            writer.write(frame)
    with pytest.raises(InputError, match=message):
        read_trajectory(tmp_path / "bad.traj")


def test_missing_broken_and_unknown_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none.traj' does not exist"):
        read_trajectory(tmp_path / "none.traj")
    for name in ("broken.traj", "broken.h5md", "broken.xyz"):
        (tmp_path / name).write_text("this is no trajectory")
        with pytest.raises(InputError, match=f"cannot read .*{name}"):
            read_trajectory(tmp_path / name)
    (tmp_path / "run.dcd").write_text("x")
    with pytest.raises(InputError, match=r"extension '\.dcd' .*\.traj, \.extxyz or \.h5md"):
        read_trajectory(tmp_path / "run.dcd")


@pytest.mark.parametrize("count", ["999999999", "999999999999"])
def test_a_count_beyond_the_end_of_the_file_is_seen_at_once(tmp_path, count):
    (tmp_path / "long.xyz").write_text(f"{count}\n\nH 0 0 0\n")
    with pytest.raises(InputError, match=f"line 1 announces {count} atoms, the file ends after 1 of them"):
        read_trajectory(tmp_path / "long.xyz")


def replaced(name, value):
    """A data set of the particles with another value, its attributes kept."""

    def change(particles):
        attributes = dict(particles[name].attrs)
        del particles[name]
        particles[name] = value
        particles[name].attrs.update(attributes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("mass", np.ones(5)), r"mass has shape \(5,\), expected \(9,\)"),
        (replaced("species", np.ones(8, int)), r"position/value has shape \(141, 9, 3\), expected \(141, 8, 3\)"),
        (replaced("species", np.array([-1, *[1] * 8])), "atom 0 has the atomic number -1"),
        (replaced("species", np.full(9, 1.5)), "species has type float64"),
        (replaced("mass", -np.ones(9)), r"the mass of atom 0 is -1\.0 amu"),
        (replaced("force/value", np.zeros((141, 27))), r"force/value has shape \(141, 27\), expected \(141, 9, 3\)"),
        (replaced("force/value", np.zeros((150, 9, 3))), "force has 150 frames"),
        (replaced("velocity/value", np.zeros((141, 9, 3), complex)), "type complex128"),
        (replaced("position/value", np.full((141, 9, 3), b"x")), r"type \|S1"),
        (lambda p: p["box"].attrs.__setitem__("boundary", ["none"] * 2), "box .*boundary .*periodic"),
        (lambda p: p["box"].attrs.__setitem__("boundary", ["open"] * 3), "box .*boundary .*periodic"),
        (lambda p: p["position/value"].attrs.__setitem__("unit", np.zeros(3)), "H5MD 1.1"),
    ],
)
def test_h5md_that_does_not_fit_together_is_refused(run, tmp_path, change, message):
    path = tmp_path / "odd.h5md"
    path.write_bytes(run.h5md.read_bytes())
    with h5py.File(path, "r+") as handle:
        change(handle["particles/trajectory"])
    with pytest.raises(InputError, match=message):
        read_trajectory(path)


def test_damage_that_hdf5_finds_is_named(run, tmp_path):
    content, path, messages = run.h5md.read_bytes(), tmp_path / "damaged.h5md", []
    for table in re.finditer(b"SNOD|TREE", content):  # in which HDF5 keeps the names of a group, and places of data
        path.write_bytes(content[: table.start()] + b"XXXX" + content[table.end() :])
        try:
            found = read_trajectory(path)
        except InputError as error:
            messages.append(str(error))
        else:  # of a group that is not read
            assert len(found) == 141
            assert all(getattr(found, key) is not None for key in ("energy", "forces", "momenta"))
    assert len(messages) > 10
    assert all("damaged.h5md" in message for message in messages)
    assert any("is truncated, corrupt or no HDF5" in message for message in messages)


@pytest.mark.parametrize("n_frames", [3, 5])
def test_lengths_of_the_box_of_each_frame(run, tmp_path, n_frames):
    """Three frames: lengths [3 frames, 3] have the shape of a box [3, 3]."""
    frames = read(run.trajectory, index=f":{n_frames}")
    write(tmp_path / "short.traj", frames)
    export_h5md(tmp_path / "short.traj", tmp_path / "short.h5md")
    lengths = 4.0 + np.arange(3.0 * n_frames).reshape(n_frames, 3)
    with h5py.File(tmp_path / "short.h5md", "r+") as handle:
        handle["particles/trajectory/box/edges/value"] = lengths
        handle["particles/trajectory/box/edges/value"].attrs["unit"] = "Angstrom"
    found = read_trajectory(tmp_path / "short.h5md")
    np.testing.assert_allclose(found.cell, lengths[:, :, None] * np.eye(3))


def test_h5md_without_known_units_or_layout_is_refused(run, tmp_path):
    for number, (change, message) in enumerate(
        (
            (lambda p: p["velocity/value"].attrs.__setitem__("unit", "furlong"), "has unit 'furlong'; known ones are"),
            (lambda p: p["force/value"].attrs.__delitem__("unit"), "force/value has unit None"),
            (lambda p: p.__delitem__("species"), "has no species in"),
            (lambda p: p["position/value"].__setitem__((5, 2, 1), np.nan), "positions of frame 5 is not finite"),
            (lambda p: p.__delitem__("box"), "H5MD 1.1"),
        )
    ):
        path = tmp_path / f"{number}.h5md"
        path.write_bytes(run.h5md.read_bytes())
        with h5py.File(path, "r+") as handle:
            change(handle["particles/trajectory"])
        with pytest.raises(InputError, match=message):
            read_trajectory(path)
    with h5py.File(tmp_path / "empty.h5md", "w"):
        pass
    with pytest.raises(InputError, match=r"has the particle groups \[\]"):
        read_trajectory(tmp_path / "empty.h5md")


def test_units_of_other_programs_are_converted(run, tmp_path):
    path = tmp_path / "nm.h5md"
    path.write_bytes(run.h5md.read_bytes())
    with h5py.File(path, "r+") as handle:
        particles = handle["particles/trajectory"]
        for name, factor, unit in (
            ("position", 0.1, "nm"),
            ("velocity", 0.1, "nm ps-1"),
            ("force", 10, "kJ mol-1 nm-1"),
        ):
            particles[name]["value"][:] *= factor
            particles[name]["value"].attrs["unit"] = unit
        particles["position/time"][:] *= 1000.0
        particles["position/time"].attrs["unit"] = "fs"
    found, expected = read_trajectory(path), read_trajectory(run.trajectory)
    for field in FIELDS:
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), atol=1e-10, err_msg=field)


def test_export_refuses_what_it_cannot_copy(run, tmp_path):
    (tmp_path / "broken.traj").write_text("this is no trajectory")
    with pytest.raises(InputError, match=r"cannot read .*broken\.traj"):
        export_h5md(tmp_path / "broken.traj", tmp_path / "a.h5md")
    with Trajectory(tmp_path / "empty.traj", "w"):
        pass
    with pytest.raises(InputError, match=r"empty.traj' holds no frame|cannot read"):
        export_h5md(tmp_path / "empty.traj", tmp_path / "a.h5md")
    frames = read(run.trajectory, index=":70")
    for frame in frames[h5md.FRAMES_AT_ONCE :]:
        frame.calc = None
    write(tmp_path / "mixed.traj", frames)
    with pytest.raises(InputError, match="no /particles/trajectory/force, /observables/potential"):
        export_h5md(tmp_path / "mixed.traj", tmp_path / "a.h5md")
    content = bytearray((tmp_path / "mixed.traj").read_bytes())
    start = content.rindex(b'"positions.":')
    (tmp_path / "mixed.traj").write_bytes(bytes(content[:start]) + b"?" + bytes(content[start + 1 :]))
    with pytest.raises(InputError, match=r"cannot read .*mixed\.traj"):
        export_h5md(tmp_path / "mixed.traj", tmp_path / "a.h5md")
    with pytest.raises(InputError, match="cannot write"):
        export_h5md(run.trajectory, tmp_path / "nowhere" / "a.h5md")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".traj"] * 3  # nothing half-written stays


@pytest.mark.parametrize(("flags", "pbc"), [("ff ff ff", [0, 0, 0]), ("pp pp pp", [1, 1, 1]), ("pp ss pp", [1, 0, 1])])
def test_a_dump_says_along_which_axes_it_is_periodic(tmp_path, flags, pbc):
    """MDAnalysis gives every box the same; a molecule in a box of LAMMPS that is not periodic is an isolated one."""
    atoms = molecule("CH3CH2OH")
    write(tmp_path / "t.pdb", atoms, format="proteindatabank")
    text = ""
    for step in range(3):
        rows = "".join(f"{k + 1} 1 {x:.5f} {y:.5f} {z:.5f}\n" for k, (x, y, z) in enumerate(atoms.positions + 10.0))
        text += f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n9\nITEM: BOX BOUNDS {flags}\n" + 3 * "0.0 20.0\n"
        text += f"ITEM: ATOMS id type x y z\n{rows}"
    (tmp_path / "run.lammpstrj").write_text(text)
    opened = {"topology": tmp_path / "t.pdb", "frame_interval_fs": 1.0}
    block = next(open_trajectory(tmp_path / "run.lammpstrj", **opened).blocks())
    np.testing.assert_array_equal(block.pbc, np.array(pbc, dtype=bool))
    alone = next(open_trajectory(tmp_path / "run.lammpstrj", **opened, ignore_cell=True).blocks())
    assert not alone.pbc.any()
    assert not alone.cell.any()


def test_a_run_as_extended_xyz_is_its_trajectory(tmp_path):
    chosen = MDOptions(length_ps=0.1, equilibrate_ps=0.0, frame_interval_fs=2.5, seed=4)
    result = run_md(spring_molecule(), chosen, output=tmp_path / "run.extxyz", progress=False)
    assert result.extxyz == tmp_path / "run.extxyz"
    text, binary = read_trajectory(result.extxyz), read_trajectory(result.trajectory)
    assert len(text) == len(binary) == 41
    for name in FIELDS:
        if name != "masses":  # of the elements
            np.testing.assert_allclose(getattr(text, name), getattr(binary, name), atol=1e-7, err_msg=name)
    plain = run_md(spring_molecule(), chosen, output=tmp_path / "plain.traj", progress=False)
    assert plain.extxyz is None
    # It is analysed with the log and the record of its run, and one that no record names is not.
    known = analyze_trajectory(result.extxyz)
    assert (known.energies.source, known.ensemble, known.asked_temperature_K) == ("log", "nve", 300.0)
    (tmp_path / "plain.extxyz").write_bytes(result.extxyz.read_bytes())
    other = analyze_trajectory(tmp_path / "plain.extxyz")
    assert (other.energies.source, other.ensemble) == ("frames", "")
    assert plain.trajectory.read_bytes() == result.trajectory.read_bytes()


def test_a_structure_in_extended_xyz_is_no_file_of_the_run(tmp_path):
    """`run.extxyz` may be what the run starts from."""
    mine = tmp_path / "run.extxyz"
    mine.write_text("mine")
    chosen = MDOptions(length_ps=0.01, equilibrate_ps=0.0)
    run_md(spring_molecule(), chosen, output=tmp_path / "run.traj", progress=False)
    run_md(spring_molecule(), chosen, output=tmp_path / "run.traj", overwrite=True, progress=False)
    assert mine.read_text() == "mine"
    with pytest.raises(InputError, match="exists already"):
        run_md(spring_molecule(), chosen, output=mine, progress=False)
    assert mine.read_text() == "mine"
