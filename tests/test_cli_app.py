"""The command line on real, small inputs: what it writes, and that every mistake is one line and exit code 2."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from messages import pattern

from remul_md._version import __version__
from remul_md.datasets import read_frames
from remul_md.outputs import GENERATOR
from remul_md.training.config import RunConfig, load_config

Run = Callable[..., tuple[int, str, str]]
SCRIPT = Path(sys.executable).with_name("remul-md")
FORMATS = Path(__file__).parent / "data" / "formats"
SMALL = [
    *("model.width=16", "model.n_layers=1", "model.n_heads=2", "model.pair_width=12", "model.n_radial=6"),
    *("model.n_tensors=4", "model.cutoff=4.0", "train.batch_size=4", "train.warmup_steps=2", "train.n_threads=1"),
    *("train.device=cpu", "data.n_train=14", "data.n_validation=5"),
]
SETTINGS = [part for option in SMALL for part in ("--set", option)]


def ethanol_frames(n_frames: int) -> list[Atoms]:
    """Packaged ethanol frames with their labels as ASE structures."""
    frames = read_frames("rmd17/ethanol/train-01").select(range(0, 40 * n_frames, 40))
    assert frames.energy is not None
    assert frames.forces is not None
    structures = []
    for index in range(n_frames):
        atoms = frames.atoms(index)
        forces = frames.forces[9 * index : 9 * index + 9]
        atoms.calc = SinglePointCalculator(atoms, energy=frames.energy[index], forces=forces)
        structures.append(atoms)
    return structures


@pytest.fixture
def refused(cli: Run) -> Callable[..., None]:
    """Runs a command that must end with exit code 2 and a message, without a traceback."""

    def run(*arguments: str | Path, message: str) -> None:
        code, out, err = cli(*arguments)
        assert code == 2, err
        line = " ".join(err.split())
        assert re.search(pattern(message), line), err
        assert "Traceback" not in out + err

    return run


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with own.xyz and run/, a run of 20 steps, made by the installed command."""
    folder = tmp_path_factory.mktemp("cli")
    ase.io.write(folder / "own.xyz", ethanol_frames(24), format="extxyz")
    command = [SCRIPT, "train", "--run-dir", "run", "--set", "data.source=own.xyz", "--set", "train.n_steps=20"]
    done = subprocess.run([*command, *SETTINGS], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "train.out").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def potential(workplace: Path) -> Path:
    return workplace / "run" / "potential.pt"


def test_train_writes_a_run(workplace: Path) -> None:
    run = workplace / "run"
    assert {"potential.pt", "config.yaml", "metrics.csv", "tensorboard"} <= {path.name for path in run.iterdir()}
    assert any((run / "tensorboard").glob("events.out.tfevents.*"))
    text = (workplace / "train.out").read_text()
    assert "n_steps: 20" in text  # the resolved config
    assert "run/potential.pt: validation force MAE" in text
    assert "step 20 of 20" in text


