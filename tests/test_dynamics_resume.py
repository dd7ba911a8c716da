"""Runs that are killed, refused by the disk or started twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import read
from spring_molecule import CrookedSprings, spring_molecule

from remul_md.dynamics import MDOptions, read_trajectory, run_md
from remul_md.errors import InputError

PROGRAM = """
import json, resource, sys
sys.path.insert(0, {tests!r})
from spring_molecule import CrookedSprings, spring_molecule
from remul_md.dynamics import MDOptions, run_md
limit = {limit}
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
options = MDOptions(**json.loads({options!r}))
fast = CrookedSprings(spring_molecule()) if options.n_inner else None
run_md(spring_molecule(), options, output={output!r}, fast=fast, resume={resume}, progress=False)
"""
BASE = {
    "length_ps": 0.4,
    "equilibrate_ps": 0.2,
    "timestep_fs": 0.5,
    "frame_interval_fs": 3.5,
    "log_interval": 3,
    "seed": 8,
}
GROWING = (".log.csv", ".equilibration.csv")


def start(output: Path, chosen: dict, *, resume: bool, limit: int = 0) -> subprocess.Popen:
    program = PROGRAM.format(
        tests=str(Path(__file__).parent), options=json.dumps(chosen), output=str(output), resume=resume, limit=limit
    )
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def kill_when(process: subprocess.Popen, path: Path, *, n_lines: int) -> None:
    """SIGKILL as soon as the log at `path` has so many lines."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= n_lines:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, f"not killed in time: {process.returncode}, {errors}"


def assert_same_run(one: Path, other: Path) -> None:
    for suffix in GROWING:
        if not one.with_suffix(suffix).exists():
            assert suffix == ".equilibration.csv"
            continue
        assert one.with_suffix(suffix).read_bytes() == other.with_suffix(suffix).read_bytes()
    first, second = read(one, index=":"), read(other, index=":")
    assert len(first) == len(second)
    for left, right in zip(first, second, strict=True):
        assert left.info == right.info
        assert np.array_equal(left.positions, right.positions)
        assert np.array_equal(left.get_momenta(), right.get_momenta())
        assert np.array_equal(left.get_forces(), right.get_forces())
        assert left.get_potential_energy() == right.get_potential_energy()


# 37 divides neither phase nor intervals: files are always longer than at the checkpoint. The last run is killed
# before any checkpoint but those that begin a phase.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "checkpoint_interval"),
    [
        ({"ensemble": "nve"}, 37),
        ({"ensemble": "langevin", "final_temperature_K": 500.0}, 37),
        ({"ensemble": "bussi", "final_temperature_K": 500.0, "thermostat_time_fs": 30.0}, 37),
        ({"ensemble": "nose-hoover", "rotation": "zero", "thermostat_time_fs": 30.0}, 37),
        ({"ensemble": "nve", "n_inner": 7, "length_ps": 1.0}, 37),
        ({"ensemble": "nve"}, 10**6),
    ],
)
def test_a_run_killed_twice_equals_an_uninterrupted_one_bit_for_bit(tmp_path, more, checkpoint_interval):
    whole, killed = tmp_path / "whole.traj", tmp_path / "killed.traj"
    chosen = {**BASE, **more, "checkpoint_interval": checkpoint_interval}

    def run(output, **options):
        fast = CrookedSprings(spring_molecule()) if "n_inner" in chosen else None
        return run_md(spring_molecule(), MDOptions(**chosen), output=output, fast=fast, progress=False, **options)

    straight = run(whole)
    kill_when(start(killed, chosen, resume=False), killed.with_suffix(".equilibration.csv"), n_lines=60)
    assert not killed.exists()
    kill_when(start(killed, chosen, resume=True), killed.with_suffix(".log.csv"), n_lines=100)
    assert len(read(killed, index=":")) > 35  # what a killed run leaves can be read as it is
    assert json.loads(killed.with_suffix(".json").read_text())["status"] == "running"
    result = run(killed, resume=True)
    assert_same_run(whole, killed)
    assert result.mean_temperature_K == straight.mean_temperature_K
    assert result.equilibration_steps == straight.equilibration_steps == 400


