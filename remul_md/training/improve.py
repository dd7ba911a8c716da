"""`remul-md improve`: hot runs find what a potential does not know, a method labels it, the potential learns it.

Rounds of hot runs of an ensemble, each until its members disagree, the training data are left or a bond breaks;
geometries from before these ends, far from each other and from all that is known; their labels; a short training of
each member on old and new data. The rounds end when all runs hold, when the budget is spent, or when the runs show
nothing new.

Every stage leaves its result in the folder of the run before `improve.json` says that it is done, so a killed run goes
on where it was and ends with the same labels and weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ase import Atoms

from remul_md.dynamics.description import structure_hash
from remul_md.errors import InputError
from remul_md.files import owned, replace_atomically
from remul_md.labels.calculated import calculate_labels
from remul_md.labels.rotated import unseen_torsions
from remul_md.labels.sources import LabelSource
from remul_md.potentials.domain import require_known_composition
from remul_md.potentials.ensemble import members_of
from remul_md.potentials.potential import Potential, find_potential, load_potential, resolve_device
from remul_md.structures.frames import Frames, frames_from_atoms, joined
from remul_md.training.config import TrainConfig
from remul_md.training.improve_config import ImproveOptions, improve_training
from remul_md.training.improve_data import (
    MemberData,
    compared_frames,
    compared_with,
    distinct,
    file_of,
    held_out,
    member_data,
)
from remul_md.training.improve_rounds import (
    ENSEMBLE,
    PARTIAL,
    chosen_geometries,
    first_geometries,
    force_errors,
    hot_runs,
    labelled_geometries,
    labels_of,
    member_files,
    round_folder,
    train_members,
)
from remul_md.training.improve_state import COMPARED, MEMBERS, POTENTIAL, Clock, ImproveState

logger = logging.getLogger(__name__)

FORGOTTEN = 1.1  # times the error on old frames before a round: worth a warning
HOLDS, SPENT, NOTHING_NEW, ENOUGH = "all runs hold", "the budget is spent", "the runs show nothing new", "max_rounds"


@dataclass(frozen=True, kw_only=True, eq=False)
class Improved:
    """What `improve_potential` made.

    Args:
        potential: an ensemble, as `run_dir/potential.pt` holds it.
        ended: why the rounds ended: all runs hold, the budget is spent, the runs show nothing new, or max_rounds.
        rows: a row a round, as the page shows them.
    """

    potential: Potential
    ended: str
    rows: Sequence[Mapping[str, Any]]


def improve_potential(
    file: str | Path,
    *,
    source: LabelSource,
    atoms: Atoms,
    run_dir: str | Path,
    calculator: Callable[..., Any],
    options: ImproveOptions | None = None,
    training: Sequence[str] = (),
    data: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Improved:
    """Improve a potential until its hot runs hold; the result is the ensemble `run_dir/potential.pt`.

    Args:
        file: a potential or an ensemble of conservative forces that says what it was trained on, or a shipped name. Of
            a single potential members are made that differ in which new labels they learn.
        source: the method, that of the data of the potential.
        atoms: where the runs start, an isolated molecule of its composition.
        run_dir: folder of everything that is made.
        calculator: (potential, device=, forces=, compile=) to an ASE calculator with `copies`, as `RemulCalculator`.
        options: see there.
        training: how members are trained, such as `train.n_steps=500`, and entries of `data` that the file names as
            they were called on another machine, such as `data.isolated_atoms=FILE`.
        data: the file of its training data, where the potential names no registered ones.
        resume: go on with an interrupted run, or begin one if the folder holds none.
        overwrite: remove a run that the folder holds, and begin.
        progress: show bars.
    Raises:
        InputError: a potential without conservative forces, of several molecules, in a field, or with cells; data that
            are not found or not its own; a method of another level of theory; a folder that holds another run.
    """
    folder, options = Path(run_dir), options or ImproveOptions()
    train, entries = improve_training(training)
    if data is not None:
        entries = {**entries, "source": str(data)}
    file = find_potential(file)
    device = resolve_device(train.device)
    potential = load_potential(file, device=device)
    _check(potential, atoms)
    members = members_of(potential)
    of_members = member_data(members, entries)
    if len(members) == 1:
        of_members = of_members * options.n_members
    asked = {
        **options.to_json(),
        "potential_sha256": potential.sha256,
        "structure_sha256": structure_hash(atoms),
        "method": source.name,
        "calculator": source.version,
        "data_sha256": of_members[0].train.content_hash(),
        "train": train.model_dump(mode="json", exclude={"n_threads", "device"}),
    }
    with owned(folder, folder=True):
        inputs = (file, data, file_of(of_members[0].config))
        state = ImproveState.begun(folder, asked, resume=resume, overwrite=overwrite, inputs=inputs)
        torch.set_num_threads(train.n_threads)
        run = _Run(
            folder=folder,
            state=state,
            source=source,
            atoms=atoms,
            calculator=calculator,
            options=options,
            train=train,
            data=of_members,
            progress=progress,
        )
        run.compare()
        origins = _origins(folder, file, members, n_members=len(of_members))
        ended = run.rounds(origins, potential)
        made = round_folder(folder, run.last_trained) / ENSEMBLE
        replace_atomically(folder / POTENTIAL, made.read_bytes())
        return Improved(potential=load_potential(folder / POTENTIAL), ended=ended, rows=state.rows())


@dataclass(kw_only=True)
class _Run:
    """One process's share of a run; what outlives it is `state` and the files of the rounds."""

    folder: Path
    state: ImproveState
    source: LabelSource
    atoms: Atoms
    calculator: Callable[..., Any]
    options: ImproveOptions
    train: TrainConfig
    data: list[MemberData]
    progress: bool
    last_trained: int = 0

    def compare(self) -> None:
        """See that the method is that of the data, once."""
        if self.state.content["level"] is not None:
            return
        frames = compared_frames(self.data)
        made = calculate_labels(frames, self.source, partial=self.folder / COMPARED, progress=self.progress)
        self.state.content["level"] = compared_with(self.data, self.source, made)
        self.state.write()
        (self.folder / COMPARED).unlink(missing_ok=True)

    def rounds(self, origins: Sequence[Path], potential: Potential) -> str:
        """All of them; why they ended."""
        number, before = 0, potential
        while True:
            entry = self.state.of_round(number)
            if number:
                self._sample(entry, before)
                ended = self._ended(entry)
                if ended:
                    self.state.content["ended"] = ended
                    self.state.write()
                    return ended
            geometries = self._geometries(entry)
            if number and geometries is None:
                self.state.content["ended"] = NOTHING_NEW
                self.state.write()
                return NOTHING_NEW
            self._label(entry, geometries)
            before = self._learn(entry, origins, before)
            self.last_trained = number
            origins = member_files(self.folder, number, n_members=len(self.data))
            number += 1

    def _sample(self, entry: dict[str, Any], ensemble: Potential) -> None:
        """Hot runs, shorter ones first: the first length at which one ends is the last of the round."""
        if "runs" in entry:
            return
        folder = round_folder(self.folder, entry["round"])
        if "max_uncertainty_eV_per_A" not in entry:
            entry["max_uncertainty_eV_per_A"] = self._limit(entry["round"], ensemble)
        lengths = [length for length in self.options.lengths_ps if length >= entry.get("length_ps", 0.0)]
        for length in lengths:
            if entry.get("length_ps") != length:
                entry["length_ps"] = length
                self.state.write()
            with self._timed(entry, "hot runs"):
                runs = hot_runs(
                    ensemble,
                    self.atoms,
                    self.calculator,
                    folder=folder,
                    options=self.options,
                    length_ps=length,
                    number=entry["round"],
                    max_uncertainty=entry["max_uncertainty_eV_per_A"],
                    progress=self.progress,
                )
            if any(run["cause"] for run in runs):
                break
        entry["runs"] = runs
        self.state.write(runs_are_new=True)

    def _limit(self, number: int, ensemble: Potential) -> float:
        """The uncertainty at which a run ends, eV/Angstrom: so many times that of the validation frames.

        It never falls: otherwise the better the members agree, the sooner a run would end.
        """
        least_certain = force_errors(ensemble, held_out(self.data)).least_certain
        assert least_certain is not None  # of an ensemble
        earlier = [row.get("max_uncertainty_eV_per_A", 0.0) for row in self.state.rows()[:number]]
        return float(max([self.options.uncertainty * least_certain, *earlier]))

    def _ended(self, entry: Mapping[str, Any]) -> str:
        if not any(run["cause"] for run in entry["runs"]):
            return HOLDS
        if "geometries" not in entry and self._budget_left() < 1:
            return SPENT
        limit = self.options.max_rounds
        return ENOUGH if limit is not None and entry["round"] > limit else ""

    def _budget_left(self) -> int:
        return int(self.options.budget_labels - sum(len(row.get("geometries", ())) for row in self.state.rows()))

    def _geometries(self, entry: dict[str, Any]) -> Frames | None:
        """What is to be labelled; kept in the state, where every number has all its digits."""
        if "geometries" not in entry:
            number = entry["round"]
            if number == 0:
                chosen = first_geometries(self.data, options=self.options)
            else:
                chosen = chosen_geometries(
                    entry["runs"],
                    self._known(number),
                    folder=round_folder(self.folder, number),
                    options=self.options,
                    n_frames=min(self.options.labels_per_round, self._budget_left()),
                    beside=unseen_torsions(self.data[0].train, seed=self.options.seed) if number == 1 else None,
                )
            entry["geometries"] = [] if chosen is None else [_in_json(chosen, index) for index in range(len(chosen))]
            self.state.write()
        if not entry["geometries"]:
            return None
        charge = self.data[0].train.charge
        info = {"charge": 0 if charge is None else int(charge[0])}
        return frames_from_atoms(
            [Atoms(**one, info=info) for one in entry["geometries"]], name=f"round {entry['round']}"
        )

    def _known(self, number: int) -> Frames:
        """Frames whose labels are known, those held out included: near copies of them tell nothing or flatter."""
        new = labels_of(self.folder, range(number))
        further = [] if self.data[0].further is None else [self.data[0].further]
        parts = [distinct([own.train for own in self.data]), held_out(self.data), *further, *new]
        return joined([part.without_labels() for part in parts], name="known")

    def _label(self, entry: dict[str, Any], geometries: Frames | None) -> None:
        if "n_labels" in entry:
            return
        entry |= {"n_labels": 0, "refused": {}}
        if geometries is not None:
            folder = round_folder(self.folder, entry["round"])
            with self._timed(entry, "labels"):
                entry["n_labels"], entry["refused"] = labelled_geometries(
                    geometries, self.source, folder=folder, jobs=self.options.jobs, progress=self.progress
                )
        self.state.write()
        # Not before: until the state knows of the labels they are asked for again.
        (round_folder(self.folder, entry["round"]) / PARTIAL).unlink(missing_ok=True)

    def _learn(self, entry: dict[str, Any], origins: Sequence[Path], before: Potential) -> Potential:
        """The ensemble of the round, and what it is worth on old and on new frames."""
        number = entry["round"]
        file = round_folder(self.folder, number) / ENSEMBLE
        if "force_mae_old" in entry:
            return load_potential(file, device=before.device)
        with self._timed(entry, "training"):
            made = train_members(
                origins,
                self.data,
                run_dir=self.folder,
                number=number,
                train=self.train,
                options=self.options,
                method=self.source.name,
                progress=self.progress,
            ).to(device=before.device)
        new = [] if not entry["n_labels"] else labels_of(self.folder, [number])
        if number:
            known = self.state.rows()[number - 1]["force_mae_old"]["after"]
        else:
            known = self._error_on_old([load_potential(origin, device=before.device) for origin in origins])
        old = {"before": known, "after": self._error_on_old(members_of(made))}
        if old["after"] > FORGOTTEN * old["before"]:
            logger.warning(
                "round %d: the force MAE on the validation frames rose from %.1f to %.1f meV/Angstrom; a lower "
                "train.fine_tuning_learning_rate keeps more of what was known",
                *(number, old["before"], old["after"]),
            )
        entry["force_mae_new"] = {}
        if new:
            earlier, later = force_errors(before, new[0]), force_errors(made, new[0])
            entry["force_mae_new"] = {"before": earlier.force_mae, "after": later.force_mae}
            entry["error_over_std_new"] = earlier.error_over_std
        entry["force_mae_old"] = old
        self.state.write()
        return made

    def _error_on_old(self, members: Sequence[Potential]) -> float:
        """Force MAE on the validation frames, mean over the members, each on its own, meV/Angstrom."""
        errors = [force_errors(one, own.validation).force_mae for one, own in zip(members, self.data, strict=True)]
        return sum(errors) / len(errors)

    def _timed(self, entry: dict[str, Any], stage: str) -> Clock:
        return Clock(entry["seconds"], stage)


