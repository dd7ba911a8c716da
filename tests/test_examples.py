"""The examples run as a user runs them, in short form."""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from potentials import untrained_potential

from remul_md.datasets import read_frames
from remul_md.processes import begin_process, process_context

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"


def as_script(path: Path, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    """In a process of its own: what `python path arguments` does in this folder, with its output in two files."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    begin_process(environment)
    os.chdir(folder)
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


def started(name: str, *arguments: str | Path, folder: Path) -> tuple[int | None, str, str]:
    """Exit status, stdout and stderr of an example; torch need not be imported anew for each."""
    given = (EXAMPLES / name, [str(argument) for argument in arguments], folder, dict(os.environ))
    process = process_context().Process(target=as_script, args=given)
    process.start()
    process.join()
    out, err = (folder.with_suffix(f".{stream}").read_text() for stream in ("stdout", "stderr"))
    return process.exitcode, out, err


def run(name: str, *arguments: str | Path, folder: Path) -> str:
    status, out, err = started(name, *arguments, folder=folder)
    assert status == 0, err
    # Random weights tear molecules apart, and the calculator says so.
    told = re.sub(r".*outside the training data.*\n.*\n", "", err)
    assert "Warning" not in told, err
    return out


@pytest.fixture(scope="module")
def potential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A potential for ethanol around a small random model with gentle forces."""
    frames = read_frames("rmd17/ethanol/train-01")
    path = tmp_path_factory.mktemp("potential") / "gentle.pt"
    untrained_potential(frames, trained_forces="conservative", energy_scale=0.1).save(path)
    return path


def numbers(text: str) -> list[float]:
    return [float(value) for value in re.findall(r"[-+]?\d+\.?\d*", text)]


def test_every_example_is_run_here() -> None:
    tested = Path(__file__).read_text()
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(names) >= 3
    for name in names:
        assert f'run("{name}"' in tested or f'run(\n        "{name}"' in tested, name


def wavenumbers(out: str, name: str) -> list[float]:
    line = next(line for line in out.splitlines() if line.startswith(name))
    return numbers(line.split("1/cm:")[1])


def test_relax_and_vibrate(potential: Path, tmp_path: Path) -> None:
    out = run("relax_and_vibrate.py", potential, "--max-steps", "3", folder=tmp_path)
    assert "NOT relaxed" in out
    modes = wavenumbers(out, "vibrations")
    assert len(modes) == 21
    assert max(map(abs, modes)) > 20
    assert len(wavenumbers(out, "rotations")) == 3
    # A translation costs nothing, whatever the potential.
    assert max(map(abs, wavenumbers(out, "translations"))) <= 0.1
    assert list(tmp_path.iterdir()) == []


def test_relax_and_vibrate_with_the_shipped_potential(tmp_path: Path) -> None:
    out = run("relax_and_vibrate.py", folder=tmp_path)
    assert " eV, relaxed" in out
    modes = wavenumbers(out, "vibrations")
    # PBE ethanol: O-H stretch near 3700, C-H stretches 2850 to 3100, nothing between them and 1500.
    assert 3500 < modes[-1] < 3900
    assert all(2700 < mode < 3250 for mode in modes[-6:-1])
    assert 1350 < modes[-7] < 1600
    assert modes[0] > 100
    assert max(map(abs, wavenumbers(out, "rotations"))) < 20


def test_nve_ethanol(potential: Path, tmp_path: Path) -> None:
    out = run("nve_ethanol.py", potential, "--length-ps", "0.06", folder=tmp_path)
    slope, low, high, length = numbers(out.splitlines()[0])
    assert low < slope < high
    assert length == 0.06
    fluctuation, n_energies = numbers(out.splitlines()[1])
    assert 0 < fluctuation < 1.0  # meV/atom; at 300 K the kinetic energy is 39
    assert n_energies == 61


def test_audit_any_calculator(tmp_path: Path) -> None:
    checks = ["--only", "gradient", "--only", "rotation", "--only", "net_force"]
    out = run("audit_any_calculator.py", *checks, "--report", "audit.html", folder=tmp_path)
    honest, careless = out.split("CarelessEMT")
    assert honest.startswith("EMT on Cu6: passed")
    assert "NO" not in honest
    assert "FAILED" in careless
    assert "  NO  gradient" in careless
    assert careless.count("  ok ") == 2
    assert (tmp_path / "audit.html").stat().st_size > 1e6


def write_own_frames(path: Path) -> float:
    """Twenty labelled frames of ethanol; their mean energy, eV."""
    frames = read_frames("rmd17/ethanol/train-01").select(range(0, 200, 10))
    assert frames.energy is not None
    assert frames.forces is not None
    structures: list[Atoms] = []
    for index in range(len(frames)):
        atoms = frames.atoms(index)
        forces = frames.forces[9 * index : 9 * index + 9]
        atoms.calc = SinglePointCalculator(atoms, energy=frames.energy[index], forces=forces)
        structures.append(atoms)
    ase.io.write(path, structures, format="extxyz")
    return float(frames.energy.mean())


def test_train_from_extxyz(tmp_path: Path) -> None:
    mean_energy = write_own_frames(tmp_path / "own.xyz")
    small = ["model.width=16", "model.n_layers=1", "model.n_heads=2", "train.warmup_steps=2", "train.n_threads=1"]
    sizes = ["--n-train", "13", "--n-validation", "6", "--n-steps", "5"]
    options = [part for option in small for part in ("--set", option)]
    out = run("train_from_extxyz.py", "own.xyz", "run", *sizes, *options, folder=tmp_path)
    assert "validation force MAE" in out
    energy = numbers(out.splitlines()[-1])[0]
    assert energy == pytest.approx(mean_energy, abs=5.0)
    assert (tmp_path / "run" / "potential.pt").is_file()


def test_train_from_extxyz_explains_a_mistake(tmp_path: Path) -> None:
    status, _, err = started("train_from_extxyz.py", "none.xyz", "run", folder=tmp_path)
    assert status == 1
    assert err.startswith("error: 'none.xyz' is neither a file nor a registered data set")


def test_fine_tune(potential: Path, tmp_path: Path) -> None:
    write_own_frames(tmp_path / "own.xyz")
    sizes = ["--n-train", "13", "--n-validation", "6", "--n-steps", "30", "--set", "train.n_threads=1"]
    sizes += ["--set", "train.fine_tuning_learning_rate=0.01", "--set", "train.warmup_steps=2"]
    sizes += ["--set", "train.ema_decay=0"]
    out = run("fine_tune.py", "own.xyz", "run", "--potential", potential, *sizes, folder=tmp_path)
    before, after = (numbers(line) for line in out.splitlines())
    assert after[0] < 0.9 * before[0]  # meV/Angstrom: the start is random, so anything helps
    assert after[1] < 0.9 * before[1]
    assert (tmp_path / "run" / "potential.pt").is_file()


def test_molecule_in_a_field(tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason='needs tblite (pip install "remul-md[xtb]")')
    short = ["--n-frames", "60", "--n-steps", "60", "--length-ps", "0.02", "--equilibrate-ps", "0"]
    small = ["model.width=16", "model.n_layers=1", "model.n_heads=2", "train.warmup_steps=2", "train.ema_decay=0.5"]
    sets = [part for option in small for part in ("--set", option)]
    out = run("molecule_in_a_field.py", "out", *short, *sets, folder=tmp_path)
    assert "taught SO3 about (0 0 1) in a field of [0.0, 0.0, 0.5] V/A" in out
    assert "angular momentum kept: yes" in out
    changes = {line.split()[0]: numbers(line)[-1] for line in out.splitlines() if line.startswith("L_")}
    assert set(changes) == {"L_x", "L_y", "L_z"}
    assert (tmp_path / "out" / "run" / "potential.pt").is_file()


def test_nve_aspirin(tmp_path: Path) -> None:
    short = ["--length-ps", "0.025", "--equilibrate-ps", "0.005", "--output", "short.traj"]
    out = run("nve_aspirin.py", *short, folder=tmp_path)
    assert out.startswith("8 frames of C9H8O4, ")
    assert "energy conserved:" in out
    assert "forces turn with the molecule: yes" in out
    assert "molecule intact: yes" in out
    assert (tmp_path / "short.traj").is_file()


def test_direct_against_conservative(tmp_path: Path) -> None:
    frames = read_frames("rmd17/ethanol/train-01")
    untrained_potential(frames, trained_forces="both", energy_scale=0.1).save(tmp_path / "both.pt")
    out = run("direct_against_conservative.py", "both.pt", "--length-ps", "0.1", folder=tmp_path)
    shipped = run("direct_against_conservative.py", "--length-ps", "0.02", folder=tmp_path)
    assert numbers(shipped.splitlines()[0])[0] < 50.0  # meV/A, of the potential that is there without arguments
    first, conservative, direct = out.splitlines()
    assert numbers(first)[0] > 1.0  # the heads of a random model have nothing to do with each other
    drifts = []
    for line, head in ((conservative, "conservative"), (direct, "direct")):
        assert line.startswith(head)
        _, slope, low, high = numbers(line)
        assert low < slope < high
        drifts.append(abs(slope))
    assert drifts[0] < 0.1 * drifts[1]


def test_replicas(tmp_path: Path) -> None:
    short = ["--n-replicas", "3", "--length-ps", "0.02", "--equilibrate-ps", "0.01"]
    out = run("replicas.py", *short, folder=tmp_path)
    *seeds, summary = out.splitlines()
    values = [numbers(line)[1] for line in seeds]
    assert len(set(values)) == 3
    mean, error, asked, scatter = numbers(summary)
    assert asked == 300.0
    assert mean == pytest.approx(sum(values) / 3, abs=0.1)
    assert error == pytest.approx(scatter / 3**0.5, abs=0.1)
    assert sorted(path.name for path in (tmp_path / "replicas").glob("*.traj")) == [f"run-{k}.traj" for k in range(3)]


def test_h5md_into_mdanalysis(tmp_path: Path) -> None:
    short = ["--length-ps", "0.06", "--equilibrate-ps", "0.01"]
    out = run("h5md_into_mdanalysis.py", *short, folder=tmp_path)
    lines = out.splitlines()
    n_frames, rmsd = numbers(lines[0])
    assert n_frames == 31
    assert 0.0 < rmsd < 1.0
    shares = [numbers(line.split(":")[1])[0] for line in lines[1:7]]
    assert sum(shares) == pytest.approx(100.0, abs=0.5)
    assert lines[7].startswith("net torque ")
    assert 0.0 < numbers(lines[7])[0] < 20.0  # meV
    assert lines[8].startswith("drift ")
    assert (tmp_path / "ethanol.topology.pdb").is_file()


def test_the_readme_names_every_example() -> None:
    said = (EXAMPLES / "README.md").read_text()
    for path in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")]:
        assert path.name in said, path.name


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("TOUR_LENGTH_PS", "0.03")
    file = EXAMPLES / "tour.ipynb"
    assert file.stat().st_size < 300_000
    notebook = nbformat.read(file, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    client.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    text = "".join(output.get("text", "") for output in outputs)
    assert "Warning" not in text
    assert re.search(r"drift [-+]\d+\.\d+ meV/atom/ps", text)
    assert re.search(r"rotational error \d+\.\d+ meV/A", text)
