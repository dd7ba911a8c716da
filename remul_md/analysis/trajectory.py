"""All checks of one run: read its files once, measure, judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis import verdicts as judge
from remul_md.analysis.along import measure_run
from remul_md.analysis.distributions import Distribution
from remul_md.analysis.energy import MIN_SAMPLES, Conservation, Drift, conserves, energy_drift
from remul_md.analysis.extrapolation import RangeDeparture
from remul_md.analysis.log import EnergyLog, read_log
from remul_md.analysis.momentum import MomentumChange
from remul_md.analysis.rotation import RotationalError, about_axis, check_draws, net_force, net_torque
from remul_md.analysis.rotation import rotational_error_along as measure_rotation
from remul_md.analysis.structure import BOUND_TRAINED_A, BondDeviation
from remul_md.analysis.temperature import (
    constraint_notes,
    heating_rate_K_per_ps,
    held_in_run,
    n_vibrations,
    temperatures,
    what_sets_the_temperature,
)
from remul_md.analysis.training_orientations import OrientationAngles, orientation_angles
from remul_md.analysis.training_statistics import TrainingStatistics
from remul_md.analysis.verdicts import Bounds, Verdict
from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from remul_md.dynamics.trajectory import FrameStream

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrajectoryAnalysis:
    """Everything measured on one run; what the files do not hold is None. Letters: T frames, L log rows.

    Args:
        name: file name of the trajectory.
        formula: chemical formula.
        n_atoms: N.
        time_ps: of the frames, [T].
        energies: potential and kinetic energy, [L].
        drift: of the total energy per atom.
        conservation: the equivalence test of the drift; None for a thermostatted run, whose energy is not conserved.
        temperature_K: of each log row, [L].
        n_dof: degrees of freedom the temperature counts.
        n_dof_source: who counted them.
        n_vibrations: internal degrees of freedom of the molecule in frame 0.
        ensemble: of the run, such as nve; empty where its record does not say.
        asked_temperature_K: what the run was asked for.
        set_by: what decides the temperature of such a run, in a sentence; empty where its record does not say.
        angle_swept_deg: rotation angle from frame 0, [T].
        torque_frames: frames that the net force and torque belong to, [F].
        net_force_eV_per_A: [F, 3].
        net_torque_eV: [F, 3].
        rotation_frames: frames that `rotational` belongs to, [R].
        rotational: rotational error and spread under random turns.
        orientations: orientation of those frames relative to the training data; None where that is not known.
        momentum: change of linear and angular momentum.
        bonds: deviation of the bond lengths.
        departure: of all distances from the ranges seen in training.
        pair_distances: their distribution h(r).
        verdicts: the judged numbers.
        notes: what a reader has to know besides.
        axis: the only one that rotations, torque and angular momentum were judged about, of length 1; None: all.
    """

    name: str
    formula: str
    n_atoms: int
    time_ps: Array
    energies: EnergyLog | None
    drift: Drift | None
    conservation: Conservation | None
    temperature_K: Array | None
    n_dof: int | None
    n_dof_source: str
    n_vibrations: int
    ensemble: str
    asked_temperature_K: float | None
    angle_swept_deg: Array
    torque_frames: NDArray[np.int64]
    net_force_eV_per_A: Array | None
    net_torque_eV: Array | None
    rotation_frames: NDArray[np.int64]
    rotational: RotationalError | None
    orientations: OrientationAngles | None
    momentum: MomentumChange | None
    bonds: BondDeviation | None
    departure: RangeDeparture | None
    pair_distances: Distribution | None
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    axis: tuple[float, float, float] | None = None
    set_by: str = ""

    @property
    def mean_temperature_K(self) -> float | None:
        """Mean over the run, K."""
        return None if self.temperature_K is None else float(self.temperature_K.mean())

    @property
    def heating_K_per_ps(self) -> tuple[float, float, float] | None:
        """What the drift does to the temperature, K/ps, and the ends of its 95 % interval; None under a thermostat."""
        rate = self.heating_rate_K_per_ps
        if self.drift is None or self.conservation is None or rate is None:
            return None
        low, high = self.drift.ci95_meV_per_atom_ps
        return rate * self.drift.slope_meV_per_atom_ps, rate * low, rate * high

    @property
    def heating_rate_K_per_ps(self) -> float | None:
        """What a drift of 1 meV/atom/ps does to the temperature; None where the degrees of freedom are not known."""
        if not self.n_dof or self.n_dof < self.n_vibrations:
            return None
        return heating_rate_K_per_ps(1.0, n_atoms=self.n_atoms, n_dof=self.n_dof, n_vibrations=self.n_vibrations)

    @property
    def first_broken_bond_ps(self) -> float | None:
        """Time from the first frame until a bond was 0.5 Å off, ps; None if none ever was."""
        if self.bonds is None or self.bonds.first_off_frame is None:
            return None
        return float(self.time_ps[self.bonds.first_off_frame] - self.time_ps[0])

    @property
    def net_torque_rms_eV(self) -> float | None:
        """Root mean square size of the net torque over the frames, eV."""
        if self.net_torque_eV is None:
            return None
        return float(np.sqrt((self.net_torque_eV**2).sum(axis=1).mean()))

    def to_json(self) -> dict[str, Any]:
        """The figures as plain numbers; null where the files do not hold what a figure needs.

        Units: drift and its interval meV/atom/ps, fluctuation meV/atom, temperature K, rotational error meV/Å,
        net torque eV, angles degrees (the largest from frame 0, and from the training data), bond deviation Å, heating
        rate K/ps, times ps; the change of the angular momentum is the largest one, relative to the start
        (dimensionless, see `MomentumChange`). Verdicts name the unit of their value, which is the one that is printed.
        """
        heating = self.heating_K_per_ps
        return {
            "drift_meV_per_atom_ps": None if self.drift is None else self.drift.slope_meV_per_atom_ps,
            "drift_ci95": None if self.drift is None else list(self.drift.ci95_meV_per_atom_ps),
            "drift_of": None if self.drift is None else self.drift.judged,
            "energy_change_meV_per_atom": None if self.drift is None else self.drift.change_meV_per_atom,
            "heating_K_per_ps": None if heating is None else heating[0],
            "heating_ci95": None if heating is None else list(heating[1:]),
            "fluctuation_meV_per_atom": None if self.drift is None else self.drift.fluctuation_meV_per_atom,
            "temperature_K": self.mean_temperature_K,
            "rotational_error": None if self.rotational is None else self.rotational.mean_error_meV_per_A,
            "net_torque_rms_eV": self.net_torque_rms_eV,
            "angular_momentum_change": None if self.momentum is None else self.momentum.max_relative_change,
            "angle_swept_deg": float(self.angle_swept_deg.max()),
            "angle_from_training_deg": None if self.orientations is None else float(self.orientations.angle_deg.max()),
            "max_bond_deviation_A": None if self.bonds is None else self.bonds.max_bond_deviation_A,
            "max_distance_departure_A": None if self.departure is None else self.departure.max_departure_A,
            "first_broken_bond_ps": self.first_broken_bond_ps,
            "pair_distances": None if self.pair_distances is None else self.pair_distances.to_json(),
            "n_frames": len(self.time_ps),
            **({} if self.axis is None else {"axis": list(self.axis)}),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }


def analyze_trajectory(
    path: str | Path,
    *,
    atoms: Atoms | None = None,
    frame_interval_fs: float | None = None,
    topology: str | Path | None = None,
    ignore_cell: bool = False,
    n_rotation_frames: int = 50,
    n_draws: int = 8,
    seed: int = 0,
    axis: Sequence[float] | Literal["recorded"] | None = "recorded",
    training_statistics: TrainingStatistics | None = None,
    bounds: Bounds | None = None,
) -> TrajectoryAnalysis:
    """Measure and judge a trajectory file, with the log and the record that lie beside it if they do.

    Args:
        path: what `remul_md.dynamics.read.open_trajectory` reads; memory does not grow with its length.
        atoms: structure with any ASE calculator attached: its forces are tested under random turns. None: they
            are not.
        frame_interval_fs: time between frames, for files that do not say.
        topology: elements of the atoms, for a file that MDAnalysis reads and that carries none.
        ignore_cell: take a molecule that stands in a box for an isolated one.
        n_rotation_frames: frames rotated at random, evenly spread over the run, >= 1.
        n_draws: random turns of each.
        seed: of the turns.
        axis: of what acts on the molecule, such as an electric field: rotations, torque and angular momentum are judged
            about it only, mirrors through planes that hold it. Default: the axis that the record of the run names, if
            it does.
        training_statistics: ranges of the training data that bonds, distances and orientations are held against, such
            as `TrainingStatistics.of(potential.domain, ...)`.
        bounds: limits of the verdicts.
    Raises:
        InputError: options out of range, files that cannot be read, a calculator for another structure.
    """
    from remul_md.dynamics.read import open_trajectory
    from remul_md.dynamics.recording import files_of, read_json

    if n_rotation_frames < 1:
        raise InputError(f"n_rotation_frames must be at least 1, got {n_rotation_frames}; 50 is the default")
    check_draws(n_draws)
    if atoms is not None and atoms.calc is None:
        raise InputError("atoms were given without a calculator; attach one, or leave atoms out")
    frames = open_trajectory(path, topology=topology, frame_interval_fs=frame_interval_fs, ignore_cell=ignore_cell)
    log, run = None, {}
    if (files := files_of(path)) is not None:
        log = read_log(files.log) if files.log.exists() else None
        run = read_json(files.description) if files.description.exists() else {}
    return analyze_frames(
        frames,
        name=Path(path).name,
        log=log,
        run=run,
        atoms=atoms,
        n_rotation_frames=n_rotation_frames,
        n_draws=n_draws,
        seed=seed,
        axis=run.get("provenance", {}).get("axis") if axis == "recorded" else axis,
        training_statistics=training_statistics,
        bounds=bounds,
    )


def analyze_frames(
    frames: FrameStream,
    *,
    name: str = "trajectory",
    log: EnergyLog | None = None,
    run: Mapping[str, Any] | None = None,
    atoms: Atoms | None = None,
    n_rotation_frames: int = 50,
    n_draws: int = 8,
    seed: int = 0,
    axis: Sequence[float] | None = None,
    training_statistics: TrainingStatistics | None = None,
    bounds: Bounds | None = None,
) -> TrajectoryAnalysis:
    """As `analyze_trajectory`, for an open file or arrays; `log` replaces the frames' energies, `run` is `run.json`.

    Raises:
        InputError: a calculator or training statistics for another structure.
    """
    from ase.formula import Formula
    from ase.symbols import Symbols

    from remul_md.symmetry.rotations import unit_axis

    notes: list[str] = []
    bounds, run = bounds or Bounds(), run or {}
    n_frames = frames.n_frames
    numbers = next(frames.blocks()).atomic_numbers
    if atoms is not None and not np.array_equal(atoms.numbers, numbers):
        raise InputError(
            f"the calculator's structure is {atoms.symbols}, the trajectory's is {Symbols(numbers)}; "
            "give both with the same atoms in the same order"
        )
    options = run.get("options") or {}
    thermostatted = options.get("ensemble", "nve") != "nve"
    every = np.linspace(0, n_frames - 1, min(n_rotation_frames, n_frames)).round().astype(np.int64)
    trained = training_statistics
    measured = measure_run(frames, sample=every, trained=trained, axis=axis)
    first, sample = measured.first, measured.sample
    n_atoms, isolated = len(first.masses), not first.pbc.any()
    energies = log or measured.energies
    drift, conservation = _drift(energies, n_atoms, thermostatted=thermostatted, bounds=bounds, notes=notes)
    n_dof, n_dof_source = measured.degrees_of_freedom(run)
    constraints = held_in_run(run, measured.constraints)
    notes.extend(constraint_notes(constraints))
    temperature = None
    if energies is not None and n_dof:
        temperature = temperatures(energies.kinetic_energy, n_dof=n_dof)
    rotational = None
    torque_frames, force, torque = np.arange(n_frames), measured.net_force_eV_per_A, measured.net_torque_eV
    if atoms is not None:
        rotational = measure_rotation(
            atoms, sample.positions, n_draws=n_draws, seed=seed, group="SO3" if axis is None else "O3", axis=axis
        )
        if force is None or sample.forces is None:
            torque_frames, force = every, net_force(rotational.forces)
            torque = about_axis(net_torque(sample.positions, rotational.forces, masses=sample.masses), axis)
        else:
            gap = 1e3 * np.abs(sample.forces - rotational.forces).mean()
            if gap > 0.01 * rotational.rms_force_meV_per_A:
                notes.append(
                    f"The forces in the trajectory differ from the calculator's by {gap:.3g} meV/Å on average: "
                    "another potential, or other settings, made this run. The rotational error is the calculator's."
                )
    elif torque is None:
        notes.append("No net torque: the trajectory has no forces. A potential gives them.")
    if measured.kinetic_energy is None:
        notes.append("No temperature of the frames and no change of momenta: the trajectory has no momenta.")
    bonds = measured.bonds
    if bonds is not None and trained is not None and trained.bonds is None and not trained.unlike:
        notes.append(
            "The potential knows no bonds of this composition: they are compared with the first frame, within "
            f"{bonds.bound_A:g} Å instead of {BOUND_TRAINED_A:g}."
        )
    if bonds is not None and bonds.n_without_range:
        notes.append(
            f"{bonds.n_without_range} of {bonds.n_bonds} bonds do not occur in the training data; "
            "they are compared with the first frame."
        )
    analysis = TrajectoryAnalysis(
        name=name,
        formula=Formula(str(Symbols(numbers))).format("hill"),
        n_atoms=n_atoms,
        time_ps=measured.time_ps,
        energies=energies,
        drift=drift,
        conservation=conservation,
        temperature_K=temperature,
        n_dof=n_dof,
        n_dof_source=n_dof_source,
        n_vibrations=n_vibrations(first.positions[0], first.masses, constraints=constraints, isolated=isolated),
        ensemble=str(options.get("ensemble", "")),
        # A mean says nothing about a ramp, so it is not judged.
        asked_temperature_K=None if options.get("final_temperature_K") is not None else options.get("temperature_K"),
        angle_swept_deg=measured.angle_swept_deg,
        torque_frames=torque_frames,
        net_force_eV_per_A=force,
        net_torque_eV=torque,
        rotation_frames=every if rotational is not None else np.empty(0, dtype=np.int64),
        rotational=rotational,
        orientations=None
        if rotational is None
        else orientation_angles(sample.positions, trained, masses=sample.masses),
        momentum=measured.momentum,
        bonds=bonds,
        departure=measured.departure,
        pair_distances=measured.pair_distances,
        verdicts=(),
        notes=tuple(notes),
        axis=None if axis is None else unit_axis(axis),
        set_by=what_sets_the_temperature(options),
    )
    free = isolated and not constraints.held
    judged = _judged(analysis, free=free, thermostatted=thermostatted, bounds=bounds)
    if not measured.wrapped_A or all(verdict.passed for verdict in judged.verdicts if verdict.name == judge.INTACT):
        return judged
    found = [judge.wrapped_verdict(v, measured.wrapped_A) if v.name in judge.OF_PLACES else v for v in judged.verdicts]
    return replace(judged, verdicts=tuple(found))


def _drift(
    energies: EnergyLog | None, n_atoms: int, *, thermostatted: bool, bounds: Bounds, notes: list[str]
) -> tuple[Drift | None, Conservation | None]:
    """Drift and its test; what is missing for them is appended to `notes`."""
    if energies is None:
        notes.append("No drift: the trajectory lacks potential energies or momenta.")
        return None, None
    shadow = None if energies.shadow_energy is None else energies.shadow_energy / n_atoms
    n_energies = len(energies.time_ps) - (shadow is not None)  # which the first row does not have
    if n_energies < MIN_SAMPLES:
        notes.append(f"No drift: {n_energies} energies, at least {MIN_SAMPLES} are needed.")
        return None, None
    drift = energy_drift(energies.time_ps, energies.total_energy / n_atoms, shadow_energy_per_atom=shadow)
    if thermostatted:
        notes.append("A thermostat exchanged energy with the system: the drift says nothing about the potential.")
        return drift, None
    return drift, conserves(drift, bound_meV_per_atom_ps=bounds.drift_meV_per_atom_ps)


def _judged(analysis: TrajectoryAnalysis, *, free: bool, thermostatted: bool, bounds: Bounds) -> TrajectoryAnalysis:
    """The same analysis with a verdict on each number that can be judged."""
    found: list[Verdict] = []
    if analysis.drift is not None and analysis.conservation is not None:
        rate = analysis.heating_rate_K_per_ps or judge.CLASSICAL_K_PER_NS / 1e3
        found.append(
            judge.energy_verdict(analysis.drift, analysis.conservation, bounds=bounds, heating_K_per_ns=1e3 * rate)
        )
    if analysis.rotational is not None:
        found.append(judge.rotation_verdict(analysis.rotational, bounds=bounds))
    if analysis.bonds is not None:
        found.append(judge.bond_verdict(analysis.bonds, time_ps=analysis.time_ps))
    if analysis.departure is not None:
        found.append(judge.range_verdict(analysis.departure, time_ps=analysis.time_ps))
    mean, asked, n_dof = analysis.mean_temperature_K, analysis.asked_temperature_K, analysis.n_dof
    if mean is not None and asked and n_dof:
        found.append(judge.temperature_verdict(mean, asked_K=asked, n_dof=n_dof, bounds=bounds, set_by=analysis.set_by))
    # A crystal feels its cell when it turns, a thermostat pushes, fixed atoms hold: none keeps the angular momentum.
    if free and analysis.net_torque_rms_eV is not None:
        found.append(judge.torque_verdict(analysis.net_torque_rms_eV, bounds=bounds, axis=analysis.axis))
    if free and not thermostatted and analysis.momentum is not None:
        found.append(judge.angular_momentum_verdict(analysis.momentum, bounds=bounds, axis=analysis.axis))
    return replace(analysis, verdicts=tuple(found))