def test_train_with_a_molecule_a_config_and_a_start(cli: Run, potential: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("data:\n  source: elsewhere.xyz\ntrain:\n  n_steps: 4\n  beta: 2.0\n")
    options = ["--run-dir", tmp_path / "deep" / "run", "--molecule", "ethanol", "--init-from", potential]
    code, out, err = cli("train", config, *options, *SETTINGS, "--set", "train.beta=0.5")
    assert code == 0, err
    assert "molecule: ethanol" in out
    assert "beta: 0.5" in out
    assert "patience" not in out  # what stands at its default is in the file
    written = (tmp_path / "deep" / "run" / "config.yaml").read_text()
    assert "source: null" in written
    assert "patience: null" in written
    assert (tmp_path / "deep" / "run" / "potential.pt").is_file()


@pytest.mark.parametrize("fine_tuning", [True, False])
def test_a_learning_rate_that_would_be_ignored_is_refused(
    cli: Run, potential: Path, tmp_path: Path, fine_tuning: bool
) -> None:
    ignored, counts = "train.learning_rate", "train.fine_tuning_learning_rate"
    if not fine_tuning:
        ignored, counts = counts, ignored
    start = ["--init-from", potential] if fine_tuning else []
    options = ["--run-dir", tmp_path / "run", "--molecule", "ethanol", *SETTINGS, *start]
    code, _, err = cli("train", *options, "--set", f"{ignored}=1e-3")
    assert code == 2
    assert f"set {counts}=1e-3 instead" in err
    assert not (tmp_path / "run").exists()


def test_evaluate_writes_the_promised_figures(cli: Run, workplace: Path, potential: Path, tmp_path: Path) -> None:
    code, out, err = cli(
        "evaluate",
        potential,
        workplace / "own.xyz",
        *("--json", tmp_path / "e.json", "--by-angle", tmp_path / "angles.json", "--n-draws", "3", "--device", "cpu"),
    )
    assert code == 0, err
    figures = json.loads((tmp_path / "e.json").read_text())
    scalars = ["force_mae_original", "force_mae_rotated", "rotational_error", "rotational_spread"]
    scalars += ["energy_mae_original", "energy_mae_rotated", "equivariance_percent", "equivariance_percent_energy"]
    for name in scalars:
        assert np.isfinite(figures[name]), name
    assert figures["n_frames"] == 24
    assert len(figures["equivariance_percent_median_ci95"]) == 2
    assert set(figures["force_mae_by_element"]) == {"C", "H", "O"}
    assert 100 < figures["force_mae_original"] < 3000  # 20 steps: meV/Angstrom of a model that knows next to nothing
    for name in ("net_force_rms_eV_per_A", "net_torque_rms_eV", "lie_derivative", "jacobian_asymmetry"):
        assert np.isfinite(figures[name]), name
    angles = json.loads((tmp_path / "angles.json").read_text())
    assert angles["angles_deg"][0] == 0
    assert angles["force_mae"][0] == pytest.approx(figures["force_mae_original"], rel=1e-5)
    assert "force MAE, original / rotated" in out
    assert f"{figures['force_mae_original']:.2f}" in out


@pytest.fixture(scope="module")
def trajectory(workplace: Path, potential: Path) -> Path:
    """0.02 ps of NVE by the installed command."""
    options = ["--structure", "ethanol", "--temperature-K", "100", "--length-ps", "0.02", "--equilibrate-ps", "0.005"]
    options += [
        "--frame-interval-fs",
        "1",
        "--output",
        "md.traj",
        "--device",
        "cpu",
        "--dtype",
        "float64",
        "--seed",
        "3",
    ]
    done = subprocess.run(
        [SCRIPT, "md", potential, *options], cwd=workplace, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "40 steps of 0.5 fs, 21 frames" in done.stdout
    assert f"remul-md analyze md.traj --potential {potential}" in done.stdout
    return workplace / "md.traj"


def test_md_writes_frames_with_time_and_energies(trajectory: Path) -> None:
    frames = ase.io.read(trajectory, index=":")
    assert len(frames) == 21
    assert [frame.info["time_ps"] for frame in frames[:3]] == pytest.approx([0.0, 0.001, 0.002])
    assert np.ptp([frame.get_total_energy() for frame in frames]) < np.ptp([f.get_kinetic_energy() for f in frames])
    assert trajectory.with_name("md.log.csv").is_file()
    facts = json.loads(trajectory.with_name("md.json").read_text())["provenance"]
    assert facts["forces"] == "conservative"
    assert len(facts["potential_sha256"]) == 64


def test_analyze_writes_the_promised_figures(cli: Run, trajectory: Path, potential: Path, tmp_path: Path) -> None:
    written = ["--json", tmp_path / "a.json", "--report", tmp_path / "r.html", "--n-rotation-frames", "4"]
    code, out, err = cli("analyze", trajectory, "--potential", potential, *written, "--device", "cpu")
    assert code == 0, err
    figures = json.loads((tmp_path / "a.json").read_text())
    expected = {"drift_meV_per_atom_ps", "drift_ci95", "fluctuation_meV_per_atom", "temperature_K", "rotational_error"}
    expected |= {"net_torque_rms_eV", "angular_momentum_change", "angle_swept_deg", "max_bond_deviation_A", "n_frames"}
    assert expected <= figures.keys()
    assert figures["n_frames"] == 21
    assert figures["rotational_error"] > 0
    assert 0 < figures["angle_from_training_deg"] <= 180  # from the reference frame that the potential keeps
    assert figures["net_torque_rms_eV"] > 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    shown = {name: json.loads(re.search(rf'id="{name}">(.*?)</script>', page)[1]) for name in ("data", "figures")}
    assert {"generator": GENERATOR, **shown["data"], "figures": shown["figures"]} == figures
    assert {"potential sha256", "training data", "command", "versions", "run"} <= figures["provenance"].keys()
    assert figures["provenance"]["command"].endswith("--device cpu")
    assert len(figures["molecule"]["tested"]) == 4
    assert len(figures["vibrations"]["vibrations_per_cm"]) == 21
    assert f"wrote {tmp_path / 'r.html'}" in out


def test_analyze_without_a_potential(cli: Run, trajectory: Path, tmp_path: Path) -> None:
    code, _, err = cli("analyze", trajectory, "--json", tmp_path / "a.json")
    assert code == 0, err
    figures = json.loads((tmp_path / "a.json").read_text())
    assert figures["rotational_error"] is None
    assert figures["vibrations"] is None
    assert figures["net_torque_rms_eV"] > 0


def test_md_with_symmetrised_forces_to_h5md(cli: Run, potential: Path, tmp_path: Path) -> None:
    options = ["--structure", "rmd17/ethanol/test-01:3", "--ensemble", "langevin", "--length-ps", "0.004", "--device"]
    options += ["cpu", "--equilibrate-ps", "0", "--frame-interval-fs", "1", "--symmetrize", "4", "--output"]
    code, out, err = cli("md", potential, *options, tmp_path / "run.h5md")
    assert code == 0, err
    assert (tmp_path / "run.h5md").is_file()
    assert "8 steps of 0.5 fs, 5 frames" in out
    assert json.loads((tmp_path / "run.json").read_text())["provenance"]["symmetrize"] == "4"


def test_data_commands(cli: Run, workplace: Path) -> None:
    code, out, err = cli("data", "list")
    assert code == 0, err
    assert "rmd17/ethanol/train-01" in out
    assert "packaged" in out
    code, out, err = cli("data", "show", workplace / "own.xyz")
    assert code == 0, err
    assert "24" in out
    assert "C2H6O" in out


def test_md_of_replicas_in_a_ramp_and_without_net_torque(cli: Run, potential: Path, tmp_path: Path) -> None:
    options = ["--structure", "ethanol", "--ensemble", "bussi", "--length-ps", "0.003", "--equilibrate-ps", "0.001"]
    options += ["--final-temperature-K", "400", "--thermostat-time-fs", "50", "--remove-net-torque", "--device", "cpu"]
    options += ["--replicas", "2", "--seed", "5", "--output", str(tmp_path / "run.traj")]
    code, out, err = cli("md", potential, *options)
    assert code == 0, err
    assert "2 runs of 6 steps" in out
    assert "steps/s, all replicas together" in out
    said = json.loads((tmp_path / "run-1.json").read_text())
    assert said["provenance"]["remove_net_torque"] is True
    chosen = said["options"]
    assert (chosen["seed"], chosen["final_temperature_K"], chosen["thermostat_time_fs"]) == (6, 400.0, 50.0)
    code, _, err = cli("md", potential, *options)
    assert code == 2
    assert "run-0.traj' exists already" in err
    assert cli("md", potential, *options, "--resume")[0] == 0


def test_the_template_of_a_config_is_the_default_and_explains_every_option(cli: Run, tmp_path: Path) -> None:
    code, out, _ = cli("train", "--template")
    assert code == 0
    path = tmp_path / "all.yaml"
    path.write_text(out)
    assert load_config(path) == load_config(None)
    assert "pair distance limit, Angstrom\n  cutoff: 6.0" in out  # of the network, by its own docstring
    for section in ("data", "train", "pretrain"):
        for name, option in RunConfig.model_fields[section].annotation.model_fields.items():
            assert f"\n  {name}: " in out
            assert " ".join(option.description.split()) in " ".join(out.replace("\n  # ", " ").split()), name
    # The six lines at its head are a config that says where the frames are.
    six = "\n".join(
        line.removeprefix("# ") for line in out.split("\n\ndata:")[0].splitlines() if line[2:3] and line[2] in "dt "
    )
    path.write_text(six)
    assert len(six.splitlines()) == 6
    config = load_config(path)
    assert (config.data.source, config.train.n_steps) == ("frames.extxyz", 12_000)


@pytest.mark.parametrize("command", ["train", "evaluate", "md", "analyze", "data", "data list", "data fetch"])
def test_every_command_has_help(cli: Run, command: str) -> None:
    code, out, _ = cli(*command.split(), "--help")
    assert code == 0
    assert "Usage:" in out


def test_version(cli: Run) -> None:
    assert cli("--version") == (0, f"{__version__}\n", "")


def test_an_unknown_command_or_option_is_a_usage_error(refused: Callable[..., None]) -> None:
    refused("trian", message="No such command")
    refused("train", "--run-dirr", "x", message="No such option")
    refused("train", message="Missing option '--run-dir'")


# --- bad input ---------------------------------------------------------------------------------------------------


def md(potential: Path, structure: str | Path, *more: str | Path) -> list[str | Path]:
    return ["md", potential, "--structure", structure, "--device", "cpu", *more]


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (molecule("CH3OH"), "composition C1H4O1 ... knows C2H6O1"),
        (molecule("CH3NO2"), "element N ... knows H, C, O"),
        (Atoms("C2H6O", molecule("CH3CH2OH").positions * [np.nan, 1, 1]), "not finite"),
        (Atoms("C2H6O", molecule("CH3CH2OH").positions + np.array([np.inf, 0, 0])), "not finite"),
        (Atoms("C2OH6", molecule("CH3CH2OH").positions[[0, 1, 2, 3, 4, 5, 6, 7, 7]]), "atoms 7 and 8 are 0 Angstrom"),
        (Atoms(molecule("CH3CH2OH"), cell=[9, 9, 9], pbc=True), "trained on isolated molecules"),
        (Atoms(), "no atoms"),
    ],
    ids=["composition", "element", "nan", "inf", "coincident", "periodic", "empty"],
)
def test_bad_structures(
    refused: Callable[..., None], potential: Path, tmp_path: Path, structure: Atoms, message: str
) -> None:
    ase.io.write(tmp_path / "start.traj", structure)
    refused(*md(potential, tmp_path / "start.traj", "--output", tmp_path / "out.traj"), message=message)
    assert [path.name for path in tmp_path.iterdir()] == ["start.traj"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--timestep-fs", "-1"], "timestep_fs ... got -1.0"),
        (["--ensemble", "nvt"], "ensemble 'nvt' ... nve, langevin"),
        (
            ["--ensemble", "langevin", "--rotation", "zero"],
            "rotation 'zero' ... ensemble 'langevin'",
        ),
        (["--symmetrize", "cubic"], "symmetrize ... tetrahedral, octahedral, icosahedral"),
        (["--symmetrize", "0"], "symmetrize ... got 0"),
        (["--symmetrize", "-2"], "symmetrize ... got -2"),
        (["--forces", "direct"], "forces='direct' ... trained for conservative"),
        (["--forces", "both"], "forces ... got 'both'"),
        (["--dtype", "float16"], "dtype ... got 'float16'"),
        (["--device", "tpu9"], "device 'tpu9' ... auto, cpu, cuda or cuda:N"),
        (["--seed", "-1"], "seed ... got -1"),
    ],
)
def test_bad_md_options(
    refused: Callable[..., None], potential: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    refused(*md(potential, "ethanol", "--output", tmp_path / "out.traj", *options), message=message)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_kept(refused: Callable[..., None], potential: Path, trajectory: Path) -> None:
    before = trajectory.read_bytes()
    refused(*md(potential, "ethanol", "--output", trajectory), message="exists already ... --resume")
    assert trajectory.read_bytes() == before


def test_bad_potentials(refused: Callable[..., None], potential: Path, tmp_path: Path) -> None:
    payload = torch.load(potential, weights_only=True)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(potential.read_bytes()[:5000])
    refused(*md(broken, "ethanol", "--output", tmp_path / "o.traj"), message="is truncated")
    torch.save({**payload, "format_version": 99}, broken)
    refused("evaluate", broken, "rmd17/ethanol/test-01", message="has format 99, remul-md")
    torch.save({**payload, "extra": Opener(tmp_path / "executed")}, broken)
    refused("evaluate", broken, "rmd17/ethanol/test-01", message="was not executed")
    broken.write_bytes(pickle.dumps(Opener(tmp_path / "executed")))
    refused("evaluate", broken, "rmd17/ethanol/test-01", message="is truncated")
    refused("evaluate", tmp_path / "none.pt", "rmd17/ethanol/test-01", message="not shipped; shipped:")
    refused("evaluate", tmp_path, "rmd17/ethanol/test-01", message="is a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pt"]


class Opener:
    """Opens a file for writing while it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


def test_bad_data(refused: Callable[..., None], potential: Path, tmp_path: Path) -> None:
    def evaluate(name: str, message: str) -> None:
        refused("evaluate", potential, tmp_path / name, "--device", "cpu", message=message)

    evaluate("missing.npz", "neither a file nor")
    np.savez(tmp_path / "whole.npz", R=np.zeros((2, 9, 3)), z=np.ones(9))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:200])
    evaluate("cut.npz", "cut.npz")
    np.savez(tmp_path / "keys.npz", positions=np.zeros((2, 9, 3)))
    evaluate("keys.npz", "keys.npz")
    structures = ethanol_frames(3)
    structures[1].calc.results["forces"][4, 2] = np.nan
    ase.io.write(tmp_path / "nan.xyz", structures, format="extxyz")
    evaluate("nan.xyz", "not finite")
    refused("data", "show", FORMATS / "ethanol_kcal.xyz", message="kcal/mol")
    refused("data", "show", tmp_path / "missing.xyz", message="neither a file nor")
    refused("data", "show", FORMATS / "ethanol_kcal.xyz", "--energy-unit", "kcal", message="'kcal'")
    refused("data", "fetch", "rmd17/etanol/train-01", message="rmd17/ethanol/train-01")


def test_another_molecule_is_not_evaluated(refused: Callable[..., None], potential: Path) -> None:
    refused("evaluate", potential, "rmd17/benzene/test-01", message="composition C6H6")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--n-draws", "1"], "n_draws ... got 1"),
        (["--forces", "direct"], "forces='direct' ... trained for conservative"),
        (["--device", "meta"], "device 'meta' ... auto, cpu, cuda or cuda:N"),
    ],
)
def test_bad_evaluate_options(
    refused: Callable[..., None], workplace: Path, potential: Path, options: list[str], message: str
) -> None:
    refused("evaluate", potential, workplace / "own.xyz", *options, message=message)


def test_bad_training_options(refused: Callable[..., None], workplace: Path, tmp_path: Path) -> None:
    def train(*overrides: str, message: str) -> None:
        options = [
            part for option in ("data.source=" + str(workplace / "own.xyz"), *overrides) for part in ("--set", option)
        ]
        refused("train", "--run-dir", tmp_path / "new", *SETTINGS, *options, message=message)

    train("train.bta=1", message="did you mean train.beta?")
    train("train.beta=-1", message="train.beta: ... got -1")
    train("data.molecule=ethanol", message="data.molecule (ethanol) and data.source")
    train("model.width=15", message="model.width ... got 15 and 2")
    train("beta=1", message="SECTION.KEY=VALUE ... got 'beta=1'")
    refused("train", "nowhere.yaml", "--run-dir", tmp_path / "new", message="config 'nowhere.yaml' is no file")
    assert not (tmp_path / "new").exists()
    train("data.n_train=20", message="24")


def test_a_used_or_unwritable_run_directory(refused: Callable[..., None], workplace: Path) -> None:
    same = [*SETTINGS, "--set", f"data.source={workplace / 'own.xyz'}", "--set", "train.n_steps=20"]
    before = (workplace / "run" / "potential.pt").read_bytes()
    refused("train", "--run-dir", workplace / "run", *same, message="exists already ... --resume")
    options = ["--run-dir", workplace / "run", "--resume", *SETTINGS, "--set", "data.source=own.xyz"]
    message = "not extended"
    refused("train", *options, "--set", "train.n_steps=21", message=message)
    refused("train", "--run-dir", workplace / "own.xyz" / "run", *same, message="cannot be written")
    refused("train", "--run-dir", workplace / "own.xyz", *same, message="cannot be written")
    assert (workplace / "run" / "potential.pt").read_bytes() == before


def test_a_run_goes_on_by_its_folder_alone(
    cli: Run, refused: Callable[..., None], workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config is that of the run; where there is none, nothing begins by itself."""
    monkeypatch.chdir(workplace)
    before = (workplace / "run" / "metrics.csv").read_bytes()
    code, out, err = cli("train", "--run-dir", "run", "--resume")
    assert code == 0, err
    assert "n_steps: 20" in out
    assert (workplace / "run" / "metrics.csv").read_bytes() == before
    new = tmp_path / "new"
    for more in ([], ["--set", "train.n_steps=3"]):
        refused(
            "train", "--run-dir", new, "--resume", *more, message=f"{new}: holds no run to go on with; to begin one"
        )
    assert not new.exists()
    begins = ["--set", "data.source=own.xyz", "--set", "train.n_steps=3"]
    assert cli("train", "--run-dir", new, "--resume", *SETTINGS, *begins)[0] == 0


def test_no_command_replaces_what_it_reads_or_what_a_run_made(
    refused: Callable[..., None], workplace: Path, potential: Path, trajectory: Path, tmp_path: Path
) -> None:
    own = workplace / "own.xyz"
    files = [own, potential, trajectory, trajectory.with_suffix(".json"), trajectory.with_suffix(".log.csv")]
    before = [path.read_bytes() for path in files]
    read, theirs = "is read by this command", "is not replaced"
    for path in (trajectory, trajectory.with_suffix(".json"), trajectory.with_suffix(".log.csv")):
        for option in ("--report", "--json"):
            refused("analyze", trajectory, option, path, message=read)
    refused("analyze", trajectory, "--picture", own, message="as a picture")
    refused("analyze", trajectory, "--report", own, message=theirs)
    refused("spectrum", trajectory, "--json", trajectory, message=read)
    refused("compare", trajectory, own, "--json", own, message=read)
    refused("evaluate", potential, own, "--json", potential, message=read)
    refused("evaluate", potential, own, "--json", trajectory, message=theirs)
    refused("audit", potential, "--structure", own, "--report", own, message=read)
    refused("vibrations", potential, own, "--json", f"{own}", message=read)
    refused("label", potential, own, own, "--overwrite", message=read)
    refused("ensemble", potential, potential, potential, "--overwrite", message=read)
    md = ["md", potential, "--output", trajectory]
    refused(*md, "--structure", trajectory, "--overwrite", message=read)
    refused("analyze", trajectory, "--report", tmp_path / "a", "--json", tmp_path / "a", message="two outputs")
    assert [path.read_bytes() for path in files] == before


def test_a_full_disk_ends_training_with_a_message(
    refused: Callable[..., None], workplace: Path, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    options = ["--set", f"data.source={workplace / 'own.xyz'}", "--set", "train.n_steps=3"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # config and metrics fit, a checkpoint does not
    try:
        refused("train", "--run-dir", tmp_path / "run", *SETTINGS, *options, message="cannot be written")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "run" / "config.yaml").is_file()


@pytest.mark.slow
def test_bad_analysis(refused: Callable[..., None], trajectory: Path, potential: Path, tmp_path: Path) -> None:
    refused("analyze", tmp_path / "none.traj", message="none.traj")
    (tmp_path / "empty.traj").write_bytes(b"")
    refused("analyze", tmp_path / "empty.traj", message="empty.traj")
    (tmp_path / "figures.json").write_text("{")
    refused(
        "analyze",
        trajectory,
        "--evaluation",
        tmp_path / "figures.json",
        message="`remul-md evaluate --json`",
    )
    file = tmp_path / "figures.json"
    for option in ("--json", "--report", "--picture"):
        command = ["analyze", trajectory, "--potential", potential, "--n-rotation-frames", "2", option, file / "out"]
        refused(*command, message=str(file / "out"))
    refused("analyze", trajectory, "--vibrations", message="name the potential")
    refused("analyze", trajectory, "--potential", tmp_path / "none.pt", message="not shipped")


def test_figures_are_printed_even_if_their_file_cannot_be_written(cli: Run, workplace: Path, potential: Path) -> None:
    target = workplace / "own.xyz" / "figures.json"
    arguments = [potential, workplace / "own.xyz", "--json", target, "--n-draws", "2", "--device", "cpu"]
    code, out, err = cli("evaluate", *arguments)
    assert code == 2
    assert "figures.json: cannot be written" in err
    assert "force MAE, original / rotated" in out


# --- the process -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_130(workplace: Path, tmp_path: Path) -> None:
    command = [SCRIPT, "train", "--run-dir", tmp_path / "run", "--set", f"data.source={workplace / 'own.xyz'}"]
    more = ["--set", "train.n_steps=100000", "--set", "train.checkpoint_every=1"]
    process = subprocess.Popen(
        [*command, *SETTINGS, *more], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not any((tmp_path / "run").glob("*.pt")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "error: interrupted" in err
    assert "Traceback" not in err


def seconds(command: list[str | Path]) -> float:
    """What a command computes, best of three: by the clock a busy machine would decide the test."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_help_is_quick() -> None:
    assert seconds([SCRIPT, "--help"]) < 1.0


def test_importing_is_quick_and_loads_nothing_heavy() -> None:
    heavy = "torch ase numpy vesin MDAnalysis matplotlib plotly h5py pydantic"
    code = f"import sys, remul_md; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
    assert seconds([sys.executable, "-c", "import remul_md"]) - seconds([sys.executable, "-c", "pass"]) < 0.3


@pytest.mark.parametrize("command", ["md", "analyze", "distill", "improve", "audit", "study force-field"])
def test_help_names_every_option_in_full(command: str) -> None:
    """In the 80 columns of a plain terminal, too."""
    environment = {**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    done = subprocess.run(
        [SCRIPT, *command.split(), "--help"], capture_output=True, text=True, check=True, env=environment
    )
    assert "…" not in done.stdout
    assert "--help" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
