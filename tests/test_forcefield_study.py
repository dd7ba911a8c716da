"""The study end to end at a tiny size: what is run, what one run stands for, resumption, tables and pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from remul_md.calculators import RemulCalculator
from typer.testing import CliRunner

from remul_md.cli.app import app
from remul_md.errors import InputError
from remul_md.studies.forcefield.methods import METHODS, REFERENCE_COST, ForceFieldConfig, forcefield_config
from remul_md.studies.forcefield.plots import write_plots
from remul_md.studies.forcefield.report import at_step, markdown_report, read_results, summaries
from remul_md.studies.forcefield.run import Job, planned_jobs, run_study, steps_for_equal_time
from remul_md.training.step_cost import step_seconds

pytestmark = pytest.mark.slow

TINY = [
    "molecules=[ethanol]",
    "n_steps=30",
    "n_train=31",
    "n_validation=5",
    "batch_size=3",
    "width=12",
    "n_layers=1",
    "n_heads=3",
    "painn_width=10",
    "n_test=7",
    "n_draws=3",
    "nve_ps=0.02",
    "equilibrate_ps=0.0",
    "temperature_K=1.0",
]
COSTS = {"ethanol": {"one orientation": 1.0, REFERENCE_COST: 1.5, "two orientations, balanced": 2.0, "painn": 3.0}}


def tiny(*overrides: str) -> ForceFieldConfig:
    return forcefield_config(overrides=[*TINY, *overrides])


def without_times(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != "train_seconds"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Equal steps, two methods and a grid of one width and two sizes."""
    folder = tmp_path_factory.mktemp("forcefield") / "study"
    config = tiny(
        "methods=[augmentation, remul-1]",
        "seeds=[3]",
        "budgets=[steps]",
        "grid_methods=[remul-1]",
        "grid_widths=[9]",
        "grid_frames=[13, 22]",
    )
    return run_study(config, folder, calculator=RemulCalculator, command="remul-md study force-field")


def test_the_results_hold_every_run_and_how_it_was_made(study: Path) -> None:
    content = json.loads(study.read_text())
    runs = content["runs"]
    assert [(run["part"], run["method"], run["n_train"]) for run in runs] == [
        ("methods", "augmentation", None),
        ("methods", "remul-1", None),
        ("grid", "remul-1", 13),
        ("grid", "remul-1", 22),
    ]
    assert content["command"] == "remul-md study force-field"
    assert set(content["versions"]) == {"remul_md", "commit", "python", "torch", "numpy"}
    augmentation, remul, small, _ = runs
    assert remul["n_steps"] == 30
    assert remul["history"][-1]["step"] == 30
    assert remul["accuracy"]["n_frames"] == 7
    assert remul["accuracy"]["n_draws"] == 3
    assert remul["accuracy"] != augmentation["accuracy"]
    assert remul["dynamics"]["n_frames"] == 6  # 20 fs, a frame each 3.5 fs, and the first one
    assert remul["dynamics"]["rotational_error"] > 0
    assert small["dynamics"] is None
    assert small["n_parameters"] < remul["n_parameters"]  # 9 wide instead of 12


def test_a_resumed_study_keeps_what_is_done_and_takes_more_methods(study: Path) -> None:
    before = json.loads(study.read_text())["runs"]
    config = tiny("methods=[augmentation-2]", "seeds=[3]", "budgets=[steps]", "grid_widths=[]")
    with pytest.raises(InputError, match="--resume"):
        run_study(config, study.parent, calculator=RemulCalculator)
    with pytest.raises(InputError, match="n_train was 31, now 30"):
        run_study(tiny("n_train=30", "grid_widths=[]"), study.parent, calculator=RemulCalculator, resume=True)
    run_study(config, study.parent, calculator=RemulCalculator, resume=True)
    after = json.loads(study.read_text())["runs"]
    assert [run for run in after if run["method"] != "augmentation-2"] == before
    assert [run["method"] for run in after].count("augmentation-2") == 1


def test_the_same_seed_gives_the_same_numbers(study: Path, tmp_path: Path) -> None:
    config = tiny("methods=[remul-1]", "seeds=[3, 4]", "budgets=[steps]", "grid_widths=[]")
    again = json.loads(run_study(config, tmp_path, calculator=RemulCalculator, n_jobs=2).read_text())["runs"]
    first = next(run for run in json.loads(study.read_text())["runs"] if run["method"] == "remul-1")
    assert without_times(again[0]) == without_times(first)
    assert again[1]["accuracy"]["force_mae_original"] != first["accuracy"]["force_mae_original"]


def test_equal_time_gives_cheap_methods_more_steps_and_runs_nothing_twice() -> None:
    config = tiny("methods=[plain, remul-10, remul-gradual]", "seeds=[0, 1]", "n_steps=200", "grid_widths=[]")
    jobs = planned_jobs(config, COSTS)
    assert [(job.method, job.budgets, job.n_steps) for job in jobs if job.seed == 1] == [
        ("plain", ("steps",), 200),
        ("plain", ("time",), 300),
        ("remul-10", ("steps", "time"), 200),
        ("remul-gradual", ("steps",), 200),
        ("remul-gradual", ("time",), 150),
    ]
    assert len({job.name for job in jobs}) == len(jobs) == 10
    only_time = tiny("methods=[plain, remul-10]", "seeds=[0]", "budgets=[time]", "n_steps=200", "grid_widths=[]")
    assert [job.budgets for job in planned_jobs(only_time, COSTS)] == [("time",), ("time",)]
    assert steps_for_equal_time(5000, reference_s=0.1, own_s=1e3) == 10


