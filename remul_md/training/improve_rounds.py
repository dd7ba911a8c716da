"""The stages of a round of `remul-md improve`: hot runs, choice of geometries, labels, training.

Each stage is a function of files that earlier stages left and of the seed, and can be called again after a kill.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from remul_md.analysis.calibration import calibration, force_errors_of
from remul_md.datasets import read_frames, write_frames
from remul_md.dynamics import MDResult, read_trajectory
from remul_md.dynamics.recording import OutputFiles
from remul_md.dynamics.replicas import replica_output, run_replicas
from remul_md.files import replace_atomically
from remul_md.labels.calculated import NoneLabelled, calculate_labels
from remul_md.labels.selection import descriptors, is_plausible, select_new
from remul_md.labels.sources import LabelSource
from remul_md.labels.stretched import stretched_bonds
from remul_md.potentials.domain import domain_of
from remul_md.potentials.ensemble import make_ensemble
from remul_md.potentials.potential import Potential, load_potential
from remul_md.potentials.structure_check import StructureCheck
from remul_md.structures.frames import Frames, frames_from_atoms, joined
from remul_md.training.config import RunConfig, TrainConfig
from remul_md.training.improve_config import ImproveOptions
from remul_md.training.improve_data import MemberData
from remul_md.training.train import train_potential

logger = logging.getLogger(__name__)

MEMBER, ENSEMBLE, TRAINED_ON = "member-{}.pt", "ensemble.pt", "training-{}.extxyz"
LABELS, PARTIAL = "labels.extxyz", "labels.part"
FRAMES_OF_A_RUN = 30  # candidates from a run that ended early, evenly spread over its last picosecond
SEEDS_OF_A_ROUND = 10_000  # no two runs of any rounds and temperatures share one


def round_folder(run_dir: Path, number: int) -> Path:
    """Where the files of a round stand."""
    return run_dir / f"round-{number}"


def hot_runs(
    ensemble: Potential,
    atoms: Atoms,
    calculator: Callable[..., Any],
    *,
    folder: Path,
    options: ImproveOptions,
    length_ps: float,
    number: int,
    max_uncertainty: float,
    progress: bool,
) -> list[dict[str, Any]]:
    """Runs at all temperatures from one structure, each to `length_ps` or until it ends by itself.

    Args:
        ensemble: whose forces and error bars they have.
        atoms: where they start.
        calculator: (potential, device=, forces=, compile=) to an ASE calculator with `copies`.
        folder: of the round; runs that it holds are gone on with.
        options: of all rounds.
        length_ps: of each run.
        number: of the round.
        max_uncertainty: eV/Angstrom.
        progress: show bars.
    Returns:
        Of each run, JSON-able: `temperature_K`, `replica`, `stable_ps`, `cause` ("" where it held) and `reason`.
    """
    found: list[dict[str, Any]] = []
    start = atoms.copy()
    chosen = {"device": str(ensemble.device), "forces": "conservative", "compile": options.compile}
    start.calc = calculator(ensemble, **chosen)
    evaluate = start.calc.copies(start, n_copies=options.n_replicas, diagnose=True)
    for place, temperature in enumerate(options.temperatures_K):
        seed = options.seed + SEEDS_OF_A_ROUND * (number + 1) + 100 * place
        outcomes = run_replicas(
            start,
            options.md_options(temperature, length_ps=length_ps, max_uncertainty=max_uncertainty, seed=seed),
            n_replicas=options.n_replicas,
            output=_output(folder, temperature),
            evaluate=evaluate,
            resume=True,
            progress=progress,
            provenance={"potential_sha256": ensemble.sha256},
        )
        for replica, outcome in enumerate(outcomes):
            run = {"temperature_K": temperature, "replica": replica}
            if isinstance(outcome, MDResult):
                found.append({**run, "stable_ps": length_ps, "cause": "", "reason": ""})
            else:
                found.append({**run, "stable_ps": outcome.time_ps, "cause": outcome.cause, "reason": outcome.reason})
    return found


def chosen_geometries(
    runs: Sequence[Mapping[str, Any]],
    known: Frames,
    *,
    folder: Path,
    options: ImproveOptions,
    n_frames: int,
    beside: Frames | None = None,
) -> Frames | None:
    """Geometries from before the ends of those runs that ended early, far from all known frames and from each other.

    Args:
        runs: what `hot_runs` returned.
        known: frames that have labels, those held out included.
        folder: of the round.
        options: of all rounds.
        n_frames: at most so many.
        beside: further geometries to choose from, half of all at most.
    Returns:
        Without labels; None where there is nothing new.
    """
    chosen: list[Frames] = []
    compared = descriptors(known)
    for pool, most in (
        (beside, n_frames // 2),
        (_before_the_end(runs, known, folder=folder, options=options), n_frames),
    ):
        if pool is None:
            continue
        found = descriptors(pool)
        picked, _ = select_new(found, compared, n_frames=most - sum(len(part) for part in chosen))
        if len(picked):
            chosen.append(pool.select(picked))
            compared = np.concatenate([compared, found[picked]])
    return joined(chosen, name="chosen") if chosen else None


def _before_the_end(
    runs: Sequence[Mapping[str, Any]], known: Frames, *, folder: Path, options: ImproveOptions
) -> Frames | None:
    """Geometries from the last time of each run that ended early, evenly spread; None where there are none."""
    candidates: list[Atoms] = []
    charge = 0 if known.charge is None else int(known.charge[0])
    for run in runs:
        path = OutputFiles.for_output(replica_output(_output(folder, run["temperature_K"]), run["replica"])).trajectory
        if not run["cause"] or not path.is_file() or path.stat().st_size == 0:
            continue
        trajectory = read_trajectory(path)
        n_last = min(len(trajectory), 1 + round(1000.0 * options.window_ps / options.frame_interval_fs))
        end = len(trajectory) - 1
        last = np.unique(np.linspace(end + 1 - n_last, end, FRAMES_OF_A_RUN).round().astype(np.int64))
        candidates += [
            Atoms(numbers=trajectory.atomic_numbers, positions=at, info={"charge": charge})
            for at in trajectory.positions[last]
            if is_plausible(trajectory.atomic_numbers, at)
        ]
    return frames_from_atoms(candidates, name="hot runs") if candidates else None


def first_geometries(data: Sequence[MemberData], *, options: ImproveOptions) -> Frames | None:
    """Stretched and squeezed bonds, evenly spread where half of the budget does not pay for all; None where none are
    asked for.
    """
    n_frames = options.budget_labels // 2
    if not options.stretched or n_frames < 1:
        return None
    made, _ = stretched_bonds(data[0].train, seed=options.seed)
    return made.select(np.unique(np.linspace(0, len(made) - 1, min(len(made), n_frames)).round().astype(np.int64)))


def labelled_geometries(
    frames: Frames, source: LabelSource, *, folder: Path, jobs: int, progress: bool
) -> tuple[int, dict[str, str]]:
    """Write the labels of the geometries of a round; how many there are, and why others have none, by their number."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / PARTIAL
    try:
        made = calculate_labels(frames, source, partial=partial, jobs=jobs, progress=progress)
    except NoneLabelled as error:
        logger.warning("%s", error)
        return 0, {str(index): why for index, why in error.refused.items()}
    write_frames(made.frames, folder / LABELS, provenance=made.provenance, per_frame=made.figures)
    for index, why in made.refused.items():
        logger.warning("geometry %d of %s has no label: %s", index, folder.name, why)
    return len(made.frames), {str(index): why for index, why in made.refused.items()}


