"""The study end to end at a tiny size: parallel runs, resumption, refusals, and the same numbers again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from remul_md.errors import InputError
from remul_md.studies.jobs import run_jobs
from remul_md.studies.nbody import run
from remul_md.studies.nbody.generator import Bodies, make_splits
from remul_md.studies.nbody.methods import METHODS, NBodyConfig, nbody_config
from remul_md.studies.nbody.run import build_method_model, run_method, run_study
from remul_md.training.checkpoint import METRICS, read_checkpoint, read_metrics
from remul_md.training.fit import CHECKPOINT
from remul_md.training.schedule import monitored_steps

pytestmark = pytest.mark.slow

TINY = [
    "width=8",
    "n_layers=1",
    "n_heads=2",
    "egnn_width=6",
    "egnn_layers=2",
    "batch_size=5",
    "n_train=11",
    "n_validation=7",
    "n_test=13",
    "n_draws=3",
    "n_draw_systems=4",
]


def tiny(*overrides: str) -> NBodyConfig:
    return nbody_config(overrides=[*TINY, *overrides])


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in result["history"]]
    return {**{k: v for k, v in result.items() if not k.endswith("seconds")}, "history": history}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nbody") / "study"
    config = tiny("n_steps=30", "methods=[plain, remul-1, egnn]", "seeds=[3]")
    return run_study(config, folder, n_jobs=2, command="remul-md study nbody --run-dir study")


def test_the_results_hold_every_run_and_how_it_was_made(study: Path) -> None:
    content = json.loads(study.read_text())
    assert [run["method"] for run in content["runs"]] == ["plain", "remul-1", "egnn"]
    assert content["command"] == "remul-md study nbody --run-dir study"
    assert content["machine"]["cores"] >= 1
    assert content["machine"]["jobs"] == 2
    assert set(content["versions"]) == {"remul_md", "commit", "python", "torch", "numpy"}
    assert content["config"]["n_steps"] == 30
    for found in content["runs"]:
        assert found["last_step"] == 30
        assert 0 < found["id_mse"] < 1
        config = tiny("n_steps=30").train_config(found["method"], seed=3)
        assert [row["step"] for row in found["history"]] == sorted(monitored_steps(config))
        assert len(found["history"]) >= 3
    plain, remul, egnn = content["runs"]
    assert egnn["percent"] < 1e-3 < plain["percent"]
    assert egnn["id_mse"] == pytest.approx(egnn["ood_mse"], rel=1e-3)  # the same systems in other orientations
    assert plain["id_mse"] != remul["id_mse"]
    assert plain["baselines"] == remul["baselines"]  # the same test systems


def test_weights_are_chosen_by_systems_that_are_not_trained_on(study: Path) -> None:
    """The last validation again, from the averaged weights in the checkpoint."""
    config, folder = tiny("n_steps=30"), study.parent / "plain-seed3"
    model = build_method_model(config, "plain", seed=3)
    model.load_state_dict(read_checkpoint(folder / CHECKPOINT)["average"])
    splits = make_splits(n_train=11, n_validation=7, n_test=13, law="limited", seed=3)
    last = read_metrics(folder / METRICS)[-1]
    assert last["validation_mse"] == pytest.approx(run.mean_squared_error(model, splits.validation), rel=1e-5)


def test_the_same_seed_gives_the_same_numbers(study: Path, tmp_path: Path) -> None:
    """In this process too, whatever was run before in it."""
    again = run_method(tiny("n_steps=30"), "remul-1", 3, str(tmp_path))
    expected = json.loads((study.parent / "remul-1-seed3" / "result.json").read_text())
    assert without_times(again) == without_times(expected)


def test_a_study_is_resumed_and_extended_but_not_changed(study: Path) -> None:
    before = study.read_bytes()
    written = (study.parent / "plain-seed3" / "result.json").stat().st_mtime_ns
    with pytest.raises(InputError, match="exists already; go on with it \\(--resume\\)"):
        run_study(tiny("n_steps=30", "methods=[plain]", "seeds=[3]"), study.parent)
    with pytest.raises(InputError, match="other options: n_steps was 30, now 31"):
        run_study(tiny("n_steps=31", "methods=[plain]", "seeds=[3]"), study.parent, resume=True)
    assert study.read_bytes() == before
    run_study(tiny("n_steps=30", "methods=[augmentation, plain]", "seeds=[3]"), study.parent, resume=True)
    runs = json.loads(study.read_text())["runs"]
    assert [(run["method"], run["seed"]) for run in runs] == [("augmentation", 3), ("plain", 3)]
    assert (study.parent / "plain-seed3" / "result.json").stat().st_mtime_ns == written


def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny("n_steps=300")
    whole = run_method(config, "augmentation", 0, str(tmp_path / "whole"))
    calls, stop_at = 0, 19  # of the 20 validations; after the checkpoint of step 250, before the end
    evaluate = run.mean_squared_error

    def counted(model: nn.Module, bodies: Bodies) -> float:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise KeyboardInterrupt
        return evaluate(model, bodies)

    monkeypatch.setattr(run, "mean_squared_error", counted)
    with pytest.raises(KeyboardInterrupt):
        run_method(config, "augmentation", 0, str(tmp_path / "cut"))
    folder = tmp_path / "cut" / "augmentation-seed0"
    assert (folder / "checkpoint.pt").exists()
    assert not (folder / "result.json").exists()
    calls, stop_at = 0, 100
    assert without_times(run_method(config, "augmentation", 0, str(tmp_path / "cut"))) == without_times(whole)
    assert calls == 4 + 3  # steps 255, 270, 285 and 300, and the tests: it went on, and did not begin again


@pytest.mark.parametrize("method", ["remul-gradual", "remul-one-forward"])
def test_the_other_ways_of_remul_train(method: str, tmp_path: Path) -> None:
    found = run_method(tiny("n_steps=60"), method, 0, str(tmp_path))
    assert found["last_step"] == 60
    rows = read_metrics(tmp_path / f"{method}-seed0" / METRICS)
    assert rows[-1]["alpha"] + rows[-1]["beta"] == pytest.approx(2.0)
    assert (rows[-1]["beta"] != 1.0) == (method == "remul-gradual")


def test_the_transformer_methods_start_from_the_same_weights() -> None:
    first, second, other = (
        build_method_model(tiny(), method, seed=s) for method, s in (("plain", 1), ("remul-10", 1), ("plain", 2))
    )
    weights = [next(model.parameters()) for model in (first, second, other)]
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).any()


def test_the_presets_are_the_sizes_they_name() -> None:
    default, quick, paper = (nbody_config(name) for name in ("default", "quick", "paper"))
    assert set(default.methods) == set(METHODS)
    assert len(default.methods) == 11
    assert (quick.n_train, quick.width, quick.n_layers) == (100, 128, 4) == (100, default.width, default.n_layers)
    assert len(quick.methods) * len(quick.seeds) == 8
    assert (paper.width, paper.n_layers, paper.n_steps, paper.device) == (384, 10, 50_000, "cuda")
    options = default.train_config("remul-0.01", seed=2)
    assert (options.alpha, options.beta, options.group, options.seed) == (1.0, 0.01, "SO3", 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("n_step=10", "unknown key n_step; did you mean n_steps?"),
        ("methods=[plan]", "method 'plan' is unknown; did you mean plain?"),
        ("methods=[plain, plain]", "methods names something twice"),
        ("seeds=[]", "seeds: Tuple should have at least 1 item"),
        ("n_train=0", "n_train: Input should be greater than or equal to 1, got 0"),
        ("n_heads=7", "width must be divisible by n_heads, got 128 and 7"),
        ("n_steps", "--set takes KEY=VALUE such as n_steps=2000, got 'n_steps'"),
        ("seeds=[0", "the value is not valid YAML"),
    ],
)
def test_options_that_cannot_be_are_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[").replace("?", r"\?")):
        nbody_config(overrides=[override])
    with pytest.raises(InputError, match="preset 'fast' is unknown; choose one of default, quick, paper"):
        nbody_config("fast")


def fails_for_two(number: int) -> dict[str, Any]:
    if number == 2:
        raise InputError("the number is 2; give another")
    return {"number": number}


def test_a_job_that_fails_says_why() -> None:
    with pytest.raises(InputError, match="the number is 2; give another"):
        run_jobs(fails_for_two, {"one": (1,), "two": (2,)}, n_jobs=2)
    with pytest.raises(InputError, match="parallel jobs must be >= 1, got 0"):
        run_jobs(fails_for_two, {"one": (1,)}, n_jobs=0)