def test_a_step_with_two_orientations_costs_more() -> None:
    config = tiny("batch_size=8", "width=48", "n_layers=2", "grid_widths=[]")
    methods = {"one": "augmentation", "two": "augmentation-2", "remul": "remul-1"}
    seconds = step_seconds(
        {name: config.run_config("ethanol", method, seed=0) for name, method in methods.items()}, n_rounds=9
    )
    assert 1.1 < seconds["two"] / seconds["one"] < 3.0
    assert 0.6 < seconds["two"] / seconds["remul"] < 1.6


def test_every_method_can_be_built_and_means_what_its_name_says() -> None:
    config = forcefield_config()
    trained = {name: config.run_config("aspirin", name, seed=2) for name in METHODS}
    assert {run.data.resolved_source for run in trained.values()} == {"rmd17/aspirin/train-01"}
    assert {run.train.n_steps for run in trained.values()} == {10_000}
    assert trained["remul-100"].train.beta == 100.0
    assert trained["augmentation-2"].train.n_rotated == 2
    assert trained["painn"].model.model_dump()["kind"] == "painn"
    orientations = {
        name: (run.train.alpha > 0) + run.train.n_rotated * (run.train.beta > 0)
        if run.train.estimator == "paired"
        else 1
        for name, run in trained.items()
    }
    assert {name for name, n in orientations.items() if n == 2} == {
        name for name, method in METHODS.items() if method.cost.startswith("two orientations")
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("methods=[remul-2]", "did you mean remul-"),
        ("molecules=[etanol]", "did you mean ethanol"),
        ("seeds=[1, 1]", "names something twice"),
        ("widht=64", "did you mean width"),
        ("n_heads=5", "divisible"),
        ("grid_widths=[65]", "divisible"),
        ("nve_ps=0.0001", "shorter than one step"),
        ("n_steps=5", "greater than or equal to 10"),
    ],
)
def test_options_are_refused_before_anything_is_read(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        forcefield_config(overrides=[override])


def test_tables_and_pictures_come_from_the_file_alone(study: Path, tmp_path: Path) -> None:
    content = json.loads(study.read_text())
    base, remul = (
        run for run in content["runs"] if run["method"] in ("augmentation", "remul-1") and run["part"] == "methods"
    )
    base["accuracy"] |= {"rotational_spread": 2.0, "force_mae_rotated": 10.0}
    remul["accuracy"] |= {"rotational_spread": 0.9, "force_mae_rotated": 10.4}
    base["budgets"] = remul["budgets"] = ["steps", "time"]
    worse = {**remul, "method": "remul-10", "accuracy": {**remul["accuracy"], "force_mae_rotated": 10.6}}
    broken = {**remul, "method": "plain", "dynamics": dict.fromkeys(remul["dynamics"])}
    broken["dynamics"] = {**broken["dynamics"], "stopped": {"reason": "x", "phase": "production", "time_ps": 0.5}}
    content["runs"] += [worse, broken]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(content))
    text = markdown_report(file)
    assert "REMUL, beta = 1: 0.45 x the spread and 1.04 x the error of augmentation; the aim" in text
    aims = {line.split(":")[0]: "NOT" in line for line in text.splitlines() if "the aim" in line}
    assert aims == {"- REMUL, beta = 1": False, "- REMUL, beta = 10": True}
    assert "broke at 0.5 ps of production" in text
    assert "| ethanol | REMUL, beta = 1 | 9 |" in text
    names = {path.name for path in write_plots(file, tmp_path / "plots")}
    assert names == {
        "forcefield_ethanol_percent_against_step.png",
        "forcefield_ethanol_trade_off.png",
        "forcefield_ethanol_against_beta.png",
        "forcefield_grid.png",
    }
    assert [method.beta for method in summaries(content, molecule="ethanol", budget="time")] == [None, None, 1.0, 10.0]


def test_the_commands_report_and_refuse(study: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    done = CliRunner().invoke(app, ["study", "force-field-report", str(study), "--markdown", str(table)])
    assert done.exit_code == 0, done.output
    assert table.read_text().partition("\n")[2].strip() == markdown_report(study)
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"study": "nbody", "runs": [{}]}))
    with pytest.raises(InputError, match="no results of the force-field study"):
        read_results(other)
    content = json.loads(study.read_text())
    content["runs"][0]["method"] = "remul-7"
    other.write_text(json.dumps(content))
    with pytest.raises(InputError, match="remul-7 are unknown"):
        read_results(other)


def test_the_step_nearest_on_a_log_axis_is_taken() -> None:
    history = [{"step": float(step), "forces_percent": percent} for step, percent in ((10, 5.0), (90, 3.0), (300, 1.0))]
    assert at_step(history, 100) == 3.0
    assert at_step(history, 10_000) == 1.0
    assert at_step(history, 160) == 3.0  # 160 is 1.8 x 90, and 300 is 1.9 x 160


def test_folders_of_jobs_are_unlike() -> None:
    job = Job(molecule="ethanol", method="plain", seed=0, part="methods", budgets=("steps",), n_steps=10)
    grid = replace(job, part="grid", width=9, n_train=13)
    assert len({job.name, replace(job, budgets=("time",)).name, grid.name, replace(grid, n_train=22).name}) == 4
