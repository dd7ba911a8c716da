"""The symmetry monitor: when and on how many frames it measures, its figures against a slow loop, its cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from potentials import random_model
from torch import Tensor

from remul_md.datasets import read_frames
from remul_md.models.transformer import Transformer
from remul_md.structures.batch import Batch, BatchStore, Prediction
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rotations import random_rotations
from remul_md.training.checkpoint import read_metrics
from remul_md.training.config import TrainConfig, validated_config
from remul_md.training.monitor import MONITOR_COLUMNS, SymmetryMonitor, plot_symmetry
from remul_md.training.schedule import (
    MAX_FRAMES,
    MIN_FRAMES,
    MONITOR_DRAWS,
    log_spaced,
    monitored_frames,
    monitored_steps,
    orientations_trained_on,
)
from remul_md.training.train import train_potential

N_FRAMES = 6


def options(**changes: Any) -> TrainConfig:
    return TrainConfig(**({"n_steps": 3000, "batch_size": 4} | changes))


def orientations_measured(config: TrainConfig, *, n_held_out: int = 50) -> int:
    return len(monitored_steps(config)) * monitored_frames(config, n_held_out=n_held_out) * (MONITOR_DRAWS + 1)


def test_log_spaced_steps() -> None:
    assert log_spaced(1000, per_decade=3) == {1, 2, 5, 10, 22, 46, 100, 215, 464, 1000}
    assert log_spaced(700, per_decade=1) == {1, 10, 100, 700}
    assert log_spaced(1, per_decade=6) == {1}


@pytest.mark.parametrize(
    "changes",
    [
        {"n_steps": 12_000, "batch_size": 8},
        {"n_steps": 12_000, "batch_size": 8, "n_rotated": 4},
        {"n_steps": 12_000, "batch_size": 8, "estimator": "one-forward"},
        {"n_steps": 1500},
        {"n_steps": 2000, "alpha": 0.0},
        {"n_steps": 100_000, "batch_size": 64},
        {"n_steps": 400, "batch_size": 8},
    ],
)
def test_less_than_the_share_of_the_orientations_is_measured(changes: dict[str, Any]) -> None:
    config = options(warmup_steps=10, **changes)
    assert 0 < orientations_measured(config) <= 0.05 * orientations_trained_on(config)
    assert config.n_steps in monitored_steps(config)


def test_the_default_run_is_watched_finely() -> None:
    config = TrainConfig()
    # A second orientation in the last fifth of the steps.
    assert orientations_trained_on(config) == config.n_steps * config.batch_size * 12 // 10
    beside = TrainConfig(unlabelled_batch_size=5, n_rotated=3, equivariance_from=0.0)
    assert orientations_trained_on(beside) == beside.n_steps * (beside.batch_size + 5) * 4
    late = TrainConfig(unlabelled_batch_size=5, n_rotated=3, equivariance_from=0.75)  # 9,000 of 12,000 steps
    assert orientations_trained_on(late) == 9_000 * 8 + 3_000 * (8 + 5) * 4
    assert monitored_steps(config) == log_spaced(config.n_steps, per_decade=6)
    assert monitored_frames(config, n_held_out=50) > 2 * MIN_FRAMES
    assert monitored_frames(config, n_held_out=7) == 7
    long = options(n_steps=10**6, batch_size=64)
    assert monitored_frames(long, n_held_out=50) == MAX_FRAMES


def test_a_tiny_run_is_measured_once_and_none_when_switched_off() -> None:
    assert monitored_steps(options(n_steps=9, warmup_steps=1)) == {9}
    assert monitored_steps(options(monitor_per_decade=0)) == frozenset()
    assert len(monitored_steps(options(monitor_share=0.5))) > len(monitored_steps(options(monitor_share=0.02)))


class Shaken:
    """An exactly equivariant part plus a constant vector a (forces) and the x of the first atom (energy)."""

    shift = torch.tensor([0.3, -0.2, 0.6], dtype=torch.float64)

    def __call__(self, batch: Batch, *, forces: str = "none", create_graph: bool = False) -> Prediction:
        first = torch.searchsorted(batch.system_index, torch.arange(batch.n_systems))
        centres = torch.stack([batch.positions[batch.system_index == b].mean(0) for b in range(batch.n_systems)])
        relative = batch.positions - centres[batch.system_index]
        return Prediction(
            system_index=batch.system_index,
            energy=relative[first, 0],
            forces=relative * relative.norm(dim=1, keepdim=True) + self.shift,
        )


@pytest.fixture(scope="module")
def held_out() -> Batch:
    batch = build_batch(read_frames("rmd17/ethanol/train-01").select(range(N_FRAMES)), cutoff=4.5)
    assert batch.energy is not None
    shifted = batch.energy - batch.energy.mean()
    return Batch(**{**batch.__dict__, "energy": shifted})


def drawn(n: int) -> Tensor:
    rotations = random_rotations(MONITOR_DRAWS * n, generator=torch.Generator().manual_seed(2))
    return rotations.view(MONITOR_DRAWS, n, 3, 3)


@pytest.mark.parametrize("forces", ["conservative", "direct", "both"])
def test_figures_are_those_of_a_slow_loop(held_out: Batch, forces: str) -> None:
    model = random_model(cutoff=4.5).double()
    config = options(n_steps=100_000)
    found = SymmetryMonitor(held_out, forces=forces, config=config)(model)  # type: ignore[arg-type]
    assert tuple(sorted(found)) == tuple(sorted(MONITOR_COLUMNS))
    store, rotations = BatchStore(held_out), drawn(N_FRAMES).numpy()
    sums = {"T": 0.0, "s2": 0.0, "energy_T": 0.0, "energy_s2": 0.0}
    lists: dict[str, list[float]] = {
        "rotational_error": [],
        "mean_difference_norm": [],
        "equivariance_norm": [],
        "energy_mean_difference_norm": [],
        "energy_equivariance_norm": [],
    }

    def predict(positions: np.ndarray, single: Batch) -> tuple[np.ndarray, float]:
        batch = Batch(**{**single.__dict__, "positions": torch.from_numpy(positions)})
        out = model(batch, forces=forces)
        head = out.direct_forces if forces == "direct" else out.forces
        return 1000 * head.detach().numpy(), 1000 * out.energy.item()

    for index in range(N_FRAMES):
        single = store.select([index])
        assert single.forces is not None
        assert single.energy is not None
        x, y, e = single.positions.numpy(), 1000 * single.forces.numpy(), 1000 * single.energy.item()
        original, original_energy = predict(x, single)
        back, gaps, energies = [], [], []
        for g in rotations[:, index]:
            rotated, energy = predict(x @ g.T, single)
            back.append(rotated @ g)
            gaps.append(rotated - original @ g.T)
            energies.append(energy)
        s2 = float(np.var(back, axis=0, ddof=1).sum())
        sums["s2"] += s2
        sums["T"] += float(np.square(np.mean(back, axis=0) - y).sum()) - s2 / MONITOR_DRAWS
        lists["rotational_error"].append(float(np.abs(np.array(back) - original).mean()))
        lists["mean_difference_norm"].append(float(np.linalg.norm(np.mean(gaps, axis=0))))
        lists["equivariance_norm"].append(float(np.mean([np.linalg.norm(gap) for gap in gaps])))
        s2 = float(np.var(energies, ddof=1))
        sums["energy_s2"] += s2
        sums["energy_T"] += float(np.mean(energies) - e) ** 2 - s2 / MONITOR_DRAWS
        lists["energy_mean_difference_norm"].append(abs(float(np.mean(energies)) - original_energy))
        lists["energy_equivariance_norm"].append(float(np.mean(np.abs(np.array(energies) - original_energy))))
    n_components, names = N_FRAMES * 9 * 3, ("rotational_error", "mean_difference_norm", "equivariance_norm")
    expected = {
        "forces_T": sums["T"] / n_components,
        "forces_s2": sums["s2"] / n_components,
        "forces_percent": 100 * sums["s2"] / (sums["s2"] + sums["T"]),
        "energy_T": sums["energy_T"] / N_FRAMES,
        "energy_s2": sums["energy_s2"] / N_FRAMES,
        "energy_percent": 100 * sums["energy_s2"] / (sums["energy_s2"] + sums["energy_T"]),
        "energy_rotational_error": np.mean(lists["energy_equivariance_norm"]),
        **{f"forces_{name}": np.mean(lists[name]) for name in names},
        **{name: np.mean(lists[name]) for name in ("energy_mean_difference_norm", "energy_equivariance_norm")},
    }
    assert len(expected) == 12
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name
        if not name.endswith("percent"):
            assert found[f"{name}_low"] < found[name] < found[f"{name}_high"], name
    assert found["forces_mean_difference_norm"] < found["forces_equivariance_norm"]


def test_known_parts_give_the_known_figures(held_out: Batch) -> None:
    """A constant vector a on an equivariant model: s2 = |a|^2 / 3 a component on the average over rotations."""
    found = SymmetryMonitor(held_out, forces="conservative", config=options(n_steps=100_000))(Shaken())  # type: ignore[arg-type]
    expected = 1e6 * float(Shaken.shift.square().sum()) / 3
    # One number for each of 6 frames (all atoms share it): the relative scatter of s2 with K = 8 is about 0.2.
    assert found["forces_s2"] == pytest.approx(expected, rel=0.25)
    assert found["energy_s2"] > 0.1 * 1e6 * 0.5**2
    watch = SymmetryMonitor(held_out, forces="conservative", config=options(n_steps=100_000), axis=(0.3, -0.2, 0.6))
    along = watch(Shaken())  # type: ignore[arg-type]
    assert along["forces_s2"] < 1e-20 * expected  # rotated about a itself, a stays


class Counted:
    """Atoms that go through the model, with a graph of the weights (training) and without."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained, self.watched = 0, 0
        forward, watch = Transformer.forward, SymmetryMonitor.__call__
        watching = False

        def counted(model: Transformer, batch: Batch, **chosen: Any) -> Prediction:
            if watching:
                self.watched += batch.n_atoms
            elif chosen.get("create_graph"):
                self.trained += batch.n_atoms
            return forward(model, batch, **chosen)

        def watched(monitor: SymmetryMonitor, model: Any) -> dict[str, float]:
            nonlocal watching
            watching = True
            try:
                return watch(monitor, model)
            finally:
                watching = False

        monkeypatch.setattr(Transformer, "forward", counted)
        monkeypatch.setattr(SymmetryMonitor, "__call__", watched)


