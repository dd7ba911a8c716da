"""Symmetry in the course of a training: T, s2, percent, rotational error, E and E' at log-spaced steps.

Measured on held-out frames.

The orientations are drawn once, so that the curves of a run are paired, and independently of each other, as the
estimators of `remul_md.symmetry.measures` need. What is measured are the averaged weights, those that validation sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from remul_md.models import Forces
from remul_md.outputs import save_picture
from remul_md.structures.batch import Batch, BatchStore, Head, Prediction, mapped, sums_of_systems
from remul_md.symmetry.evaluate import in_float64, rotated_back, statistics
from remul_md.symmetry.measures import bootstrap_interval, equivariance_percent
from remul_md.symmetry.rotations import random_rotations, rotate_vectors
from remul_md.symmetry.turns import POTENTIAL_TURN
from remul_md.training.checkpoint import read_metrics
from remul_md.training.config import TrainConfig
from remul_md.training.schedule import MONITOR_DRAWS, monitored_frames

CLAIM_PERCENT = 2.0  # reached within 1k to 10k steps according to Shen et al. (2025), arXiv:2512.02303
FIGURES = ("T", "s2", "rotational_error", "mean_difference_norm", "equivariance_norm")
MONITOR_COLUMNS = tuple(
    f"{output}_{column}"
    for output in ("forces", "energy")
    for column in ("percent", *(f"{figure}{end}" for figure in FIGURES for end in ("", "_low", "_high")))
)


class SymmetryMonitor:
    """The figures of `MONITOR_COLUMNS`; state lives here because frames and orientations are chosen once.

    Forces in meV/Angstrom: T and s2 as means over components, (meV/Angstrom)^2; the rotational error as mean
    absolute component; E and E' as norms over all components of a frame. Energy in meV. Each but the percent, which few
    frames decide, with a 95 % bootstrap interval over frames.

    Args:
        batch: held-out frames with residual energies, on the model's device.
        forces: the trained head; with "both" the conservative one counts.
        config: how many frames.
        axis: orientations are Haar on SO(3), or about this axis only.
        seed: of frames and orientations.
    """

    def __init__(
        self,
        batch: Batch,
        *,
        forces: Forces,
        config: TrainConfig,
        axis: Sequence[float] | None = None,
        seed: int = 2,
    ) -> None:
        n_frames = monitored_frames(config, n_held_out=batch.n_systems)
        self._batch = BatchStore(batch).select(np.arange(n_frames))
        self._forces: Forces = "conservative" if forces == "both" else forces
        generator, n = torch.Generator().manual_seed(seed), MONITOR_DRAWS * n_frames
        drawn = random_rotations(n, generator=generator, group="SO3", axis=axis)
        self._rotations = drawn.view(MONITOR_DRAWS, n_frames, 3, 3).to(batch.positions.device)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """All figures of the model as it is."""
        head: Head = "conservative" if self._forces == "conservative" else "direct"
        batch = self._batch
        assert batch.forces is not None
        assert batch.energy is not None

        def predict(systems: Batch) -> Prediction:
            return mapped(model(systems, forces=self._forces), lambda value: in_float64(value.detach()))

        with torch.no_grad():
            original = predict(batch)
            back = rotated_back(predict, batch, turn=POTENTIAL_TURN, rotations=self._rotations)
        energies = torch.stack([out.energy for out in (original, *back) if out.energy is not None]).unsqueeze(2)
        forces = torch.stack([out.of_head(head) for out in (original, *back)])
        systems = torch.arange(batch.n_systems, device=energies.device)
        labels = 1000.0 * batch.forces.double(), 1000.0 * batch.energy.double().unsqueeze(1)
        # E is a norm of means over draws in the frames of the draws, as the paper has it.
        gaps = [
            rotate_vectors(gap, g, system_index=batch.system_index)
            for gap, g in zip(forces[1:] - forces[0], self._rotations, strict=True)
        ]
        mean_gaps = 1000.0 * torch.stack(gaps).mean(0), 1000.0 * (energies[1:] - energies[0]).mean(0)
        return _figures("forces", 1000.0 * forces, labels[0], mean_gaps[0], batch.system_index) | _figures(
            "energy", 1000.0 * energies, labels[1], mean_gaps[1], systems
        )


def _figures(
    output: str, predictions: Tensor, labels: Tensor, mean_gaps: Tensor, system_index: Tensor
) -> dict[str, float]:
    """Figures of one output from rows of atoms or systems.

    f(x) and the f_k, [1 + K, rows, C]; labels [rows, C]; mean over draws of f(g x) - g f(x), [rows, C].
    """
    n_systems = int(system_index[-1]) + 1

    def of_systems(values: Tensor) -> Tensor:
        return sums_of_systems(values, system_index, n_systems=n_systems)

    def norms(gaps: Tensor) -> Tensor:  # [K, rows, C] -> [K, B]
        return torch.stack([of_systems(gap.square().sum(1)) for gap in gaps]).sqrt()

    original, back = predictions[0], predictions[1:]
    found, broken = statistics(back, labels), statistics(back, original)
    counts = of_systems(torch.ones_like(found.spread)) * labels.shape[1]
    twirled, spread = of_systems(found.twirled), of_systems(found.spread)
    # Means over all components are ratios of sums over frames: with unlike frames their weights are the sizes.
    share = n_systems * counts / counts.sum()
    # E and E': Elhag et al. (2024), arXiv:2410.17878, eq. (8) and (9). E is the norm of the difference between the
    # means over draws of f(g x) and g f(x); what cancels in the mean does not show, so E <= E'.
    values = {
        "T": twirled / counts * share,
        "s2": spread / counts * share,
        "rotational_error": of_systems(broken.absolute) * labels.shape[1] / counts * share,
        "mean_difference_norm": norms(mean_gaps.unsqueeze(0))[0],
        "equivariance_norm": norms(back - original).mean(0),
    }
    percent = equivariance_percent(twirled.cpu().numpy(), spread.cpu().numpy())
    figures = {"percent": percent.value}
    for name, tensor in values.items():
        array = tensor.cpu().numpy()
        low, high = bootstrap_interval(array)
        figures |= {name: float(array.mean()), f"{name}_low": low, f"{name}_high": high}
    return {f"{output}_{name}": value for name, value in figures.items()}


def plot_symmetry(csv_path: Path, png_path: Path) -> None:
    """Percent, and the rotational error beside the error of the twirled model, against the step, on log axes.

    Raises:
        InputError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(csv_path)
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    steps = [row["step"] for row in rows]
    for output, colour in (("forces", "tab:blue"), ("energy", "tab:orange")):
        left.plot(steps, [row[f"{output}_percent"] for row in rows], color=colour, marker=".", label=output)
    left.axhline(CLAIM_PERCENT, color="black", linestyle="--", linewidth=0.8)
    # 0.01 of the width from the left, at the height of the line.
    left.text(0.01, CLAIM_PERCENT * 1.06, f"{CLAIM_PERCENT:g} %", fontsize=8, transform=left.get_yaxis_transform())
    left.set(xscale="log", yscale="log", xlabel="step", ylabel="equivariance percent", title="share of broken symmetry")
    left.legend(frameon=False)
    right.plot(steps, [row["forces_s2"] ** 0.5 for row in rows], color="tab:blue", marker=".", label="spread s")
    twirled = [max(row["forces_T"], 0.0) ** 0.5 for row in rows]
    right.plot(steps, twirled, color="tab:gray", marker=".", label="error of the twirled model, root T")
    right.set(xscale="log", yscale="log", xlabel="step", ylabel="meV/Angstrom a component", title="forces")
    right.legend(frameon=False)
    save_picture(figure, png_path)
