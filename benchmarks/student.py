"""What a student keeps of an ensemble: one model taught on geometries of its own dynamics, labelled by the ensemble.

Members of one preset, with seeds and splits of their own, make an ensemble. The dynamics of the first member, heated
from 300 to 600 K, gives geometries that nobody has labels of; the ensemble labels them, without those on which it
disagrees most; a student of the same size is trained on them, and then a little on the reference frames. All are held
against test frames.

python benchmarks/student.py --run-dir FOLDER [--preset ethanol] [--set SECTION.KEY=VALUE ...] [--members 3]
    [--n-steps 3000] [--student-steps 6000] [--fine-steps 1500] [--n-frames 8000] [--max-std 40]
    [--test rmd17/ethanol/test-01] [--json results/student.json]

The same command goes on where it was stopped. A rehearsal of a minute: --n-steps 20 --student-steps 20 --fine-steps 10
--n-frames 64 --replicas 8 --set train.warmup_steps=2 --set train.compile=false --json FILE
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from script import run_script, told_command

from remul_md import RemulCalculator
from remul_md.analysis.accuracy import evaluate_potential
from remul_md.datasets import read_frames, write_frames
from remul_md.errors import InputError
from remul_md.files import read_json, write_json
from remul_md.labels.label import label_frames
from remul_md.labels.own_dynamics import LABELS, label_own_dynamics
from remul_md.labels.sampling_options import Sampling
from remul_md.potentials.ensemble import make_ensemble
from remul_md.potentials.potential import Potential, load_potential
from remul_md.studies.record import provenance
from remul_md.training.config import RunConfig, load_config
from remul_md.training.train import train_potential

ROOT = Path(__file__).resolve().parent.parent
HINT = "choose another file, then run the same command again: finished runs are kept"
FIGURES = ("force_mae_original", "force_mae_rotated", "rotational_spread", "energy_mae_rotated")
VALIDATION_SHARE = 0.05


def run_config(options: argparse.Namespace, *settings: str, n_steps: int) -> RunConfig:
    """The preset with some changes."""
    return load_config(options.preset, overrides=[*options.set, f"train.n_steps={n_steps}", *settings])


def members(options: argparse.Namespace) -> list[Path]:
    """The files of the members, trained where they are not yet."""
    files = []
    for seed in range(options.members):
        config = run_config(options, f"train.seed={seed}", f"data.split_seed={seed}", n_steps=options.n_steps)
        folder = options.run_dir / f"member-{seed}"
        train_potential(config, run_dir=folder, resume=True, progress=options.progress)
        files.append(folder / "potential.pt")
    return files


def taught_frames(options: argparse.Namespace, first: Path, ensemble: Potential) -> tuple[Path, dict[str, Any]]:
    """Labels of the ensemble on the dynamics of the first member, and what was sampled."""
    folder = options.run_dir / "sampled"
    file, record = folder / "ensemble.npz", folder / "record.json"
    sampling = Sampling(
        n_frames=options.n_frames,
        n_replicas=options.replicas,
        frame_interval_fs=options.frame_interval_fs,
        equilibrate_ps=options.equilibrate_ps,
    )
    case = {"sampling": asdict(sampling), "max_std_meV_per_A": options.max_std, "ensemble": ensemble.sha256}
    if record.is_file():
        found: dict[str, Any] = read_json(record, hint="remove it, and the geometries are sampled again")
        if found["case"] == case:
            return file, found
    teacher = load_potential(first, device="cpu")
    compiled = run_config(options, n_steps=options.n_steps).train.compile
    chosen = {"run_dir": folder, "sampling": sampling, "compile": compiled, "progress": options.progress}
    sampled = label_own_dynamics(teacher, RemulCalculator, **chosen)
    geometries = read_frames(folder / LABELS, allow_implausible=True)
    labelled = label_frames(ensemble, geometries, max_std_meV_per_A=options.max_std, progress=options.progress)
    write_frames(labelled.frames, file, provenance=labelled.provenance)
    assert labelled.forces_std is not None
    found = {
        "case": case,
        "md_seconds": sampled["md_seconds"],
        "broken": sampled["broken"],
        "n_labelled": len(labelled.frames),
        "n_left_out": labelled.n_left_out,
        "median_forces_std_meV_per_A": 1000.0 * float(np.median(labelled.forces_std)),
    }
    write_json(record, found, hint=HINT)
    return file, found


def student(options: argparse.Namespace, labels: Path, *, n_labelled: int) -> tuple[Path, Path]:
    """Trained on the labels, and then on the reference frames, too."""
    n_validation = max(1, round(VALIDATION_SHARE * n_labelled))
    data = [f"data.source={labels}", "data.molecule=null", "data.allow_implausible=true"]
    data += [f"data.n_train={n_labelled - n_validation}", f"data.n_validation={n_validation}"]
    taught, fine = options.run_dir / "student", options.run_dir / "student-fine"
    config = run_config(options, *data, f"train.seed={options.members}", n_steps=options.student_steps)
    train_potential(config, run_dir=taught, resume=True, progress=options.progress)
    rate = 0.25 * config.train.learning_rate
    config = run_config(options, f"train.fine_tuning_learning_rate={rate}", n_steps=options.fine_steps)
    train_potential(config, run_dir=fine, init_from=taught / "potential.pt", resume=True, progress=options.progress)
    return taught / "potential.pt", fine / "potential.pt"


def row_of(
    options: argparse.Namespace, name: str, potential: Potential, *, n_steps: int, folder: Path
) -> dict[str, Any]:
    """Errors on the test frames, measured once."""
    file = folder / "student_row.json"
    case = {"name": name, "n_steps": n_steps, "sha256": potential.sha256, "n_test": options.n_test}
    if file.is_file():
        row: dict[str, Any] = read_json(file, hint="remove it, and the potential is evaluated again")
        if all(row.get(key) == value for key, value in case.items()):
            return row
    frames = read_frames(options.test)
    test = frames.select(range(min(options.n_test, len(frames))))
    figures = evaluate_potential(potential, test, progress=options.progress).to_json()
    row = {**case, "seconds": potential.provenance.seconds, **{key: figures[key] for key in FIGURES}}
    write_json(file, row, hint=HINT)
    return row


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Members, ensemble, its labels, the student; the figures of all."""
    if options.members < 2:
        raise InputError(f"--members must be at least 2, got {options.members}")
    told = {str(options.run_dir): "FOLDER", str(options.json): options.json.name}
    command = told_command("student", given, told)
    files = members(options)
    make_ensemble(files).save(options.run_dir / "ensemble.pt")
    ensemble = load_potential(options.run_dir / "ensemble.pt")
    labels, sampled = taught_frames(options, files[0], ensemble)
    taught, fine = student(options, labels, n_labelled=sampled["n_labelled"])
    of_members, after = options.members * options.n_steps, options.student_steps
    models = [(f"member {seed}", load_potential(file), options.n_steps, file) for seed, file in enumerate(files)]
    models += [
        ("ensemble", ensemble, of_members, labels),
        ("student", load_potential(taught), of_members + after, taught),
        ("student, then reference frames", load_potential(fine), of_members + after + options.fine_steps, fine),
    ]
    rows = [row_of(options, name, one, n_steps=n, folder=file.parent) for name, one, n, file in models]
    result = {**provenance(command, n_jobs=1), "sampled": sampled, "test": options.test, "runs": rows}
    write_json(options.json, result, hint=HINT)
    print(
        "| | steps in all | force MAE, original / rotated | rotational spread | energy MAE, meV |\n"
        "|---|---|---|---|---|"
    )
    for row in rows:
        print(
            f"| {row['name']} | {row['n_steps']:,} | {row['force_mae_original']:.2f} / {row['force_mae_rotated']:.2f} "
            f"| {row['rotational_spread']:.2f} | {row['energy_mae_rotated']:.2f} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--preset", default="ethanol")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--n-steps", type=int, default=3000, help="of each member")
    parser.add_argument("--student-steps", type=int, default=6000)
    parser.add_argument("--fine-steps", type=int, default=1500, help="on reference frames, a quarter of the rate")
    parser.add_argument("--n-frames", type=int, default=8000)
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--frame-interval-fs", type=float, default=8.0)
    parser.add_argument("--equilibrate-ps", type=float, default=0.3)
    parser.add_argument("--max-std", type=float, default=40.0, help="meV/Å, of the least certain atom of a frame")
    parser.add_argument("--test", default="rmd17/ethanol/test-01")
    parser.add_argument("--n-test", type=int, default=1000)
    parser.add_argument("--progress", action="store_true", help="bars")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "student.json")
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
