"""The engine of all studies: every method on every model and case with every seed, each run in a process of its own;
then one file of results.

All that the engine knows of an experiment is its `Task`. Which runs there are is decided before anything is read; a run
is a function of (task, options, case, model, method, seed, steps), whose hash stands in its result, so a study that was
killed goes on without loss and the seed decides every number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import yaml
from pydantic import ValidationError

from remul_md.errors import InputError
from remul_md.files import changed_values, owned
from remul_md.outputs import make_way
from remul_md.potentials.potential import resolve_device
from remul_md.studies.jobs import fingerprint_of, read_json, run_jobs, write_json
from remul_md.studies.methods import METHODS, TWO
from remul_md.studies.options import LISTS, M, StudyOptions, check_names
from remul_md.studies.record import provenance
from remul_md.training.checkpoint import METRICS, read_metrics
from remul_md.training.run_folder import RUN_FILES
from remul_md.training.step_cost import seconds_in_turns

CONFIG, RESULT, RESULTS, COSTS = "study.json", "result.json", "results.json", "costs.json"
COMMANDS = "; "  # between those that filled a folder, in the results
MADE_FOR_IT = ("labels-*.npz", "scenes-*.h5", "trajectory-*")
STUDY_FILES = (CONFIG, RESULTS, COSTS, *MADE_FOR_IT, *(f"*/{name}" for name in (RESULT, *RUN_FILES, "nve.*")))
CalculatorFactory = Callable[..., Any]  # potential or its file, options -> `RemulCalculator`; handed down, not imported
M_contra = TypeVar("M_contra", bound=StudyOptions, contravariant=True)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a study.

    Args:
        case, model, method, seed: which.
        budgets: what it stands for: "steps", "time", or both, where they are the same run.
        n_steps: of training.
    """

    case: str
    model: str
    method: str
    seed: int
    budgets: tuple[str, ...]
    n_steps: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        time = "-time" if self.budgets == ("time",) else ""
        return f"{self.case}-{self.model}-{self.method}{time}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Column:
    """How a figure of a run stands in the tables: its head, and the factor in front."""

    label: str
    scale: float = 1.0


def columns(labels: Mapping[str, str], *, scale: float = 1.0) -> dict[str, Column]:
    """Columns of one factor, by the names of their figures."""
    return {name: Column(label=label, scale=scale) for name, label in labels.items()}