def labels_of(run_dir: Path, numbers: Sequence[int]) -> list[Frames]:
    """The labels of these rounds, where they have some."""
    files = [round_folder(run_dir, number) / LABELS for number in numbers]
    return [
        read_frames(file, allow_implausible=True, energy_unit="eV", length_unit="Angstrom")
        for file in files
        if file.is_file()
    ]


def train_members(
    origins: Sequence[Path],
    data: Sequence[MemberData],
    *,
    run_dir: Path,
    number: int,
    train: TrainConfig,
    options: ImproveOptions,
    method: str,
    progress: bool,
) -> Potential:
    """Train each member on from its origin on its old data and its part of the new labels; the ensemble of them.

    Members of an ensemble stay as they are until there are new labels.

    Args:
        origins: files that the members start from.
        data: of each member.
        run_dir: of all rounds.
        number: of the round.
        train: how.
        options: of all rounds.
        method: that made the labels.
        progress: show bars.
    """
    folder = round_folder(run_dir, number)
    folder.mkdir(parents=True, exist_ok=True)
    new, hot = labels_of(run_dir, range(number + 1)), labels_of(run_dir, range(1, number + 1))
    files = []
    for place, (origin, own) in enumerate(zip(origins, data, strict=True)):
        files.append(folder / MEMBER.format(place))
        if files[-1].is_file():
            continue
        if not new and len(set(origins)) == len(origins):  # the members of an ensemble, and nothing to learn yet
            replace_atomically(files[-1], origin.read_bytes())
            continue
        learned = [part for each in new if (part := without_share(each, place=place, n_members=len(origins)))]
        beside = [*([data[0].further] if data[0].further is not None else []), *learned]
        trained_on = folder / TRAINED_ON.format(place)
        if beside:
            note = {"method": method, "rounds": number + 1}
            write_frames(joined(beside, name="new"), trained_on, provenance=note)
        config = RunConfig(
            data=own.config.model_copy(update={"stretched": str(trained_on) if beside else None, "unlabelled": None}),
            train=train.model_copy(update={"seed": train.seed + options.seed + 100 * number + place}),
        )
        trained = train_potential(
            config, run_dir=folder / f"member-{place}", resume=True, init_from=origin, progress=progress
        )
        record = {"round": number, "method": method, "n_new": sum(map(len, learned))}
        provenance = replace(trained.provenance, data={**trained.provenance.data, "improve": record})
        widened = replace(trained, provenance=provenance, domain=domain_of(_whole(own, hot, trained)))
        widened.save(files[-1])
    make_ensemble(files).save(folder / ENSEMBLE)
    return load_potential(folder / ENSEMBLE)


