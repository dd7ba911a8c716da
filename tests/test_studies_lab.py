"""The engine on a tiny task of its own: parallel runs, resumption, refusals, equal time, and the same numbers again."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import nn

from remul_md.errors import InputError
from remul_md.files import owned
from remul_md.studies import learn
from remul_md.studies.lab import (
    Job,
    columns,
    cost_of,
    equal_time_steps,
    planned_jobs,
    reference_cost,
    run_job,
    run_study,
    study_options,
)
from remul_md.studies.learn import ParticleOptions, Particles, ParticleTask, Splits
from remul_md.studies.methods import ABOUT_AXIS, METHODS, method_options
from remul_md.studies.particles import Tokens
from remul_md.studies.report import markdown_report
from remul_md.studies.tasks import TASKS, find_task
from remul_md.training.checkpoint import METRICS, read_checkpoint, read_metrics
from remul_md.training.fit import CHECKPOINT


class SpringOptions(ParticleOptions):
    cases: tuple[str, ...] = Field(("soft",), min_length=1)
    methods: tuple[str, ...] = Field(("plain", "remul-1"), min_length=1)
    seeds: tuple[int, ...] = Field((3,), min_length=1)
    n_steps: int = Field(30, ge=10)
    width: int = 8
    n_layers: int = 1
    n_heads: int = 2
    egnn_width: int = 6
    egnn_layers: int = 2
    batch_size: int = Field(5, ge=1)
    n_draws: int = 3
    n_draw_systems: int = 4


def load(options: SpringOptions, case: str, seed: int) -> Splits:
    """Particles that go 0.1 or 0.5 of the way to their centre."""
    stiffness = {"soft": 0.1, "hard": 0.5}[case]

    def some(n: int, *, of: int) -> Tokens:
        generator = torch.Generator().manual_seed(of)
        x, v = torch.randn(2, n, 4, 3, generator=generator)
        x = x - x.mean(1, keepdim=True)
        return Tokens(
            scalars=torch.ones(n, 4, 1),
            positions=x,
            velocities=v,
            pairs=torch.zeros(n, 4, 4, 0),
            targets=0.1 * v - stiffness * x,
        )

    return Splits(train=some(11, of=100 + seed), validation=some(7, of=200 + seed), tests={"in": some(13, of=0)})


def baselines(tokens: Tokens) -> dict[str, float]:
    return {"no motion": tokens.targets.square().mean().item()}


SPRINGS: Particles[SpringOptions] = Particles(load=load, baselines=baselines, length=2.0)
TASK = ParticleTask(
    name="springs",
    title="Springs",
    options=SpringOptions,
    sizes={"quick": {"n_steps": 20}, "default": {}},
    cases={"soft": "soft springs", "hard": "hard springs"},
    runner=SPRINGS,
    errors=("in", "rotated"),
    error_label="mean squared error",
    tables={"Errors": columns({"in": "in", "rotated": "rotated", "equivariance_norm": "E'", "percent": "percent"})},
)


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if not key.endswith("seconds")}


def a_job(method: str = "plain", *, n_steps: int = 30, seed: int = 3, model: str = "transformer") -> Job:
    return Job(case="soft", model=model, method=method, seed=seed, budgets=("steps",), n_steps=n_steps)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab") / "study"
    options = study_options(TASK, models=["transformer", "egnn"], overrides=["cases=[soft, hard]"])
    return run_study(TASK, options, run_dir=folder, n_jobs=2, command="remul-md study springs --run-dir study")


@pytest.mark.slow
def test_the_results_hold_every_run_and_how_it_was_made(study: Path) -> None:
    content = json.loads(study.read_text())
    assert [(run["case"], run["model"], run["method"]) for run in content["runs"]] == [
        (case, model, method)
        for case in ("soft", "hard")
        for model, method in (("transformer", "plain"), ("transformer", "remul-1"), ("egnn", "plain"))
    ]
    assert content["study"] == "springs"
    assert content["command"] == "remul-md study springs --run-dir study"
    assert content["machine"]["jobs"] == 2
    assert set(content["versions"]) == {"remul_md", "commit", "python", "torch", "numpy"}
    assert content["options"]["n_steps"] == 30
    for run in content["runs"]:
        assert run["n_steps"] == run["history"][-1]["step"] == run["learning"][-1]["step"] == 30
        assert len(run["history"]) >= 3
        assert run["figures"]["in"] > 0
    plain, remul, egnn = content["runs"][:3]
    assert egnn["figures"]["percent"] < 1e-3 < plain["figures"]["percent"]
    assert plain["figures"]["in"] != remul["figures"]["in"]
    assert plain["baselines"] == remul["baselines"]  # the same test systems


@pytest.mark.slow
def test_weights_are_chosen_by_systems_that_are_not_trained_on(study: Path) -> None:
    """The last validation again, from the averaged weights in the checkpoint; lengths are in units of 2."""
    folder, options = study.parent / "soft-transformer-plain-seed3", study_options(TASK)
    validation = load(options, "soft", 3).validation
    model = options.model("transformer", validation, seed=3)
    model.load_state_dict(read_checkpoint(folder / CHECKPOINT)["average"])
    last = read_metrics(folder / METRICS)[-1]
    assert last["validation_mse"] == pytest.approx(4 * learn.mean_squared_error(model, validation), rel=1e-5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(study: Path, tmp_path: Path) -> None:
    """In this process too, whatever was run before in it."""
    again = run_job(TASK, study_options(TASK), a_job("remul-1"), str(tmp_path))
    expected = json.loads((study.parent / "soft-transformer-remul-1-seed3" / "result.json").read_text())
    assert without_times(again) == without_times(expected)
    other = run_job(TASK, study_options(TASK), a_job("remul-1", seed=4), str(tmp_path))
    assert other["figures"]["in"] != again["figures"]["in"]


@pytest.mark.slow
def test_a_study_is_resumed_and_extended_but_not_changed(study: Path) -> None:
    before = study.read_bytes()
    written = (study.parent / "soft-transformer-plain-seed3" / "result.json").stat().st_mtime_ns
    with pytest.raises(InputError, match=r"exists already; go on with it \(--resume\)"):
        run_study(TASK, study_options(TASK), run_dir=study.parent)
    with pytest.raises(InputError, match="other options: n_steps was 30, now 31"):
        run_study(TASK, study_options(TASK, overrides=["n_steps=31"]), run_dir=study.parent, resume=True)
    assert study.read_bytes() == before
    chosen = study_options(TASK, methods=["augmentation", "plain"])
    run_study(TASK, chosen, run_dir=study.parent, resume=True, command="more")
    content = json.loads(study.read_text())
    runs = content["runs"]
    assert content["command"] == "remul-md study springs --run-dir study; more"
    listed = {name: sorted(content["options"][name]) for name in ("cases", "models", "methods", "seeds")}
    assert listed == {name: sorted({run[name.removesuffix("s")] for run in runs}) for name in listed}
    assert len(listed["models"]) == 2  # those of the first call, too
    extended = study.read_bytes()
    for command in ("more", ""):
        run_study(TASK, chosen, run_dir=study.parent, resume=True, command=command)
        assert study.read_bytes() == extended
    assert [run["method"] for run in runs if run["case"] == "soft"] == ["plain", "augmentation", "remul-1", "plain"]
    assert (study.parent / "soft-transformer-plain-seed3" / "result.json").stat().st_mtime_ns == written


def test_overwriting_removes_everything_that_the_study_made(tmp_path: Path) -> None:
    """Labels, too: those of other options would be taken for its own. What the user put there stays."""
    own = (
        *("study.json", "results.json", "costs.json", "labels-1-train.npz", "scenes-1-train.h5"),
        "soft-transformer-plain-seed3/result.json",
    )
    for name in (*own, "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    seen: list[bool] = []

    def prepare(options: SpringOptions, folder: Path, calculator: object) -> None:
        seen.extend((folder / name).exists() for name in (*own[1:], "notes.txt"))
        raise InputError("that will do")

    with pytest.raises(InputError, match="that will do"):
        run_study(replace(TASK, prepare=prepare), study_options(TASK), run_dir=tmp_path, overwrite=True)
    assert seen == [False, False, False, False, False, True]


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, job = study_options(TASK, overrides=["n_steps=300"]), a_job("augmentation", n_steps=300)
    whole = run_job(TASK, options, job, str(tmp_path / "whole"))
    calls, stop_at = 0, 19  # of the 20 validations; after the checkpoint of step 250, before the end
    evaluate = learn.mean_squared_error

    def counted(model: nn.Module, tokens: Tokens) -> float:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise KeyboardInterrupt
        return evaluate(model, tokens)

    monkeypatch.setattr(learn, "mean_squared_error", counted)
    with pytest.raises(KeyboardInterrupt):
        run_job(TASK, options, job, str(tmp_path / "cut"))
    folder = tmp_path / "cut" / job.name
    assert (folder / "checkpoint.pt").exists()
    assert not (folder / "result.json").exists()
    calls, stop_at = 0, 100
    assert without_times(run_job(TASK, options, job, str(tmp_path / "cut"))) == without_times(whole)
    assert calls == 4 + 2  # steps 255, 270, 285 and 300, and the tests: it went on, and did not begin again


@pytest.mark.slow
def test_a_killed_study_gives_the_same_file(tmp_path: Path) -> None:
    """The whole process, in the middle of its second run."""
    script = tmp_path / "study.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_studies_lab import TASK\nfrom remul_md.studies.lab import run_study, study_options\n"
        "if __name__ == '__main__':\n"
        "    options = study_options(TASK, overrides=['n_steps=300'])\n"
        "    run_study(TASK, options, run_dir=sys.argv[1], resume=True)\n"
    )
    cut = tmp_path / "cut"
    process = subprocess.Popen([sys.executable, str(script), str(cut)], stderr=subprocess.DEVNULL)
    second = cut / "soft-transformer-remul-1-seed3"
    try:
        end = time.monotonic() + 60
        while not (second / "checkpoint.pt").exists() and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (second / "result.json").exists()
    assert not (cut / "results.json").exists()
    while True:  # the worker ends with its parent
        try:
            with owned(second, folder=True):
                break
        except InputError:
            time.sleep(0.1)
    options = study_options(TASK, overrides=["n_steps=300"])
    found = json.loads(run_study(TASK, options, run_dir=cut, resume=True).read_text())
    whole = [run_job(TASK, options, job, str(tmp_path / "whole")) for job in planned_jobs(TASK, options)]
    assert [without_times(run) for run in found["runs"]] == [without_times(run) for run in whole]
    assert found["options"] == options.model_dump(mode="json")


def noise(options: SpringOptions, case: str, seed: int) -> Splits:
    """Labels that nothing explains: who learns them does worse on others."""
    splits = load(options, case, seed)

    def shuffled(tokens: Tokens, *, of: int) -> Tokens:
        drawn = torch.randn(tokens.targets.shape, generator=torch.Generator().manual_seed(of))
        return Tokens(**{**vars(tokens), "targets": drawn})

    return Splits(train=shuffled(splits.train, of=5), validation=shuffled(splits.validation, of=6), tests=splits.tests)


@pytest.mark.slow
def test_last_weights_are_those_of_the_last_step(tmp_path: Path) -> None:
    particles: Particles[SpringOptions] = Particles(load=noise, baselines=baselines)
    task, overrides, job = replace(TASK, runner=particles), ["n_steps=120", "learning_rate=0.02"], a_job(n_steps=120)
    best, last = (
        run_job(task, study_options(TASK, overrides=[*overrides, f"weights={which}"]), job, str(tmp_path / which))
        for which in ("best", "last")
    )
    assert best["best_step"] < 120
    assert last["figures"]["train"] < best["figures"]["train"]
    options = study_options(TASK)
    train = noise(options, "soft", 3).train
    model = options.model("transformer", train, seed=3)
    model.load_state_dict(read_checkpoint(tmp_path / "last" / job.name / CHECKPOINT)["average"])
    assert last["figures"]["train"] == pytest.approx(learn.mean_squared_error(model, train), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["remul-gradual", "remul-one-forward", "consistent-1", "recipe"])
def test_the_other_methods_train(method: str, tmp_path: Path) -> None:
    found = run_job(TASK, study_options(TASK, overrides=["n_steps=60"]), a_job(method, n_steps=60), str(tmp_path))
    assert found["history"][-1]["step"] == 60
    rows = read_metrics(tmp_path / a_job(method).name / METRICS)
    if method.startswith("remul"):
        assert rows[-1]["alpha"] + rows[-1]["beta"] == pytest.approx(2.0)
    assert (rows[-1]["beta"] not in (1.0, 10.0)) == (method == "remul-gradual")


def test_models_that_are_symmetric_are_trained_plainly() -> None:
    options = study_options(TASK, models=["egnn", "transformer"], methods=["remul-1", "augmentation"], seeds=[0, 1])
    jobs = planned_jobs(TASK, options)
    assert [(job.model, job.method) for job in jobs if job.seed == 1] == [
        ("egnn", "plain"),
        ("transformer", "remul-1"),
        ("transformer", "augmentation"),
    ]


def test_equal_time_gives_cheap_methods_more_steps_and_runs_nothing_twice() -> None:
    options = study_options(
        TASK,
        models=["transformer", "egnn"],
        methods=["plain", "remul-10", "remul-gradual"],
        seeds=[0, 1],
        overrides=["n_steps=200", "budgets=[steps, time]"],
    )
    seconds = {"plain": 1.0, "remul-10": 1.5, "remul-gradual": 2.0}
    costs = {"soft": {cost_of("transformer", method): value for method, value in seconds.items()}}
    costs["soft"][cost_of("egnn", "plain")] = 3.0
    assert reference_cost(TASK) == cost_of("transformer", "remul-10")
    jobs = planned_jobs(TASK, options, costs=costs)
    assert [(job.model, job.method, job.budgets, job.n_steps) for job in jobs if job.seed == 1] == [
        ("transformer", "plain", ("steps",), 200),
        ("transformer", "plain", ("time",), 300),
        ("transformer", "remul-10", ("steps", "time"), 200),
        ("transformer", "remul-gradual", ("steps",), 200),
        ("transformer", "remul-gradual", ("time",), 150),
        ("egnn", "plain", ("steps",), 200),
        ("egnn", "plain", ("time",), 100),
    ]
    assert len({job.name for job in jobs}) == len(jobs) == 14
    assert equal_time_steps(5000, reference_s=0.1, own_s=1e3) == 10


@pytest.mark.slow
def test_times_are_measured_once_and_the_runs_of_equal_steps_are_kept(tmp_path: Path) -> None:
    for job in planned_jobs(TASK, study_options(TASK)):
        run_job(TASK, study_options(TASK), job, str(tmp_path / "study"))
    plain = tmp_path / "study" / "soft-transformer-plain-seed3" / "result.json"
    before = plain.stat().st_mtime_ns
    both = study_options(TASK, overrides=["budgets=[steps, time]"])
    first = json.loads(run_study(TASK, both, run_dir=tmp_path / "study", resume=True).read_text())
    assert plain.stat().st_mtime_ns == before
    assert [(run["method"], run["budgets"]) for run in first["runs"]] == [
        ("plain", ["steps"]),
        ("plain", ["time"]),
        ("remul-1", ["steps", "time"]),
    ]
    costs = first["seconds_a_step"]["soft"]
    assert set(costs) == {cost_of("transformer", "plain"), cost_of("transformer", "remul-1")}
    again = json.loads(run_study(TASK, both, run_dir=tmp_path / "study", resume=True).read_text())
    assert again == first


def test_every_method_can_be_built_in_every_task_that_knows_it() -> None:
    for name in TASKS:
        task = find_task(name)
        assert task.name == name
        assert set(task.methods) <= METHODS.keys()
        assert set(task.errors) <= {figure for columns in task.tables.values() for figure in columns}
        assert {case for case, _, _ in task.published} <= set(task.cases)
        for size in task.sizes:
            everything = ["cases=" + str([*task.cases]), "device=cpu"]
            options = study_options(task, size=size, methods=task.methods, overrides=everything)
            assert planned_jobs(task, options)
    assert method_options("remul-10-axis", axis=(0.0, 1.0, 0.0)) == {
        "alpha": 1.0,
        "beta": 10.0,
        "axis": (0.0, 1.0, 0.0),
    }
    assert METHODS["remul-0.1"].beta == 0.1
    assert [name for name in METHODS if METHODS[name].beta is not None] == [
        "remul-0.01",
        "remul-0.1",
        "remul-1",
        "remul-10",
        "remul-100",
    ]
    assert "plain-axis" not in ABOUT_AXIS


@pytest.mark.slow
def test_the_worked_example_of_the_guide_runs(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "TASK = ParticleTask(" in block
    ]
    module = types.ModuleType("mytask")
    sys.modules["mytask"] = module  # pydantic looks annotations up there
    try:
        exec(compile(code, "mytask.py", "exec"), module.__dict__)
        small = ["n_steps=10", "width=8", "n_layers=1", "n_heads=2", "n_draws=2", "n_draw_systems=5"]
        options = study_options(module.TASK, size="quick", overrides=small)
        found = [run_job(module.TASK, options, job, str(tmp_path)) for job in planned_jobs(module.TASK, options)]
    finally:
        del sys.modules["mytask"]
    assert [(run["case"], run["method"]) for run in found] == [
        (case, method) for case in ("soft", "hard") for method in ("plain", "augmentation", "remul-1")
    ]
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"study": "mytask", "runs": found}))
    assert "| transformer, REMUL, beta = 1 | 1 | 10 |" in markdown_report(file, task=module.TASK)


def test_the_methods_start_from_the_same_weights() -> None:
    options = study_options(TASK)
    tokens = load(options, "soft", 0).train
    first, second, other = (
        next(options.model(kind, tokens, seed=seed).parameters())
        for kind, seed in (("transformer", 1), ("transformer", 1), ("transformer", 2))
    )
    assert (first == second).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("n_step=10", "key 'n_step' is unknown; did you mean n_steps?"),
        ("methods=[plan]", "method 'plan' is unknown; did you mean plain?"),
        ("methods=[torque]", "method 'torque' is unknown"),  # for conservative forces only
        ("models=[eggn]", "model 'eggn' is unknown; did you mean egnn?"),
        ("cases=[softe]", "case 'softe' is unknown; did you mean soft?"),
        ("methods=[plain, plain]", "methods names something twice"),
        ("seeds=[]", "seeds: Tuple should have at least 1 item"),
        ("batch_size=0", "batch_size: Input should be greater than or equal to 1, got 0"),
        ("n_heads=3", "width must be divisible by n_heads, got 8 and 3"),
        ("n_steps", "--set takes KEY=VALUE such as n_steps=2000, got 'n_steps'"),
        ("seeds=[0", "the value is not valid YAML"),
    ],
)
def test_options_that_cannot_be_are_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[").replace("?", r"\?")):
        study_options(TASK, overrides=[override])


def test_an_unknown_size_or_task_is_told_the_nearest() -> None:
    with pytest.raises(InputError, match="size 'quik' is unknown; did you mean quick"):
        study_options(TASK, size="quik")
    with pytest.raises(InputError, match="task 'nbdy' is unknown; did you mean nbody"):
        find_task("nbdy")


def test_the_sizes_of_the_papers() -> None:
    task = find_task("nbody")
    default, quick, paper = (study_options(task, size=name) for name in ("default", "quick", "paper"))
    assert len(default.methods) == 11
    assert (quick.n_train, quick.width, quick.n_layers) == (100, 128, 4) == (100, default.width, default.n_layers)
    assert len(quick.methods) * len(quick.seeds) == 8
    assert (paper.width, paper.n_layers, paper.n_steps, paper.device) == (384, 10, 50_000, "cuda")