class Runner(Protocol[M_contra]):
    """How the jobs of a task are done."""

    def check(self, options: M_contra, job: Job) -> object:
        """Raise `InputError` if a job cannot be; called for all jobs before anything is read."""
        ...

    def step(self, options: M_contra, job: Job, study_dir: Path) -> Callable[[], None]:
        """A function that takes the next training step of a job, to measure its time."""
        ...

    def run(self, options: M_contra, job: Job, folder: Path, calculator: CalculatorFactory | None) -> dict[str, Any]:
        """Train and test one job in its folder.

        Returns:
            JSON-able: "figures" (name -> number, text or None), "history" and "learning" (rows with "step"),
            "baselines" (label -> error), "zero_error" (that of an output of 0, in the unit of the history),
            "n_parameters", "best_step", "train_seconds".
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Task(Generic[M]):
    """An experiment, as the engine and the report know it.

    Args:
        name: on the command line.
        title: one line that says what is asked.
        options: everything that decides a number; the defaults are the default size.
        sizes: "quick", "default", ... -> the options that differ.
        cases: data sets of the task -> titles of their tables.
        models: networks -> labels; the first is the reference of equal computing time.
        dynamics: whether its jobs or what they read need a calculator.
        exact: models that have the symmetry by construction: trained plainly, whatever the methods are.
        methods: names of `METHODS` that the task knows.
        runner: does the jobs, such as `Particles` or `Potentials`.
        prepare: makes what the jobs of a study read, such as labels, in its folder; goes on where it was stopped.
        errors: figures that are errors in one unit, the first in the orientations of training; drawn in the pictures.
        tables: title -> columns by the name of their figure; the first table says what was compared.
        ratio: two of the errors; the second over the first stands in the table.
        symmetry: the figure that the error is drawn against.
        error_label: with its unit, on the axes of pictures.
        learned_below: the baseline below whose error something has been learned, where half the error of an output of 0
            is out of reach.
        published: (case, model, method) -> figures as printed; "remul" means every beta. Models that the task does not
            have are listed as not run.
        published_label: what they are, the head of their column.
        notes: what must stand below the tables of a case, such as why published figures do not compare.
    """

    name: str
    title: str
    options: type[M]
    sizes: Mapping[str, Mapping[str, Any]]
    cases: Mapping[str, str]
    models: Mapping[str, str]
    methods: tuple[str, ...]
    runner: Runner[M]
    errors: tuple[str, ...]
    tables: Mapping[str, Mapping[str, Column]]
    error_label: str
    prepare: Callable[[M, Path, CalculatorFactory | None], None] | None = None
    dynamics: bool = False
    exact: frozenset[str] = frozenset()
    ratio: tuple[str, str] | None = None
    symmetry: str = "equivariance_norm"
    learned_below: str | None = None
    published: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    published_label: str = "published"
    notes: Mapping[str, str] = field(default_factory=dict)

    def column(self, name: str) -> Column:
        """The column of a figure, from whichever table has it."""
        return next(columns[name] for columns in self.tables.values() if name in columns)


def study_options(
    task: Task[M],
    *,
    size: str = "default",
    methods: Sequence[str] = (),
    models: Sequence[str] = (),
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
) -> M:
    """The options of a study; lists that are not given are those of the size.

    Args:
        task: what is run.
        size: one of its sizes.
        methods, models, seeds: which.
        overrides: `key=value` such as `n_steps=2000`; values are YAML.
    Raises:
        InputError: an unknown size, name or key (with the nearest known one), one that is given twice, a value out of
            range, or a job that cannot be.
    """
    check_names([size], task.sizes, kind="size")
    values = dict(task.sizes[size])
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise InputError(f"--set takes KEY=VALUE such as n_steps=2000, got {override!r}")
        check_names([key], task.options.model_fields, kind="key")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {override!r}: the value is not valid YAML") from error
    lists = {"methods": methods, "models": models, "seeds": seeds}
    try:
        options = task.options.model_validate(values | {name: [*given] for name, given in lists.items() if given})
    except ValidationError as error:
        raise InputError("the options of the study: " + "; ".join(_explain(e) for e in error.errors())) from error
    for name in LISTS:
        chosen = getattr(options, name)
        if name in ("cases", "models", "methods"):
            check_names(chosen, getattr(task, name), kind=name.removesuffix("s"))
        if len(set(chosen)) < len(chosen):
            raise InputError(f"{name} names something twice: {', '.join(map(str, chosen))}; give each once")
    for job in planned_jobs(task, options):
        task.runner.check(options, job)
    return options


def _explain(entry: Any) -> str:
    message = str(entry["msg"]).removeprefix("Value error, ")
    where = ".".join(str(part) for part in entry["loc"][:1])
    return message if entry["type"] == "value_error" else f"{where}: {message}, got {entry['input']!r}"


def planned_jobs(task: Task[M], options: M, *, costs: Mapping[str, Mapping[str, float]] | None = None) -> list[Job]:
    """All runs of a study, each once: where equal time means equal steps, one run stands for both.

    Args:
        task: what is run.
        options: which.
        costs: case -> `cost_of` -> seconds a step; None: not known yet, and all have `options.n_steps`.
    """
    jobs, reference = [], reference_cost(task)
    runs = [
        (case, model, method, seed)
        for case in options.cases
        for model in options.models
        for method in (("plain",) if model in task.exact else options.methods)
        for seed in options.seeds
    ]
    for case, model, method, seed in runs:
        cost = cost_of(model, method)
        for budgets in [options.budgets] if cost == reference else [(budget,) for budget in options.budgets]:
            n_steps = options.n_steps
            if cost != reference and budgets == ("time",) and costs is not None:
                n_steps = equal_time_steps(n_steps, reference_s=costs[case][reference], own_s=costs[case][cost])
            jobs.append(Job(case=case, model=model, method=method, seed=seed, budgets=budgets, n_steps=n_steps))
    return jobs


def cost_of(model: str, method: str) -> str:
    """What costs the same a step."""
    return f"{model}, {METHODS[method].cost}"


def reference_cost(task: Task[M]) -> str:
    """Whose time all others may use at equal time: the second orientation, on the first model of the task."""
    return f"{next(iter(task.models))}, {TWO}"


def equal_time_steps(n_steps: int, *, reference_s: float, own_s: float) -> int:
    """Steps that take as long as `n_steps` of the reference; a multiple of 10, at least 10."""
    return max(10, 10 * round(n_steps * reference_s / own_s / 10))


def run_study(
    task: Task[M],
    options: M,
    *,
    run_dir: str | Path,
    n_jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    calculator: CalculatorFactory | None = None,
    command: str = "",
) -> Path:
    """Run what is not yet done of a study and write `run_dir/results.json`; returns its path.

    The results hold every finished run of the folder, also those of earlier calls with other methods or seeds, and say
    so: their options list the cases, models, methods and seeds of all runs, their command all commands.

    Args:
        task: what is run.
        options: of `study_options`.
        run_dir: folder of the study; one folder in it for each run.
        n_jobs: runs at a time, each with one thread.
        resume: go on with an interrupted study, or begin one; finished runs are kept.
        overwrite: remove a study that is there, and begin.
        calculator: `RemulCalculator`, for tasks with dynamics; importable by name.
        command: recorded in the results.
    Raises:
        InputError: the folder holds another study or cannot be written, CUDA is asked for and not there, or a
            calculator is needed and missing.
    """
    if task.dynamics and calculator is None:
        raise InputError("this study runs dynamics and needs a calculator: run_study(..., calculator=RemulCalculator)")
    folder, decisive = Path(run_dir), {"task": task.name, **options.decisive}
    resolve_device(options.device)
    with owned(folder, folder=True):
        if (folder / CONFIG).is_file():
            present = [path for name in STUDY_FILES for path in folder.glob(name)]
            make_way(present, resume=resume, overwrite=overwrite, option="--run-dir")
        if not (folder / CONFIG).is_file():
            write_json(folder / CONFIG, decisive)
        elif changed := changed_values(read_json(folder / CONFIG), decisive):
            raise InputError(f"{folder}: was started with other options: {'; '.join(changed)}; use a new --run-dir")
        if task.prepare is not None:
            task.prepare(options, folder, calculator)
        costs = _costs(task, options, folder) if "time" in options.budgets else {}
        jobs = planned_jobs(task, options, costs=costs)
        arguments = {job.name: (task, options, job, str(folder), calculator) for job in jobs}
        run_jobs(run_job, arguments, n_jobs=n_jobs, report=lambda name, found: _line(task, name, found))
        found = [read_json(path) for path in sorted(folder.glob(f"*/{RESULT}"))]
        earlier = read_json(folder / RESULTS)["command"].split(COMMANDS) if (folder / RESULTS).is_file() else []
        content = {
            "study": task.name,
            **provenance(COMMANDS.join(dict.fromkeys(filter(None, [*earlier, command]))), n_jobs=n_jobs),
            "options": options_of_all(options, found),
            "seconds_a_step": costs,
            "runs": sorted(found, key=lambda run: _order(task, run)),
        }
        write_json(folder / RESULTS, content)
    return folder / RESULTS


def options_of_all(options: StudyOptions, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The options of a call, JSON-able, with cases, models, methods, seeds and budgets of all runs of the folder."""
    own = options.model_dump(mode="json")
    of_runs = {name: [run[name.removesuffix("s")] for run in runs] for name in LISTS if name != "budgets"}
    of_runs["budgets"] = [budget for run in runs for budget in run["budgets"]]
    return own | {name: list(dict.fromkeys([*own[name], *values])) for name, values in of_runs.items()}


