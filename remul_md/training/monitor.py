"""Symmetry in the course of a training: T, s2, percent, rotational error, E and E' at log-spaced steps.

Measured on held-out frames.

The orientations are drawn once, so that the curves of a run are paired, and independently of each other, as the
estimators of `remul_md.symmetry.measures` need. What is measured are the averaged weights, those that validation sees.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.models import Forces
from remul_md.structures.batch import Batch, BatchStore
from remul_md.symmetry.measures import bootstrap_interval, equivariance_percent, twirl_statistics
from remul_md.symmetry.rotations import random_rotations, rotate_vectors, rotated_copies
from remul_md.training.checkpoint import read_metrics
from remul_md.training.config import TrainConfig
from remul_md.training.schedule import MONITOR_DRAWS, monitored_frames
from remul_md.training.validation import MAX_ATOMS

CLAIM_PERCENT = 2.0  # reached within 1k to 10k steps according to Shen et al. (2025), arXiv:2512.02303
FIGURES = ("percent", "T", "s2", "rotational_error", "mean_difference_norm", "equivariance_norm")
MONITOR_COLUMNS = tuple(
    f"{output}_{figure}{end}" for output in ("forces", "energy") for figure in FIGURES for end in ("", "_low", "_high")
)


class SymmetryMonitor:
    """The figures of `MONITOR_COLUMNS`; state lives here because frames and orientations are chosen once.

    Forces in meV/Angstrom: T and s2 as means over components, (meV/Angstrom)^2; the rotational error as mean
    absolute component; E and E' as norms over all components of a frame. Energy in meV. Each with a 95 % bootstrap
    interval over frames.

    Args:
        batch: held-out frames with residual energies, on the model's device.
        forces: the trained head; with "both" the conservative one counts.
        config: how many frames, and where orientations are drawn from: Haar on SO(3), or about training's own axis.
        seed: of frames and orientations.
    """

    def __init__(self, batch: Batch, *, forces: Forces, config: TrainConfig, seed: int = 2) -> None:
        n_frames = monitored_frames(config, n_held_out=batch.n_systems)
        self._batch = BatchStore(batch).select(np.arange(n_frames))
        self._forces: Forces = "conservative" if forces == "both" else forces
        generator, n = torch.Generator().manual_seed(seed), MONITOR_DRAWS * n_frames
        drawn = random_rotations(n, generator=generator, group="SO3", axis=config.axis)
        identity = torch.eye(3, dtype=drawn.dtype).expand(1, n_frames, 3, 3)
        orientations = torch.cat([identity, drawn.view(MONITOR_DRAWS, n_frames, 3, 3)]).to(batch.positions.device)
        self._orientations = orientations
        self._passes = [
            rotated_copies(self._batch, part) for part in orientations.split(max(1, MAX_ATOMS // self._batch.n_atoms))
        ]

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """All figures of the model as it is."""
        forces, energies = [], []
        with torch.no_grad():
            for batch in self._passes:
                out = model(batch, forces=self._forces)
                forces.append((out.forces if out.forces is not None else out.direct_forces).detach())
                energies.append(out.energy.detach())
        n_orientations, index = len(self._orientations), self._batch.system_index
        forces_GA3 = 1000.0 * torch.cat(forces).double().view(n_orientations, -1, 3)
        energy_GB1 = 1000.0 * torch.cat(energies).double().view(n_orientations, -1, 1)
        assert self._batch.forces is not None
        assert self._batch.energy is not None
        rotated_original = torch.stack(
            [rotate_vectors(forces_GA3[0], g, system_index=index) for g in self._orientations[1:]]
        )
        back = torch.stack(
            [
                rotate_vectors(f, g.mT, system_index=index)
                for f, g in zip(forces_GA3[1:], self._orientations[1:], strict=True)
            ]
        )
        figures = _figures(
            "forces", back, forces_GA3[1:], rotated_original, 1000.0 * self._batch.forces.double(), index
        )
        original_energy = energy_GB1[:1].expand(MONITOR_DRAWS, -1, 1)
        labels = 1000.0 * self._batch.energy.double().unsqueeze(1)
        systems = torch.arange(self._batch.n_systems, device=index.device)
        return figures | _figures("energy", energy_GB1[1:], energy_GB1[1:], original_energy, labels, systems)


def _figures(
    output: str, back: Tensor, rotated: Tensor, rotated_original: Tensor, labels: Tensor, system_index: Tensor
) -> dict[str, float]:
    """Figures of one output from rows of atoms or systems: f_k, f(g x), g f(x), each [K, rows, C]; labels [rows, C]."""
    n_systems = int(system_index[-1]) + 1

    def of_systems(values: Tensor) -> Tensor:
        return values.new_zeros(n_systems).index_add(0, system_index, values)

    def norms(gaps: Tensor) -> Tensor:  # [K, rows, C] -> [K, B]
        squares = gaps.square().sum(2)
        return squares.new_zeros(len(gaps), n_systems).index_add(1, system_index, squares).sqrt()

    twirled_rows, spread_rows = twirl_statistics(back, labels)
    gaps = rotated - rotated_original
    counts = of_systems(torch.ones_like(spread_rows)) * labels.shape[1]
    twirled, spread = of_systems(twirled_rows), of_systems(spread_rows)
    # Means over all components are ratios of sums over frames: with unlike frames their weights are the sizes.
    share = n_systems * counts / counts.sum()
    # E and E': Elhag et al. (2024), arXiv:2410.17878, eq. (8) and (9). E is the norm of the difference between the
    # means over draws of f(g x) and g f(x); what cancels in the mean does not show, so E <= E'.
    values = {
        "T": twirled / counts * share,
        "s2": spread / counts * share,
        "rotational_error": of_systems(gaps.abs().mean(0).sum(1)) / counts * share,
        "mean_difference_norm": norms(gaps.mean(0, keepdim=True))[0],
        "equivariance_norm": norms(gaps).mean(0),
    }
    percent = equivariance_percent(twirled.cpu().numpy(), spread.cpu().numpy())
    found = {"percent": percent.value, "percent_low": percent.low, "percent_high": percent.high}
    for name, tensor in values.items():
        array = tensor.cpu().numpy()
        low, high = bootstrap_interval(array)
        found |= {name: float(array.mean()), f"{name}_low": low, f"{name}_high": high}
    return {f"{output}_{name}": value for name, value in found.items()}


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
        low, middle, high = ([row[f"{output}_percent{end}"] for row in rows] for end in ("_low", "", "_high"))
        left.plot(steps, middle, color=colour, marker=".", label=output)
        left.fill_between(steps, low, high, color=colour, alpha=0.25, linewidth=0)
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
    try:
        figure.savefig(png_path, dpi=130)
    except OSError as error:
        raise InputError(f"{png_path}: cannot be written ({error}); free space or choose another folder") from error