@pytest.mark.slow
def test_a_run_measures_its_symmetry_for_less_than_a_twentieth_of_its_atoms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    tiny = {"width": 8, "n_layers": 1, "n_heads": 2, "pair_width": 6, "n_radial": 5, "n_tensors": 3}
    train = {"n_steps": 300, "batch_size": 16, "warmup_steps": 5, "validate_every": 300, "device": "cpu"}
    data = {"molecule": "ethanol", "n_train": 40, "n_validation": 20}
    config = validated_config({"data": data, "model": tiny, "train": train | {"forces": "direct"}}, origin="test")
    train_potential(config, run_dir=tmp_path, progress=False)
    assert counted.trained == 16 * 9 * (240 + 60 * 2)  # a second orientation in the last fifth of 300 steps
    assert 0.02 * counted.trained < counted.watched <= 0.05 * counted.trained
    rows = read_metrics(tmp_path / "symmetry.csv")
    assert [row["step"] for row in rows] == sorted(monitored_steps(config.train))
    assert len(rows) > 4
    assert all(set(row) == {"step", *MONITOR_COLUMNS} for row in rows)
    assert (tmp_path / "symmetry.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tensorboard" / "symmetry").iterdir())
    gradients = [row for row in read_metrics(tmp_path / "metrics.csv") if "gradient_cosine" in row]
    assert 1 <= len(gradients) <= len(rows)
    for row in gradients:
        assert -1 <= row["gradient_cosine"] <= 1
        assert row["task_grad_norm"] > 0
        assert row["equivariance_grad_norm"] > 0


def test_the_picture_has_log_axes_and_the_line_of_two_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    names = ["step", *MONITOR_COLUMNS]
    lines = [",".join(names)]
    for step in (1, 10, 100):
        lines.append(",".join([str(step), *(str(50.0 / step) for _ in MONITOR_COLUMNS)]))
    (tmp_path / "symmetry.csv").write_text("\n".join(lines) + "\n")
    drawn_figures = []
    save = Figure.savefig

    def kept(figure: Figure, *arguments: Any, **chosen: Any) -> None:
        drawn_figures.append(figure)
        save(figure, *arguments, **chosen)

    monkeypatch.setattr(Figure, "savefig", kept)
    plot_symmetry(tmp_path / "symmetry.csv", tmp_path / "symmetry.png")
    left, right = drawn_figures[0].axes
    assert {panel.get_xscale() for panel in (left, right)} == {panel.get_yscale() for panel in (left, right)} == {"log"}
    heights = [np.asarray(line.get_ydata()).tolist() for line in left.lines]
    assert [2.0, 2.0] in heights
    assert [50.0, 5.0, 0.5] in heights
