"""Is the potential right where its own dynamics goes, and which error bar knows where it is not?

Frames of the potential's own dynamics at several temperatures, each rotated at random, labelled by a reference method
that has never seen them (PBE/def2-SVP, the level of the rMD17 labels): true errors along the trajectory, how well the
spread of the forces over random turns and the scatter of an ensemble follow them, over all frames and within each
temperature, and harmonic wavenumbers of both methods, each at its own minimum. Hot frames have larger errors, larger
spreads and larger forces than cold ones, so a rank correlation over several temperatures is there for that alone; what
an error bar knows is what it has within one, beyond the root mean square force of a frame, which costs nothing.

python benchmarks/independent_truth.py POTENTIAL --run-dir FOLDER [--ensemble FILE.pt] [--structure ethanol]
    [--method pbe] [--temperatures-K 300 500] [--frames 50] [--interval-fs 500] [--calculator KEY=VALUE ...]
    [--labels results/independent_truth.npz] [--json results/independent_truth.json] [--plots docs/images]

The same command goes on where it was stopped: dynamics, labels and every force call of the reference are kept. PBE
takes 10 to 30 seconds a frame of ethanol. A rehearsal of a minute: --method ase.calculators.emt:EMT --frames 4
--interval-fs 20 --equilibrate-ps 0.1 --no-vibrations --labels FILE.npz --json FILE --plots FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from dynamics_methods import ROOT, calculator_options, told_names
from script import run_script, told_command

from remul_md import RemulCalculator
from remul_md.analysis.calibration import calibration
from remul_md.analysis.rotation import RotationalError, rotational_error_along
from remul_md.analysis.vibrations import vibrations
from remul_md.datasets import read_frames, write_frames
from remul_md.datasets.structure_source import read_structure
from remul_md.dynamics import MDOptions, read_trajectory, run_md
from remul_md.errors import InputError
from remul_md.files import read_json, write_json
from remul_md.labels.calculated import calculate_labels
from remul_md.labels.sources import LabelSource, label_source
from remul_md.structures.frames import Frames, frames_from_atoms
from remul_md.studies.figures import plain_numbers, style, write_panels
from remul_md.studies.record import provenance
from remul_md.symmetry.rotations import random_rotations

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HINT = "choose another file, then run the same command again: what is finished is kept"
ERROR_BARS = {"rotational": "spread over turns", "ensemble": "scatter of the ensemble"}
N_RESAMPLED = 1000


def sampled(options: argparse.Namespace, calculator: RemulCalculator) -> Frames:
    """Frames of NVT dynamics, temperature after temperature, each rotated by a rotation of its own about its centre."""
    rotated = []
    for index, temperature in enumerate(options.temperatures_K):
        atoms = read_structure(options.structure)
        atoms.calc = calculator
        md = MDOptions(
            ensemble="bussi",
            temperature_K=temperature,
            timestep_fs=options.timestep_fs,
            equilibrate_ps=options.equilibrate_ps,
            frame_interval_fs=options.interval_fs,
            length_ps=options.frames * options.interval_fs / 1000.0,
            seed=options.seed + index,
        )
        facts = {"potential_sha256": calculator.potential.sha256, "calculator": options.calculator}
        result = run_md(atoms, md, output=options.run_dir / f"nvt-{temperature:g}K.traj", resume=True, provenance=facts)
        frames = read_trajectory(result.trajectory)
        generator = torch.Generator().manual_seed(options.seed + index)
        for number, rotation in enumerate(random_rotations(options.frames, generator=generator).numpy(), start=1):
            one = Atoms(numbers=atoms.numbers, positions=frames.positions[number])
            one.positions = (one.positions - one.positions.mean(axis=0)) @ rotation.T
            rotated.append(one)
    return frames_from_atoms(rotated, name=f"rotated frames of {options.structure} at {options.temperatures_K} K")


def labelled(options: argparse.Namespace, geometries: Callable[[], Frames], source: LabelSource) -> Frames:
    """The frames with labels of the reference; those in the file are taken as they are."""
    if options.labels.is_file():
        print(f"{options.labels.name} is there: its labels are used", file=sys.stderr)
        return read_frames(options.labels)
    found = calculate_labels(geometries(), source, partial=options.run_dir / "labels.partial.npz", progress=True)
    write_frames(found.frames, options.labels, provenance=found.provenance)
    return read_frames(options.labels)


class KeptCalls(Calculator):
    """A calculator whose every answer is kept in a file, so that an interrupted relaxation and Hessian goes on."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's protocol)

    def __init__(self, make: Callable[[], Any], folder: Path) -> None:
        super().__init__()
        self.make, self.folder, self.n_calls = make, folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        path, positions = self.folder / f"{self.n_calls:04d}.npz", self.atoms.get_positions()
        self.n_calls += 1
        if path.is_file():
            kept = np.load(path)
            if np.abs(kept["positions"] - positions).max() < 1e-9:
                self.results = {"energy": float(kept["energy"]), "forces": kept["forces"]}
                return
        fresh = self.atoms.copy()
        fresh.calc = self.make()
        self.results = {"energy": float(fresh.get_potential_energy()), "forces": np.array(fresh.get_forces())}
        partial_path = path.with_suffix(".partial.npz")
        np.savez(partial_path, positions=positions, **self.results)
        partial_path.replace(path)
        print(f"\rforce call {self.n_calls} of the reference for its vibrations", end="", file=sys.stderr, flush=True)


