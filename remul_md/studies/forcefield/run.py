"""The study itself: train, test and run dynamics with every method, in parallel; then one file of results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.analysis.trajectory import analyze_trajectory
from remul_md.datasets import read_frames
from remul_md.dynamics import SimulationStopped, run_md
from remul_md.errors import InputError
from remul_md.files import owned
from remul_md.potentials.potential import load_potential, resolve_device
from remul_md.studies.forcefield.methods import LISTS, METHODS, REFERENCE_COST, ForceFieldConfig
from remul_md.studies.jobs import (
    COSTS,
    RESULT,
    RESULTS,
    fingerprint_of,
    finished_result,
    make_folder,
    prepare_study,
    read_json,
    run_jobs,
    write_json,
)
from remul_md.studies.record import provenance
from remul_md.training.checkpoint import SYMMETRY, read_metrics
from remul_md.training.run_folder import RUN_FILES
from remul_md.training.step_cost import step_seconds
from remul_md.training.train import POTENTIAL, train_potential

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

TRAJECTORY = "nve.traj"
RUN_NAMES = (RESULT, *RUN_FILES, "nve.*")
HISTORY = (
    "step",
    *(f"forces_{figure}" for figure in ("percent", "rotational_error", "equivariance_norm")),
    *("forces_T", "forces_s2", "energy_percent"),
)
# Keys of `TrajectoryAnalysis.to_json` that the tables show.
DYNAMICS = (
    *("drift_meV_per_atom_ps", "drift_ci95", "temperature_K", "rotational_error", "net_torque_rms_eV"),
    *("angular_momentum_change", "angle_swept_deg", "max_bond_deviation_A", "n_frames"),
)
CalculatorFactory = Callable[[str], "Calculator"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One potential to train.

    Args:
        molecule, method, seed: which.
        part: "methods" or "grid".
        budgets: what it stands for: "steps", "time" or both, where they are the same run.
        n_steps: of training.
        width: instead of the study's, in the grid.
        n_train: instead of the study's, in the grid.
    """

    molecule: str
    method: str
    seed: int
    part: str
    budgets: tuple[str, ...]
    n_steps: int
    width: int | None = None
    n_train: int | None = None

    @property
    def name(self) -> str:
        """Name of its folder."""
        size = "" if self.part == "methods" else f"-width{self.width}-frames{self.n_train}"
        time = "-time" if self.budgets == ("time",) else ""
        return f"{self.molecule}-{self.method}{size}{time}-seed{self.seed}"


def run_study(
    config: ForceFieldConfig,
    run_dir: str | Path,
    *,
    calculator: CalculatorFactory,
    n_jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
) -> Path:
    """Run what is not yet done of the study and write `run_dir/results.json`; returns its path.

    The results hold every finished run of the folder, also those of earlier calls with other methods or seeds.

    Args:
        config: all options.
        run_dir: folder of the study; one folder in it for each potential.
        calculator: potential's file -> ASE calculator, for the dynamics; importable by name.
        n_jobs: runs at a time, each with one thread.
        resume: go on with an interrupted study, or begin one; finished runs are kept.
        overwrite: remove a study that is there, and begin.
        command: recorded in the results.
    Raises:
        InputError: the folder holds another study or cannot be written, or CUDA is asked for and not there.
    """
    folder = Path(run_dir)
    resolve_device(config.device)
    with owned(folder, folder=True):
        prepare_study(folder, decisive_options(config), run_names=RUN_NAMES, resume=resume, overwrite=overwrite)
        costs = _costs(config, folder) if "time" in config.budgets and config.methods else {}
        jobs = {job.name: job for job in planned_jobs(config, costs)}
        arguments = {name: (config, job, str(folder), calculator) for name, job in jobs.items()}
        run_jobs(run_job, arguments, n_jobs=n_jobs, report=_line)
        found = [read_json(path) for path in sorted(folder.glob(f"*/{RESULT}"))]
        order = {method: index for index, method in enumerate(METHODS)}
        found.sort(
            key=lambda r: (r["molecule"], r["part"] == "grid", order[r["method"]], "time" in r["budgets"], r["seed"])
        )
        content = {
            "study": "force-field",
            **provenance(command, n_jobs=n_jobs),
            "config": config.model_dump(mode="json"),
            "seconds_a_step": costs,
            "runs": found,
        }
        write_json(folder / RESULTS, content)
    return folder / RESULTS


def decisive_options(config: ForceFieldConfig) -> dict[str, Any]:
    """Options that decide a run's numbers."""
    return config.model_dump(mode="json", exclude={*LISTS})


def planned_jobs(config: ForceFieldConfig, costs: dict[str, dict[str, float]]) -> list[Job]:
    """All runs of the study, each once: where equal time means equal steps, one run stands for both.

    Args:
        config: all options.
        costs: molecule -> word of `Method.cost` -> seconds a step; empty if equal time is not asked for.
    """
    jobs = []
    for molecule in config.molecules:
        for method in config.methods:
            for seed in config.seeds:
                cost = METHODS[method].cost
                if cost == REFERENCE_COST:
                    jobs.append(_method_job(molecule, method, seed, config.budgets, config.n_steps))
                    continue
                if "steps" in config.budgets:
                    jobs.append(_method_job(molecule, method, seed, ("steps",), config.n_steps))
                if "time" in config.budgets:
                    own, reference = costs[molecule][cost], costs[molecule][REFERENCE_COST]
                    n_steps = steps_for_equal_time(config.n_steps, reference_s=reference, own_s=own)
                    jobs.append(_method_job(molecule, method, seed, ("time",), n_steps))
    for molecule in config.grid_molecules if config.grid_widths else ():
        jobs += [
            Job(
                molecule=molecule,
                method=method,
                seed=seed,
                part="grid",
                budgets=("steps",),
                n_steps=config.n_steps,
                width=width,
                n_train=n_train,
            )
            for method in config.grid_methods
            for width in config.grid_widths
            for n_train in config.grid_frames
            for seed in config.seeds
        ]
    return jobs