def _in_json(frames: Frames, index: int) -> dict[str, Any]:
    return {"numbers": frames.frame_numbers(index).tolist(), "positions": frames.frame_positions(index).tolist()}


def _check(potential: Potential, atoms: Atoms) -> None:
    compositions = potential.domain.compositions
    if potential.provenance.trained_forces == "direct":
        raise InputError("this potential was trained for direct forces only; give one with conservative forces")
    if potential.domain.periodic or len(compositions) > 1 or atoms.pbc.any():
        raise InputError(
            "hot runs are those of one isolated molecule, but the potential has several or periodic ones, or the "
            "structure is periodic; improve potentials of one molecule each"
        )
    if potential.provenance.axis is not None:
        raise InputError("this potential belongs to a field or an axis; its labels would need it too: not supported")
    require_known_composition(potential.domain, atoms.numbers, species=potential.species)


def _origins(folder: Path, file: Path, members: Sequence[Potential], *, n_members: int) -> list[Path]:
    """Files that the first training starts from: one potential for all members, or each member of an ensemble."""
    if len(members) == 1:
        return [file] * n_members
    place = folder / MEMBERS
    place.mkdir(exist_ok=True)
    files = [place / f"{number}.pt" for number in range(len(members))]
    for path, member in zip(files, members, strict=True):
        if not path.is_file():
            member.save(path)
    return files