def test_resuming_without_a_run_begins_one_and_after_it_changes_nothing(tmp_path):
    output = tmp_path / "run.traj"
    chosen = MDOptions(**{**BASE, "equilibrate_ps": 0.0, "length_ps": 0.05})
    first = run_md(spring_molecule(), chosen, output=output, resume=True, progress=False)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert run_md(spring_molecule(), chosen, output=output, resume=True, progress=False) == first
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(tmp_path):
    whole, limited = tmp_path / "whole.traj", tmp_path / "limited.traj"
    chosen = {**BASE, "equilibrate_ps": 0.05, "length_ps": 0.3, "checkpoint_interval": 37}
    run_md(spring_molecule(), MDOptions(**chosen), output=whole, progress=False)
    process = start(limited, chosen, resume=False, limit=40_000)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "InputError: cannot write" in errors
    assert "limited.traj" in errors
    assert "free space or choose another output, then go on with resume" in errors
    assert len(read(limited, index=":")) > 5
    run_md(spring_molecule(), MDOptions(**chosen), output=limited, resume=True, progress=False)
    assert_same_run(whole, limited)


@pytest.fixture
def finished(tmp_path):
    output = tmp_path / "run.traj"
    chosen = {**BASE, "equilibrate_ps": 0.0, "length_ps": 0.05}
    run_md(spring_molecule(), MDOptions(**chosen), output=output, progress=False, provenance={"potential": "a"})
    return output, chosen


def again(output, chosen, *, atoms=None, resume=True, provenance=None):
    return run_md(
        atoms or spring_molecule(),
        MDOptions(**chosen),
        output=output,
        resume=resume,
        progress=False,
        provenance={"potential": "a"} if provenance is None else provenance,
    )


def test_an_existing_run_is_not_overwritten(finished):
    output, chosen = finished
    before = output.read_bytes()
    with pytest.raises(InputError, match=r"exists already; .*--resume.*--overwrite"):
        again(output, chosen, resume=False)
    assert output.read_bytes() == before


def test_other_options_are_refused_by_name(finished):
    output, chosen = finished
    with pytest.raises(InputError, match=r"timestep_fs was 0\.5, now 0\.25; seed was 8, now 9"):
        again(output, {**chosen, "seed": 9, "timestep_fs": 0.25})


def test_a_run_made_before_an_option_existed_goes_on(tmp_path):
    output, older = tmp_path / "run.traj", ("thermostat_time_fs", "final_temperature_K")
    chosen = {**BASE, "equilibrate_ps": 0.0, "length_ps": 0.05, "checkpoint_interval": 37}
    whole = run_md(spring_molecule(), MDOptions(**chosen), output=tmp_path / "whole.traj", progress=False)
    kill_when(start(output, {**chosen, "length_ps": 5.0}, resume=False), output.with_suffix(".log.csv"), n_lines=20)
    description = output.with_suffix(".json")
    said = json.loads(description.read_text())
    said["options"] = {key: value for key, value in said["options"].items() if key not in older}
    said["options"]["length_ps"] = 0.05  # shortened, so that the test is
    description.write_text(json.dumps(said))
    checkpoint = output.with_suffix(".checkpoint.npz")
    with np.load(checkpoint) as archive:
        arrays = dict(archive)
    scalars = json.loads(str(arrays["scalars"]))
    assert scalars.pop("thermostat") == {}
    arrays["scalars"] = np.array(json.dumps(scalars))
    np.savez(checkpoint, **arrays)
    with pytest.raises(InputError, match=r"thermostat_time_fs was 100\.0, now 55\.0"):
        run_md(spring_molecule(), MDOptions(**chosen, thermostat_time_fs=55.0), output=output, resume=True)
    assert run_md(spring_molecule(), MDOptions(**chosen), output=output, resume=True, progress=False).n_frames == 15
    assert whole.n_frames == 15
    assert_same_run(tmp_path / "whole.traj", output)