def run_job(
    task: Task[M], options: M, job: Job, study_dir: str, calculator: CalculatorFactory | None = None
) -> dict[str, Any]:
    """Do one job, or read what an earlier call found; JSON-able.

    Raises:
        InputError: the folder of the run holds another one; see `Runner.run`.
    """
    folder = Path(study_dir) / job.name
    of = {key: value for key, value in asdict(job).items() if key != "budgets"}
    fingerprint = fingerprint_of(task.name, options.decisive, of)
    with owned(folder, folder=True):
        done = read_json(folder / RESULT) if (folder / RESULT).is_file() else None
        if done is not None and done.get("fingerprint") != fingerprint:
            raise InputError(f"{folder}: holds a result of other options; use a new --run-dir")
        budgets = sorted({*job.budgets, *(done or {}).get("budgets", ())})
        if done is None or done["budgets"] != budgets:
            known = done or task.runner.run(options, job, folder, calculator)
            done = {"fingerprint": fingerprint, **of, **known, "budgets": budgets}
            write_json(folder / RESULT, done)
    return done


def validation_errors(folder: Path, column: str) -> list[dict[str, float]]:
    """What a runner gives as "learning": steps and errors from a column of the log in the folder of a run."""
    return [{"step": row["step"], "error": row[column]} for row in read_metrics(folder / METRICS) if column in row]


def _costs(task: Task[M], options: M, folder: Path) -> dict[str, dict[str, float]]:
    """Seconds a step by case and `cost_of`, measured once for a study and kept: a resumed one has the same."""
    path, reference = folder / COSTS, reference_cost(task)
    known: dict[str, dict[str, float]] = read_json(path) if path.is_file() else {}
    for case in options.cases:
        of_case, first = known.setdefault(case, {}), next(iter(task.models))
        two = Job(case=case, model=first, method="augmentation-2", seed=0, budgets=("time",), n_steps=options.n_steps)
        jobs = [two, *(job for job in reversed(planned_jobs(task, options)) if job.case == case)]
        wanted = {cost_of(job.model, job.method): job for job in jobs}  # one job stands for all of its cost
        new = {cost for cost in wanted if cost not in of_case}
        if new:
            # The reference is measured again beside whatever is new.
            steps = {cost: task.runner.step(options, wanted[cost], folder) for cost in sorted({*new, reference})}
            measured = seconds_in_turns(steps, on_cpu=options.device == "cpu")
            scale = of_case.get(reference, measured[reference]) / measured[reference]
            of_case |= {cost: scale * measured[cost] for cost in sorted(new)}
    write_json(path, known)
    return known


def _order(task: Task[M], run: Mapping[str, Any]) -> tuple[Any, ...]:
    places = ([*task.cases].index(run["case"]), [*task.models].index(run["model"]), [*METHODS].index(run["method"]))
    return (*places, "steps" not in run["budgets"], run["seed"])


def _line(task: Task[M], name: str, found: Mapping[str, Any]) -> str:
    shown = [
        f"{task.column(error).label} {task.column(error).scale * found['figures'][error]:.3g}" for error in task.errors
    ]
    return f"{name}: {', '.join(shown)}, {found['train_seconds']:.0f} s of training"