def without_share(frames: Frames, *, place: int, n_members: int) -> Frames | None:
    """The new labels of a round that a member learns: all but every `n_members`-th, other ones for each member.

    So there is always a member that does not know a frame, and its neighbours, and the error bar there says so
    (`docs/improve.md`). None where nothing is left.
    """
    kept = [index for index in range(len(frames)) if index % n_members != place]
    return frames.select(kept) if kept else None


def member_files(run_dir: Path, number: int, *, n_members: int) -> list[Path]:
    """The members of the ensemble of a round."""
    return [round_folder(run_dir, number) / MEMBER.format(place) for place in range(n_members)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Errors:
    """Force errors on frames: mean absolute component, and of an ensemble the error bar, meV/Angstrom.

    Args:
        force_mae: of the components.
        error_over_std: root mean square error over root mean square error bar; None of a single model.
        least_certain: mean over the frames of the error bar of the least certain atom, eV/Angstrom; None likewise.
    """

    force_mae: float
    error_over_std: float | None
    least_certain: float | None


def force_errors(potential: Potential, frames: Frames) -> Errors:
    """Errors of conservative forces on labelled frames."""
    errors, stds = force_errors_of(potential, frames)
    mae = 1000.0 * float(np.abs(errors).mean())
    if stds is None:
        return Errors(force_mae=mae, error_over_std=None, least_certain=None)
    of_frames = np.maximum.reduceat(np.sqrt(np.square(stds).mean(axis=1)), frames.first_atom)
    return Errors(
        force_mae=mae,
        error_over_std=calibration(errors, stds).error_over_std,
        least_certain=float(of_frames.mean()),
    )


def _output(folder: Path, temperature_K: float) -> Path:
    return folder / "md" / f"{temperature_K:g}K" / "run.traj"


def _whole(own: MemberData, hot: Sequence[Frames], trained: Potential) -> Frames:
    """Training frames and those of hot runs that show the molecule with its bonds: what the domain is made of.

    Bonds that were stretched by hand are labelled, too, but say nothing of where dynamics may go.
    """
    check = StructureCheck(trained.domain)
    parts = [own.train]
    for frames in hot:
        whole = [
            index
            for index in range(len(frames))
            if check.known_bonds(frames.frame_numbers(index), frames.frame_positions(index))[0] is not None
        ]
        if whole:
            parts.append(frames.select(whole))
    return joined(parts, name=own.train.name)