def test_another_potential_or_structure_is_refused(finished):
    output, chosen = finished
    with pytest.raises(InputError, match="potential was 'a', now 'b'"):
        again(output, chosen, provenance={"potential": "b"})
    moved = spring_molecule()
    moved.positions[4, 1] += 1e-9
    with pytest.raises(InputError, match=r"structure_sha256 was '[0-9a-f]{64}', now"):
        again(output, chosen, atoms=moved)
    with pytest.raises(InputError, match="formula was 'C2H6O', now 'CH4O'"):
        again(output, chosen, atoms=spring_molecule("CH3OH"))


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (".json", r"run\.traj' exists, but .*run\.json' does not"),
        (".checkpoint.npz", r"run\.traj' exists, but .*run\.checkpoint\.npz' does not"),
    ],
)
def test_a_lost_file_is_named(finished, suffix, message):
    output, chosen = finished
    output.with_suffix(suffix).unlink()
    with pytest.raises(InputError, match=message):
        again(output, chosen)


def test_damaged_files_are_named(finished):
    output, chosen = finished
    description = output.with_suffix(".json")
    text = description.read_text()
    description.write_text(text.replace('"finished": true', '"finished": false'))
    log = output.with_suffix(".log.csv")
    rows = log.read_bytes()
    log.write_bytes(rows[:-7])
    with pytest.raises(InputError, match=r"run\.log\.csv' has \d+ bytes, .*\d+"):
        again(output, chosen)
    log.write_bytes(rows)
    checkpoint = output.with_suffix(".checkpoint.npz")
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:200])
    with pytest.raises(InputError, match="cannot read checkpoint"):
        again(output, chosen)
    description.write_text("{}")
    with pytest.raises(InputError, match=r"run\.json' lacks finished, options, "):
        again(output, chosen)
    description.write_text("[1]")
    with pytest.raises(InputError, match="holds a list"):
        again(output, chosen)
    description.write_text(text[:100])
    with pytest.raises(InputError, match=r"run\.json: cannot be read as JSON "):
        again(output, chosen)


def test_a_checkpoint_of_a_newer_version_is_refused(finished):
    output, chosen = finished
    description, checkpoint = output.with_suffix(".json"), output.with_suffix(".checkpoint.npz")
    description.write_text(description.read_text().replace('"finished": true', '"finished": false'))
    with np.load(checkpoint) as archive:
        arrays = dict(archive)
    arrays["scalars"] = np.array(str(arrays["scalars"]).replace('"format_version": 1', '"format_version": 7'))
    np.savez(checkpoint, **arrays)
    with pytest.raises(InputError, match=r"format version 7, .*1"):
        again(output, chosen)


def test_an_output_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"file/run.traj: cannot be written .*(Not a directory|File exists)"):
        again(tmp_path / "file" / "run.traj", BASE)


def test_a_refused_structure_leaves_no_files(tmp_path):
    atoms = spring_molecule()
    calculate = atoms.calc.calculate

    def gives_nan(*given):
        calculate(*given)
        atoms.calc.results["forces"] = atoms.calc.results["forces"] * np.nan

    atoms.calc.calculate = gives_nan
    with pytest.raises(InputError, match=r"first structure .*not finite"):
        again(tmp_path / "new" / "run.traj", BASE, atoms=atoms)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".traj", ".h5md", ".extxyz"])
