"""The study itself: every method with every seed, each in a folder of its own, in parallel; then one file of
results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from remul_md.files import owned
from remul_md.potentials.potential import resolve_device
from remul_md.studies.jobs import (
    RESULT,
    RESULTS,
    fingerprint_of,
    finished_result,
    prepare_study,
    run_jobs,
    write_json,
)
from remul_md.studies.nbody.generator import Splits, baseline_errors, make_splits
from remul_md.studies.nbody.methods import METHODS, NBodyConfig
from remul_md.studies.nbody.models import BodyTransformer, Egnn
from remul_md.studies.nbody.task import (
    SYMMETRY_FIGURES,
    NBodyObjective,
    mean_squared_error,
    symmetry_figures,
)
from remul_md.studies.record import provenance
from remul_md.training.checkpoint import METRICS, SYMMETRY, read_metrics
from remul_md.training.fit import CHECKPOINT, fit

RUN_NAMES = (RESULT, METRICS, SYMMETRY, CHECKPOINT, "tensorboard")
PERCENT_DRAWS = 8
N_WATCHED = 200  # validation systems whose symmetry is followed during training


def run_study(
    config: NBodyConfig,
    run_dir: str | Path,
    *,
    n_jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
) -> Path:
    """Run what is not yet done of the study and write `run_dir/results.json`; returns its path.

    Args:
        config: all options.
        run_dir: folder of the study; one folder in it for each method and seed.
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
        prepare_study(folder, _decisive(config), run_names=RUN_NAMES, resume=resume, overwrite=overwrite)
        jobs = {
            f"{method}-seed{seed}": (config, method, seed, str(folder))
            for method in config.methods
            for seed in config.seeds
        }
        results = run_jobs(run_method, jobs, n_jobs=n_jobs, report=_line)
        content = {
            "study": "nbody",
            **provenance(command, n_jobs=n_jobs),
            "config": config.model_dump(mode="json"),
            "runs": list(results.values()),
        }
        write_json(folder / RESULTS, content)
    return folder / RESULTS


def run_method(config: NBodyConfig, method: str, seed: int, study_dir: str) -> dict[str, Any]:
    """Train and test one method with one seed, or read what an earlier call found.

    Returns:
        Errors, symmetry figures and their course over the steps, as JSON-able values.
    Raises:
        InputError: see `fit`.
    """
    folder = Path(study_dir) / f"{method}-seed{seed}"
    with owned(folder, folder=True):
        return _run_method(config, method, seed, folder)


def _run_method(config: NBodyConfig, method: str, seed: int, folder: Path) -> dict[str, Any]:
    fingerprint = fingerprint_of(_decisive(config), method, seed)
    if (done := finished_result(folder, fingerprint)) is not None:
        return done
    options, device = config.train_config(method, seed=seed), resolve_device(config.device)
    splits = make_splits(
        n_train=config.n_train,
        n_validation=config.n_validation,
        n_test=config.n_test,
        law=config.orientations,
        seed=seed,
    )
    model = build_method_model(config, method, seed=seed).to(device)
    validation = splits.validation.to(device)
    watched = validation.select(slice(N_WATCHED))

    def validate(candidate: nn.Module) -> dict[str, float]:
        # In the training orientations: weights must not be chosen by the orientations a run is tested in.
        error = mean_squared_error(candidate, validation)
        return {"validation_mse": error, "score": error}

    result = fit(
        model,
        splits.train.to(device),
        objective=NBodyObjective.from_config(options),
        validate=validate,
        validation_columns=("validation_mse",),
        monitor=lambda candidate: symmetry_figures(candidate, watched, n_draws=PERCENT_DRAWS),
        monitor_columns=SYMMETRY_FIGURES,
        config=options,
        run_dir=folder,
        fingerprint=fingerprint,
        resume=True,
        progress=False,
    )
    started = time.perf_counter()
    found = {
        "fingerprint": fingerprint,
        "method": method,
        "seed": seed,
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "best_step": result.best_step,
        "last_step": result.last_step,
        "train_seconds": round(result.seconds, 1),
        **evaluate_method(result.model, splits, config),
        "history": read_metrics(folder / SYMMETRY),
    }
    found["test_seconds"] = round(time.perf_counter() - started, 1)
    write_json(folder / RESULT, found)
    return found


def build_method_model(config: NBodyConfig, method: str, *, seed: int) -> nn.Module:
    """The untrained model of a method; the same seed gives all transformer methods the same weights to start from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Egnn(config.egnn()) if METHODS[method].model == "egnn" else BodyTransformer(config.transformer())


def evaluate_method(model: nn.Module, splits: Splits, config: NBodyConfig) -> dict[str, Any]:
    """Errors on both test sets beside the baselines, and the symmetry figures on the in-distribution one."""
    device = next(model.parameters()).device
    near, far = splits.in_distribution.to(device), splits.out_of_distribution.to(device)
    figures = symmetry_figures(model, near, n_draws=PERCENT_DRAWS)
    drawn = symmetry_figures(model, near.select(slice(config.n_draw_systems)), n_draws=config.n_draws, seed=1)
    return {
        "train_mse": mean_squared_error(model, splits.train.to(device)),
        "id_mse": mean_squared_error(model, near),
        "ood_mse": mean_squared_error(model, far),
        "baselines": baseline_errors(near),
        **figures,
        "equivariance_norm": drawn["equivariance_norm"],
    }


def _decisive(config: NBodyConfig) -> dict[str, Any]:
    """Options that decide a run's numbers; methods and seeds can be added to a study that has begun."""
    return config.model_dump(mode="json", exclude={"methods", "seeds"})


def _line(name: str, result: dict[str, Any]) -> str:
    return (
        f"{name}: error x 1e-3 {1e3 * result['id_mse']:.2f} in distribution, {1e3 * result['ood_mse']:.2f} outside, "
        f"{result['percent']:.2g} % due to symmetry, {result['train_seconds']:.0f} s of training"
    )
