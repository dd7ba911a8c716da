"""Loss surfaces on losses whose surface and curvature are known, and a small run from training to picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import loss_surfaces
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from remul_md.studies.lab import Job, study_options
from remul_md.studies.tasks import find_task

CURVATURES = torch.tensor([9.0, 4.0, 1.0, 0.5, -2.0, 0.0, 0.0], dtype=torch.float64)


class Point(nn.Module):
    """Seven weights in a matrix and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[0.3, -0.4], [1.2, 0.5]], dtype=torch.float64))
        self.vector = nn.Parameter(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))

    @property
    def weights(self) -> Tensor:
        return torch.cat([self.matrix.flatten(), self.vector])


def rotated_quadratic() -> tuple[Tensor, Any]:
    """A Hessian with these eigenvalues in a drawn basis, and the loss whose Hessian it is."""
    drawn = torch.randn(7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    basis = torch.linalg.qr(drawn).Q
    hessian = basis @ CURVATURES.diag() @ basis.T
    return hessian, lambda model: 0.5 * model.weights @ hessian @ model.weights + model.weights.sum()


def test_the_largest_eigenvalues_of_a_quadratic() -> None:
    _, loss = rotated_quadratic()
    assert loss_surfaces.top_eigenvalues(Point(), loss, n_steps=7) == pytest.approx([9.0, 4.0, 1.0], abs=1e-9)
    fewer = loss_surfaces.top_eigenvalues(Point(), loss, n_steps=4)[0]
    assert 8.0 < fewer <= 9.0 + 1e-12
    # A Hessian of rank one ends the steps early.
    found = loss_surfaces.top_eigenvalues(Point(), lambda model: model.weights.sum().square(), n_steps=7)
    assert found[0] == pytest.approx(14)


def test_directions_have_the_lengths_of_the_rows() -> None:
    parameters = [*Point().parameters()]
    first, second = (loss_surfaces.filter_normalised(parameters, seed=seed) for seed in (1, 2))
    assert first[0].norm(dim=1).tolist() == pytest.approx([0.5, 1.3])
    assert first[1].abs().sum() == 0
    assert not torch.allclose(first[0], second[0])


def test_the_surface_of_a_quadratic() -> None:
    hessian, loss = rotated_quadratic()
    model = Point()
    before = model.weights.detach().clone()
    directions = [loss_surfaces.filter_normalised([*model.parameters()], seed=seed) for seed in (1, 2)]
    steps = np.array([-1.0, 0.0, 0.7])
    found = loss_surfaces.surface(model, loss, directions, steps)
    one, other = (torch.cat([part.flatten() for part in direction]) for direction in directions)
    for i, first in enumerate(steps):
        for j, second in enumerate(steps):
            at = before + first * one + second * other
            assert found[i, j] == pytest.approx((0.5 * at @ hessian @ at + at.sum()).item(), abs=1e-12)
    assert torch.equal(model.weights, before)


@pytest.mark.slow
def test_a_small_run_trains_looks_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["n_steps=10", "n_train=9", "n_validation=5", "n_test=5", "n_draws=2", "n_draw_systems=2", "gatr_layers=1"]
    small += ["width=8", "n_layers=1", "n_heads=2", "gatr_channels=2", "gatr_scalars=4", "batch_size=4"]
    places = [("--run-dir", "runs"), ("--json", "surfaces.json"), ("--plot", "surfaces.png")]
    given = [part for flag, name in places for part in (flag, str(tmp_path / name))]
    line = [
        "loss_surfaces",
        "--task",
        "charged",
        "--runs",
        "remul",
        "gatr",
        "--seeds",
        "0",
        "1",
        "--points",
        "5",
        "--lanczos",
        "4",
        "--set",
        *small,
        *given,
    ]
    monkeypatch.setattr("sys.argv", line)
    loss_surfaces.main()
    content = json.loads((tmp_path / "surfaces.json").read_text())
    assert str(tmp_path) not in json.dumps(content)
    assert (content["task"], content["case"]) == ("charged", "charged")
    assert content["grid"] == [-1, -0.5, 0, 0.5, 1]
    for row in content["runs"].values():
        for kind in ("task", "equivariance"):
            assert row[kind]["surface"][2][2] == pytest.approx(row[kind]["at_the_minimum"], rel=1e-4)
            assert np.diff(row[kind]["top_eigenvalues"]).max() <= 0
            other = row["other_seeds"]["1"][kind]
            assert other["at_the_minimum"] != pytest.approx(row[kind]["at_the_minimum"], rel=1e-4)
            assert other["top_eigenvalues"][0] != pytest.approx(row[kind]["top_eigenvalues"][0], rel=1e-4)
    exact, taught = content["runs"]["gatr"], content["runs"]["remul"]
    # The same loss in every orientation, where the symmetry is built in.
    assert exact["task"]["surface"][0] == pytest.approx(exact["equivariance"]["surface"][0], rel=1e-3)
    assert taught["task"]["surface"][0] != pytest.approx(taught["equivariance"]["surface"][0], rel=1e-3)
    assert (tmp_path / "surfaces.png").stat().st_size > 10_000


def test_a_run_of_another_training_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """What is measured afterwards may differ, and so may options that the older study did not have."""
    options = study_options(find_task("nbody"), overrides=["width=16"])
    job = Job(case="limited", model="egnn", method="plain", seed=0, budgets=("steps",), n_steps=options.n_steps)
    assert not loss_surfaces.holds_run(tmp_path, job, options)
    (tmp_path / job.name).mkdir()
    (tmp_path / job.name / "result.json").write_text("{}")
    known = {"task": "nbody", **options.decisive}
    del known["gatr_layers"]
    for changed, same in (({"n_test": 7}, True), ({"width": 24}, False), ({"n_train": 99}, False), ({}, True)):
        (tmp_path / "study.json").write_text(json.dumps(known | changed))
        assert loss_surfaces.holds_run(tmp_path, job, options) == same
    assert not loss_surfaces.holds_run(tmp_path, replace(job, model="gatr"), options)