def steps_for_equal_time(n_steps: int, *, reference_s: float, own_s: float) -> int:
    """Steps that take as long as `n_steps` of the reference method; a multiple of 10, at least 10."""
    return max(10, 10 * round(n_steps * reference_s / own_s / 10))


def _method_job(molecule: str, method: str, seed: int, budgets: tuple[str, ...], n_steps: int) -> Job:
    return Job(molecule=molecule, method=method, seed=seed, part="methods", budgets=budgets, n_steps=n_steps)


def _costs(config: ForceFieldConfig, folder: Path) -> dict[str, dict[str, float]]:
    """Seconds a step by molecule and kind of method, measured once for a study and kept: a resumed one has the same."""
    path = folder / COSTS
    known: dict[str, dict[str, float]] = read_json(path) if path.is_file() else {}
    for molecule in config.molecules:
        of_molecule = known.setdefault(molecule, {})
        # One method stands for all of its cost; the reference is measured again beside whatever is new.
        wanted = {
            METHODS[method].cost: method
            for method in reversed([*METHODS])
            if method in (*config.methods, "augmentation-2")
        }
        new = {cost: method for cost, method in wanted.items() if cost not in of_molecule}
        if not new:
            continue
        configs = {cost: config.run_config(molecule, method, seed=0) for cost, method in wanted.items()}
        measured = step_seconds({cost: configs[cost] for cost in {*new, REFERENCE_COST}})
        scale = of_molecule.get(REFERENCE_COST, measured[REFERENCE_COST]) / measured[REFERENCE_COST]
        of_molecule |= {cost: scale * measured[cost] for cost in new}
    write_json(path, known)
    return known


def run_job(config: ForceFieldConfig, job: Job, study_dir: str, calculator: CalculatorFactory) -> dict[str, Any]:
    """Train, test and run one potential, or read what an earlier call found.

    Returns:
        Accuracy, symmetry, dynamics and the course of the symmetry over the steps, as JSON-able values.
    Raises:
        InputError: see `train_potential`.
    """
    folder = Path(study_dir) / job.name
    fingerprint = fingerprint_of(decisive_options(config), asdict(job))
    if (done := finished_result(folder, fingerprint)) is not None:
        return done
    make_folder(folder)
    options = config.run_config(
        job.molecule, job.method, seed=job.seed, n_steps=job.n_steps, width=job.width, n_train=job.n_train
    )
    trained = train_potential(options, run_dir=folder, resume=True, progress=False)
    metrics = trained.provenance.metrics
    frames = read_frames(f"rmd17/{job.molecule}/test-01").select(range(config.n_test))
    potential = load_potential(folder / POTENTIAL, device=resolve_device(config.device))
    accuracy = evaluate_potential(potential, frames, n_draws=config.n_draws)
    found = {
        "fingerprint": fingerprint,
        **asdict(job),
        "n_parameters": sum(p.numel() for p in trained.model.parameters()),
        "best_step": metrics["best_step"],
        "train_seconds": round(trained.provenance.seconds, 1),
        "validation_force_mae": metrics["validation_force_mae_meV_per_A"],
        "accuracy": accuracy.to_json(),
        "dynamics": None if job.part == "grid" else run_dynamics(config, job, folder, calculator=calculator),
        "history": [{key: row[key] for key in HISTORY} for row in read_metrics(folder / SYMMETRY)],
    }
    write_json(folder / RESULT, found)
    return found


def run_dynamics(config: ForceFieldConfig, job: Job, folder: Path, *, calculator: CalculatorFactory) -> dict[str, Any]:
    """NVE with the potential in `folder`, from the first test frame: drift, momenta, rotational error along it.

    A molecule that falls apart is a result too: `stopped` then says why and when.
    """
    atoms = _first_frame(job.molecule)
    atoms.calc = calculator(str(folder / POTENTIAL))
    output, stopped = folder / TRAJECTORY, None
    try:
        run_md(atoms, config.md_options(seed=job.seed), output=output, resume=True, progress=False)
    except SimulationStopped as stop:
        stopped = {"reason": str(stop.reason), "phase": stop.phase, "time_ps": stop.time_ps}
    empty: dict[str, Any] = dict.fromkeys(DYNAMICS)
    try:
        analysis = analyze_trajectory(output, atoms=atoms, n_draws=config.n_draws).to_json()
    except InputError:
        if stopped is None:
            raise
        return {"stopped": stopped, **empty}  # it broke before the first frame of the trajectory
    return {"stopped": stopped, **{key: analysis[key] for key in DYNAMICS}}


def _first_frame(molecule: str) -> Atoms:
    from remul_md.datasets.structure_source import read_structure

    return read_structure(f"rmd17/{molecule}/test-01:0")


def _line(name: str, result: dict[str, Any]) -> str:
    accuracy = result["accuracy"]
    return (
        f"{name}: force MAE {accuracy['force_mae_original']:.1f} original, "
        f"{accuracy['force_mae_rotated']:.1f} rotated, spread {accuracy['rotational_spread']:.2f} meV/A, "
        f"{accuracy['equivariance_percent']:.2g} % due to symmetry, "
        f"{result['train_seconds']:.0f} s of training"
    )