def error_bars(
    calculator: RemulCalculator, frames: Frames, *, n_draws: int, seed: int
) -> tuple[RotationalError, np.ndarray]:
    """Spreads of one potential on the frames, and its errors [T, N, 3], meV/Angstrom."""
    atoms = frames.atoms(0)
    atoms.calc = calculator
    n_atoms = len(atoms)
    assert frames.forces is not None
    found = rotational_error_along(atoms, frames.positions.reshape(-1, n_atoms, 3), n_draws=n_draws, seed=seed)
    return found, 1e3 * (found.forces - frames.forces.reshape(-1, n_atoms, 3))


def rms(vectors: np.ndarray) -> np.ndarray:
    """Root mean square component of each frame, [T]."""
    return np.sqrt(np.mean(np.square(vectors), axis=(1, 2)))


def resampled(errors: np.ndarray, spreads: np.ndarray, *, seed: int) -> np.ndarray:
    """Rank correlations of N_RESAMPLED draws of the frames with replacement; a seed draws the same frames each time."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(errors), len(errors)) for _ in range(N_RESAMPLED))
    return np.array([calibration(errors[chosen], spreads[chosen]).spearman for chosen in draws])


def interval(values: np.ndarray) -> list[float]:
    """The 95 % interval of resampled values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]


def followed(errors: np.ndarray, spreads: np.ndarray, *, seed: int) -> dict[str, Any]:
    """Calibration of one error bar over frames, and the 95 % interval of its rank correlation, frames resampled."""
    found = resampled(errors, spreads, seed=seed)
    return {**asdict(calibration(errors, spreads)), "spearman_ci95": interval(found)}


def rank_correlations(
    errors: np.ndarray, spreads: np.ndarray, rms_forces: np.ndarray, groups: Mapping[str, np.ndarray], *, seed: int
) -> dict[str, Any]:
    """Of the errors with an error bar and with the RMS force, within each group of frames, and their difference.

    The RMS force of a frame is the null: every calculator tells it, and large forces have large errors. The interval of
    the difference is that of pairs, both from the same resampled frames.
    """
    rows = {}
    for name, chosen in groups.items():
        error, bars = errors[chosen], {"error_bar": spreads[chosen], "rms_force": rms_forces[chosen]}
        values = {bar: calibration(error, size).spearman for bar, size in bars.items()}
        samples = {bar: resampled(error, size, seed=seed) for bar, size in bars.items()}
        rows[name] = {
            "n_frames": len(error),
            **{bar: {"spearman": values[bar], "spearman_ci95": interval(samples[bar])} for bar in bars},
            "difference": values["error_bar"] - values["rms_force"],
            "difference_ci95": interval(samples["error_bar"] - samples["rms_force"]),
        }
    return rows


