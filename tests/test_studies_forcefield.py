"""Force fields as a task, at a tiny size: training, test and dynamics; what the methods are; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from remul_md.calculators import RemulCalculator

from remul_md.errors import InputError
from remul_md.studies.lab import Job, planned_jobs, run_study, study_options
from remul_md.studies.methods import METHODS, TWO
from remul_md.studies.report import markdown_report
from remul_md.studies.tasks.forcefield import TASK, ForceFieldOptions
from remul_md.training.config import RunConfig
from remul_md.training.run_folder import POTENTIAL
from remul_md.training.step_cost import step_seconds

TINY = [
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


def tiny(*overrides: str, **lists: list[Any]) -> ForceFieldOptions:
    given = {"models": ["relaxed"], "seeds": [3], **lists}
    return study_options(TASK, overrides=[*TINY, "cases=[ethanol]", *overrides], **given)  # type: ignore[arg-type]


def config_of(options: ForceFieldOptions, method: str, *, model: str = "relaxed", case: str = "ethanol") -> RunConfig:
    job = Job(case=case, model=model, method=method, seed=2, budgets=("steps",), n_steps=options.n_steps)
    return options.run_config(job, {"molecule": case, "n_train": options.n_train})


def without_times(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != "train_seconds"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forcefield") / "study"
    options = tiny(methods=["augmentation", "remul-1"], models=["relaxed", "painn"])
    return run_study(TASK, options, run_dir=folder, calculator=RemulCalculator)


@pytest.mark.slow
def test_each_run_is_trained_tested_and_moved(study: Path) -> None:
    augmentation, remul, painn = json.loads(study.read_text())["runs"]
    assert [run["method"] for run in (augmentation, remul, painn)] == ["augmentation", "remul-1", "plain"]
    assert remul["history"][-1]["step"] == remul["learning"][-1]["step"] == 30
    assert remul["figures"] != augmentation["figures"]
    assert painn["figures"]["equivariance_percent"] < 1e-6 < remul["figures"]["equivariance_percent"]
    for run in (augmentation, remul, painn):
        figures = run["figures"]
        assert 0 < figures["force_mae_original"] < 2 * run["baselines"]["forces of 0"]
        assert run["baselines"]["forces of 0"] ** 2 < run["zero_error"]
        assert figures["nve"] == "whole"
        assert figures["rotational_error_along"] > 0
        folder = study.parent / f"ethanol-{run['model']}-{run['method']}-seed3"
        assert (folder / POTENTIAL).is_file()
    text = markdown_report(study)
    assert "### ethanol, equal steps" in text
    assert "| relaxed transformer, REMUL, beta = 1 | whole |" in text


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_beside_others(study: Path, tmp_path: Path) -> None:
    options = tiny(methods=["remul-1"], seeds=[3, 4])
    again = json.loads(
        run_study(TASK, options, run_dir=tmp_path / "study", calculator=RemulCalculator, n_jobs=2).read_text()
    )["runs"]
    first = json.loads(study.read_text())["runs"][1]
    assert without_times(again[0]) == without_times(first)
    assert again[1]["figures"]["force_mae_original"] != first["figures"]["force_mae_original"]


@pytest.mark.slow
def test_a_step_with_two_orientations_costs_more() -> None:
    options = tiny("batch_size=8", "width=48", "n_layers=2")
    methods = {"one": "augmentation", "two": "augmentation-2", "remul": "remul-1"}
    seconds = step_seconds({name: config_of(options, method) for name, method in methods.items()}, n_rounds=9)
    assert 1.1 < seconds["two"] / seconds["one"] < 3.0
    assert 0.6 < seconds["two"] / seconds["remul"] < 1.6


def test_every_method_can_be_built_and_means_what_its_name_says() -> None:
    options = study_options(TASK)
    trained = {name: config_of(options, name, case="aspirin") for name in TASK.methods}
    assert {run.data.resolved_source for run in trained.values()} == {"rmd17/aspirin/train-01"}
    assert {run.train.n_steps for run in trained.values()} == {8000}
    assert trained["remul-100"].train.beta == 100.0
    assert trained["augmentation-2"].train.n_rotated == 2
    assert trained["torque"].train.torque_weight == 10.0
    assert trained["recipe"].train.equivariance_from == 0.8
    orientations = {
        name: (run.train.alpha > 0) + run.train.n_rotated * (run.train.beta > 0)
        if run.train.estimator == "paired"
        else 1
        for name, run in trained.items()
    }
    two = {name for name in TASK.methods if METHODS[name].cost.startswith(TWO)}
    assert {name for name, n in orientations.items() if n == 2} == two | {"recipe"}
    kinds = {model: config_of(options, "plain", model=model).model.model_dump() for model in TASK.models}
    assert kinds["painn"]["kind"] == "painn"
    assert (kinds["relaxed"]["symmetry"], kinds["exact"]["symmetry"]) == ("relaxed", "exact")
    jobs = planned_jobs(TASK, tiny(models=["exact", "painn"], methods=["remul-1", "torque"]))
    assert [(job.model, job.method) for job in jobs] == [("exact", "plain"), ("painn", "plain")]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("methods=[remul-2]", "did you mean remul-"),
        ("cases=[etanol]", "did you mean ethanol"),
        ("models=[relax]", "did you mean relaxed"),
        ("widht=64", "did you mean width"),
        ("n_heads=5", "divisible"),
        ("nve_ps=0.0001", "shorter than one step"),
        ("n_steps=5", "greater than or equal to 10"),
    ],
)
def test_options_are_refused_before_anything_is_read(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        study_options(TASK, overrides=[override])


def test_a_study_with_dynamics_needs_a_calculator(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a calculator"):
        run_study(TASK, tiny(), run_dir=tmp_path / "study")
    assert not (tmp_path / "study").exists()