def test_a_finished_run_can_be_extended(tmp_path, suffix):
    """Its files are those of a run that was asked to be so long at once; 0.031 ps is no multiple of any interval."""
    chosen = {**BASE, "ensemble": "langevin", "equilibrate_ps": 0.05}
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    whole = run_md(spring_molecule(), MDOptions(**chosen | {"length_ps": 0.09}), output=one, progress=False)
    short = run_md(spring_molecule(), MDOptions(**chosen | {"length_ps": 0.031}), output=two, progress=False)
    again(two, chosen | {"length_ps": 0.06}, provenance={})
    last = again(two, chosen | {"length_ps": 0.09}, provenance={})
    assert short.n_frames < last.n_frames == whole.n_frames == 26
    assert_same_run(one.with_suffix(".traj"), two.with_suffix(".traj"))
    assert (last.n_steps, last.mean_temperature_K) == (180, whole.mean_temperature_K)
    said = json.loads(two.with_suffix(".json").read_text())
    assert said["extended_from_ps"] == [0.031, 0.06]
    assert (said["finished"], said["options"]["length_ps"]) == (True, 0.09)
    if suffix != ".traj":
        assert read_trajectory(two).n_frames == 26
    with pytest.raises(InputError, match=r"length_ps was 0.09, now 0.031"):  # nor is anything cut off
        again(two, chosen | {"length_ps": 0.031}, provenance={})


def test_a_ramp_is_not_extended(tmp_path):
    """The temperature of every step depends on the length."""
    chosen = {**BASE, "ensemble": "langevin", "equilibrate_ps": 0.0, "length_ps": 0.02, "final_temperature_K": 500.0}
    run_md(spring_molecule(), MDOptions(**chosen), output=tmp_path / "run.traj", progress=False)
    with pytest.raises(InputError, match=r"length_ps was 0.02, now 0.04"):
        again(tmp_path / "run.traj", chosen | {"length_ps": 0.04}, provenance={})


def test_a_potential_is_known_by_its_content(finished):
    output, chosen = finished
    description = output.with_suffix(".json")
    said = json.loads(description.read_text())
    said["provenance"] = {"potential": "A.pt", "potential_sha256": "12", "structure": "a.xyz"}
    description.write_text(json.dumps(said))
    spelt = {"potential": "./A.pt", "potential_sha256": "12", "structure": "/data/a.xyz"}
    assert again(output, chosen, provenance=spelt).n_frames == 15
    with pytest.raises(InputError, match=r"potential was 'A.pt', now './A.pt'; potential_sha256 was '12', now '13'"):
        again(output, chosen, provenance=spelt | {"potential_sha256": "13"})


def test_a_run_is_replaced_when_told_to(finished):
    output, chosen = finished
    mine = output.with_name("run.notes")
    mine.write_text("not of the run")
    output.with_suffix(".h5md").write_bytes(b"the copy of the old one")
    run_md(spring_molecule(), MDOptions(**chosen | {"seed": 9}), output=output, overwrite=True, progress=False)
    assert json.loads(output.with_suffix(".json").read_text())["options"]["seed"] == 9
    assert len(read(output, index=":")) == 15
    assert mine.read_text() == "not of the run"
    assert not output.with_suffix(".h5md").exists()


def test_two_runs_of_one_output_do_not_mix(tmp_path):
    """The second is told who writes, however it spells the output, and the first ends as if it had been alone."""
    chosen = {**BASE, "length_ps": 0.4, "equilibrate_ps": 0.0}
    first = start(tmp_path / "run.traj", chosen, resume=False)
    deadline = time.monotonic() + 60.0
    while not (tmp_path / "run.log.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    for output in (tmp_path / "run.traj", tmp_path / "." / "run.h5md"):
        for options in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(InputError, match=f"is being written by process {first.pid} on "):
                run_md(spring_molecule(), MDOptions(**chosen), output=output, progress=False, **options)
    _, errors = first.communicate(timeout=240)
    assert first.returncode == 0, errors
    run_md(spring_molecule(), MDOptions(**chosen), output=tmp_path / "alone.traj", progress=False)
    assert_same_run(tmp_path / "run.traj", tmp_path / "alone.traj")
    assert not list(tmp_path.glob(".*"))