def accuracy(errors: np.ndarray, spread: np.ndarray, groups: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Of each temperature, meV/Angstrom: mean absolute and RMS component of the error, RMS of the rotational spread."""
    return {
        name: {
            "n_frames": int(chosen.sum()),
            "force_mae": float(np.abs(errors[chosen]).mean()),
            "force_rmse": float(np.sqrt(np.mean(errors[chosen] ** 2))),
            "rotational_spread": float(np.sqrt(np.mean(spread[chosen] ** 2))),
        }
        for name, chosen in groups.items()
    }


def wavenumbers(options: argparse.Namespace, source: LabelSource) -> dict[str, Any]:
    """Vibrations of both methods, each at its own minimum, 1/cm, lowest first; relaxed from the potential's minimum."""
    kept = options.run_dir / "vibrations.json"
    if kept.is_file():
        return read_json(kept, hint="remove it, and the vibrations are computed again")
    atoms = read_structure(options.structure)
    atoms.calc = RemulCalculator(options.potential, device="cpu", dtype="float64")
    ours = vibrations(atoms)
    start = ours.atoms.copy()
    start.calc = KeptCalls(source.make, options.run_dir / "hessian")
    reference = vibrations(start, fmax_eV_per_A=options.fmax)
    print(file=sys.stderr)
    both = (ours.modes.vibrations_per_cm, reference.modes.vibrations_per_cm)
    found = {
        "potential_per_cm": both[0].tolist(),
        "reference_per_cm": both[1].tolist(),
        "mean_absolute_difference_per_cm": float(np.abs(both[0] - both[1]).mean()),
        "largest_difference_per_cm": float(np.abs(both[0] - both[1]).max()),
        "zero_point_energies_eV": [ours.modes.zero_point_energy, reference.modes.zero_point_energy],
        "reference_max_force_eV_per_A": reference.max_force,
        "reference_rotations_per_cm": reference.modes.rotations_per_cm.tolist(),
    }
    write_json(kept, found, hint=HINT)
    return found


def draw(axes: Axes, points: Mapping[str, tuple[np.ndarray, np.ndarray]], told: Mapping[str, float]) -> None:
    """True error of each frame against both error bars."""
    for index, (name, (spreads, errors)) in enumerate(points.items()):
        look = style(index)
        label = f"{ERROR_BARS[name]}: rank correlation {told[name]:.2f}"
        axes.scatter(spreads, errors, s=14, alpha=0.8, label=label, **look)
    ends = [min(min(s.min(), e.min()) for s, e in points.values()), max(e.max() for _, e in points.values())]
    axes.plot(ends, ends, color="#9aa0a6", linewidth=0.8, label="error = error bar")
    axes.set(xscale="log", yscale="log", xlabel="error bar of the frame, meV/Å", ylabel="true RMS force error, meV/Å")
    plain_numbers(axes)


def run(options: argparse.Namespace, given: Sequence[str]) -> None:
    chosen = {"device": "cpu", **calculator_options(options.calculator)}
    source = label_source(options.method)
    folders = {str(options.labels): options.labels.name, str(options.plots): "FOLDER"}
    folders |= {} if options.ensemble is None else {options.ensemble: Path(options.ensemble).name}
    named = [folders.get(part, part) for part in given]  # no folder of this machine goes into the results
    options.run_dir.mkdir(parents=True, exist_ok=True)
    plain = RemulCalculator(options.potential, device="cpu")
    ensemble = None if options.ensemble is None else RemulCalculator(options.ensemble, device="cpu")
    if ensemble is not None and ensemble.potential.n_members == 1:
        raise InputError(f"{options.ensemble} is a single model; `remul-md ensemble` makes one of several")
    frames = labelled(options, lambda: sampled(options, RemulCalculator(options.potential, **chosen)), source)
    n_frames = options.frames * len(options.temperatures_K)
    if len(frames) != n_frames:
        raise InputError(f"{options.labels} has {len(frames)} frames, {n_frames} were asked for; give another file")
    temperature = np.repeat(options.temperatures_K, options.frames)
    groups = {f"{value:g} K": temperature == value for value in options.temperatures_K}
    groups["all"] = np.ones(len(frames), dtype=bool)
    spread, errors = error_bars(plain, frames, n_draws=options.draws, seed=options.seed)
    result: dict[str, Any] = {
        **provenance(told_command("independent_truth", named, told_names(options)), n_jobs=1),
        "potential_sha256": plain.potential.sha256,
        "structure": options.structure,
        "method": source.name,
        "method_version": source.version,
        "labels_sha256": frames.content_hash(),
        "n_draws": options.draws,
        "unit": "meV/Angstrom",
        "potential": accuracy(errors, spread.spread_meV_per_A, groups),
        "error_bars": {"rotational": followed(rms(errors), spread.spread_meV_per_A, seed=options.seed)},
        "rank_correlations": {
            "rotational": rank_correlations(
                rms(errors), spread.spread_meV_per_A, rms(1e3 * spread.forces), groups, seed=options.seed
            )
        },
    }
    points = {"rotational": (spread.spread_meV_per_A, rms(errors))}
    if ensemble is not None:
        scatter, mean_errors = error_bars(ensemble, frames, n_draws=options.draws, seed=options.seed)
        std = scatter.ensemble_std_meV_per_A
        assert std is not None
        result["ensemble_members"] = ensemble.potential.n_members
        result["ensemble"] = accuracy(mean_errors, scatter.spread_meV_per_A, groups)
        result["error_bars"] |= {
            "ensemble": followed(rms(mean_errors), std, seed=options.seed),
            "ensemble_for_the_single_model": followed(rms(errors), std, seed=options.seed),
            "rotational_of_the_ensemble": followed(rms(mean_errors), scatter.spread_meV_per_A, seed=options.seed),
        }
        result["rank_correlations"]["ensemble"] = rank_correlations(
            rms(mean_errors), std, rms(1e3 * scatter.forces), groups, seed=options.seed
        )
        points["ensemble"] = (std, rms(mean_errors))
    told = {name: result["error_bars"][name]["spearman"] for name in points}
    write_panels(options.plots, {f"independent_truth_{options.structure}": partial(draw, points=points, told=told)})
    write_json(options.json, result, hint=HINT)
    if not options.no_vibrations:
        write_json(options.json, {**result, "vibrations": wavenumbers(options, source)}, hint=HINT)
    print_tables(read_json(options.json, hint=HINT))


def print_tables(result: Mapping[str, Any]) -> None:
    print("| frames | | force MAE | force RMSE | rotational spread |")
    print("|---|---|---|---|---|")
    for name in ("potential", "ensemble"):
        for group, row in result.get(name, {}).items():
            figures = " | ".join(f"{row[key]:.2f}" for key in ("force_mae", "force_rmse", "rotational_spread"))
            print(f"| {group} ({row['n_frames']}) | {name} | {figures} |")
    print("\n| error bar | rank correlation (95 %) | RMS error / RMS error bar |")
    print("|---|---|---|")
    for name, row in result["error_bars"].items():
        low, high = row["spearman_ci95"]
        print(f"| {name} | {row['spearman']:.2f} ({low:.2f} to {high:.2f}) | {row['error_over_std']:.1f} |")
    print("\n| error bar | frames | rank correlation (95 %) | of the RMS force | difference |")
    print("|---|---|---|---|---|")
    for name, rows in result["rank_correlations"].items():
        for group, row in rows.items():
            pairs = [(row[key]["spearman"], *row[key]["spearman_ci95"]) for key in ("error_bar", "rms_force")]
            pairs.append((row["difference"], *row["difference_ci95"]))
            figures = " | ".join(f"{value:.2f} ({low:.2f} to {high:.2f})" for value, low, high in pairs)
            print(f"| {name} | {group} ({row['n_frames']}) | {figures} |")
    if "vibrations" in result:
        modes = result["vibrations"]
        print(f"\n| potential, 1/cm | {result['method']}, 1/cm |\n|---|---|")
        for ours, reference in zip(modes["potential_per_cm"], modes["reference_per_cm"], strict=True):
            print(f"| {ours:.0f} | {reference:.0f} |")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential")
    parser.add_argument("--run-dir", type=Path, required=True, help="keeps dynamics and labels")
    parser.add_argument("--ensemble", help="a file of `remul-md ensemble`")
    parser.add_argument("--structure", default="ethanol")
    parser.add_argument("--method", default="pbe", help="pbe, xtb, or MODULE:FACTORY of an ASE calculator")
    parser.add_argument("--temperatures-K", nargs="+", type=float, default=[300.0, 500.0], dest="temperatures_K")
    parser.add_argument("--frames", type=int, default=50, help="of each temperature")
    parser.add_argument("--interval-fs", type=float, default=500.0, help="between two frames")
    parser.add_argument("--timestep-fs", type=float, default=0.5)
    parser.add_argument("--equilibrate-ps", type=float, default=2.0)
    parser.add_argument("--draws", type=int, default=16, help="random turns of a frame")
    parser.add_argument("--fmax", type=float, default=1e-3, help="the reference is relaxed to this, eV/Angstrom")
    parser.add_argument("--no-vibrations", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calculator", nargs="+", default=[], metavar="KEY=VALUE", help="of the MD: compile=true")
    parser.add_argument("--labels", type=Path, default=ROOT / "results" / "independent_truth.npz")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "independent_truth.json")
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "images")
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
