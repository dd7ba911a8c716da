"""Which rotations hurt: errors against the angle from the original orientation and against the axis.

The frames of some data sets hardly turn (salicylic acid of rMD17 by 5 degrees), so a model that never saw a rotated
frame looks good on them and is wrong in dynamics: its error is small at angle 0 and grows with the angle.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from remul_md.analysis.drawing import INK, SERIES, drawn_panels
from remul_md.errors import InputError
from remul_md.outputs import save_picture, write_figures
from remul_md.potentials.potential import ForcesChoice, Potential
from remul_md.progress import progress_bar
from remul_md.structures.batch import Batch, BatchStore, Head, Prediction, mapped, sums_of_systems
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.evaluate import in_float64, rotated_back, statistics
from remul_md.symmetry.measures import equivariance_percent
from remul_md.symmetry.rotations import rotations_about
from remul_md.symmetry.turns import POTENTIAL_TURN

ANGLES_DEG = (0.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 150.0, 180.0)
AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}
N_DRAWS = 4  # random axes of each frame and angle; random angles of each frame and axis
MAX_FRAMES = 100
MAX_ATOMS = 8192  # atoms in one pass
PERCENT_LINE = 2.0
SUFFIXES = (".png", ".json")


@dataclass(frozen=True, kw_only=True)
class OrientationErrors:
    """Errors in orientations that are rotated by a given angle, or about a given axis; forces in meV/Angstrom.

    Args:
        n_frames: frames, evenly spread over the data.
        forces: the head.
        seed: of the random axes and angles.
        angles_deg: angles of the turns from the original orientation.
        force_mae: over turns by each angle about axes uniform on the sphere, independent for each frame.
        rotational_error: mean absolute component of f(g x) - g f(x), the same turns.
        percent: equivariance percent over the same turns: what the choice of the axis alone changes.
        axis_force_mae: for each of the axes x, y, z of the original orientation, at each angle (right-handed turns).
        axis_rotational_error: the same.
        axis_percent: equivariance percent over turns by uniform angles about the axis.
    """

    n_frames: int
    forces: str
    seed: int
    angles_deg: list[float]
    force_mae: list[float]
    rotational_error: list[float]
    percent: list[float]
    axis_force_mae: dict[str, list[float]]
    axis_rotational_error: dict[str, list[float]]
    axis_percent: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and strings."""
        return asdict(self)


def orientation_errors(
    potential: Potential,
    frames: Frames,
    *,
    forces: ForcesChoice = "auto",
    angles_deg: tuple[float, ...] = ANGLES_DEG,
    seed: int = 0,
    progress: bool = False,
) -> OrientationErrors:
    """Errors against angle and axis on at most MAX_FRAMES frames.

    Args:
        potential: on any device.
        frames: with forces.
        forces: the head to evaluate; auto is what was trained.
        angles_deg: 0 to 180 degrees.
        seed: of the random axes and angles.
        progress: show a bar.
    Raises:
        InputError: frames without forces, an angle out of range.
    """
    if frames.forces is None:
        raise InputError(f"{frames.name}: has no forces; errors against the angle need them")
    if not angles_deg or not all(0 <= angle <= 180 for angle in angles_deg):
        raise InputError(f"angles_deg must lie between 0 and 180 degrees, got {list(angles_deg)}")
    head = potential.resolve_forces(forces)
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(MAX_FRAMES, len(frames))).round().astype(np.int64))
    store = BatchStore(build_batch(frames.select(chosen), cutoff=potential.cutoff).to(potential.device))
    generator = torch.Generator().manual_seed(seed)
    sets = _orientation_sets(len(store), angles_deg, generator)
    sums = {name: _Sums() for name in sets}
    with progress_bar(total=len(sets), desc="orientations", unit="set", shown=progress) as bar:
        for name, orientations in sets.items():
            at_once = max(1, MAX_ATOMS // int(frames.n_atoms.max()))
            for start in range(0, len(store), at_once):
                rows = np.arange(start, min(start + at_once, len(store)))
                sums[name].add(potential, store.select(rows), orientations[:, rows], head)
            bar.update()
    uniform = [sums[f"{angle:g}"] for angle in angles_deg]
    return OrientationErrors(
        n_frames=len(store),
        forces=head,
        seed=seed,
        angles_deg=list(angles_deg),
        force_mae=[total.force_mae() for total in uniform],
        rotational_error=[total.rotational_error() for total in uniform],
        percent=[total.percent() for total in uniform],
        axis_force_mae={axis: [sums[f"{axis} {angle:g}"].force_mae() for angle in angles_deg] for axis in AXES},
        axis_rotational_error={
            axis: [sums[f"{axis} {angle:g}"].rotational_error() for angle in angles_deg] for axis in AXES
        },
        axis_percent={axis: sums[axis].percent() for axis in AXES},
    )


def _orientation_sets(n_frames: int, angles_deg: tuple[float, ...], generator: torch.Generator) -> dict[str, Tensor]:
    """Rotations [G, n_frames, 3, 3] by the name of what they measure."""
    sets: dict[str, Tensor] = {}
    n = N_DRAWS * n_frames
    for angle in angles_deg:
        axes = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        turns = rotations_about(axes, torch.full((n,), math.radians(angle), dtype=torch.float64))
        sets[f"{angle:g}"] = turns.view(N_DRAWS, n_frames, 3, 3)
    for name, axis in AXES.items():
        direction = torch.tensor([axis], dtype=torch.float64)
        for angle in angles_deg:
            turn = rotations_about(direction, torch.tensor([math.radians(angle)], dtype=torch.float64))
            sets[f"{name} {angle:g}"] = turn.expand(1, n_frames, 3, 3)
        uniform = 2.0 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        sets[name] = rotations_about(direction.expand(n, 3), uniform).view(N_DRAWS, n_frames, 3, 3)
    return sets


class _Sums:
    """Errors of one set of orientations, collected pass by pass; all in meV."""

    def __init__(self) -> None:
        self._absolute, self._rotational, self._components = 0.0, 0.0, 0
        self._twirled: list[Tensor] = []
        self._spread: list[Tensor] = []

    def add(self, potential: Potential, batch: Batch, rotations: Tensor, head: Head) -> None:
        def forces_of(systems: Batch) -> Prediction:
            return mapped(potential.predict(systems, forces=head), in_float64)

        assert batch.forces is not None
        labels_A3, original_A3 = 1000.0 * batch.forces.double(), 1000.0 * forces_of(batch).of_head(head)
        back = rotated_back(forces_of, batch, turn=POTENTIAL_TURN, rotations=rotations.to(potential.device))
        back_KA3 = 1000.0 * torch.stack([out.of_head(head) for out in back])
        self._absolute += float((back_KA3 - labels_A3).abs().sum())
        self._rotational += float((back_KA3 - original_A3).abs().sum())
        self._components += back_KA3.numel()
        if len(back) > 1:
            found = statistics(back_KA3, labels_A3)
            for values, target in ((found.twirled, self._twirled), (found.spread, self._spread)):
                target.append(sums_of_systems(values, batch.system_index, n_systems=batch.n_systems).cpu())

    def force_mae(self) -> float:
        return self._absolute / self._components

    def rotational_error(self) -> float:
        return self._rotational / self._components

    def percent(self) -> float:
        return equivariance_percent(torch.cat(self._twirled).numpy(), torch.cat(self._spread).numpy()).value


def check_orientation_file(path: Path) -> None:
    """Refuse a file whose ending names no known form, before anything is computed.

    Raises:
        InputError: neither .png nor .json.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: errors against the angle are written as {' or '.join(SUFFIXES)}; name it so")


def write_orientation_errors(errors: OrientationErrors, path: Path) -> None:
    """As JSON, or as a picture: force MAE and rotational error against the angle, and percent with the 2 % line.

    Raises:
        InputError: unknown ending, or the file cannot be written.
    """
    check_orientation_file(path)
    if path.suffix == ".json":
        write_figures(path, errors.to_json(), hint="choose another file")
    else:
        _draw(errors, path)


def _draw(errors: OrientationErrors, path: Path) -> None:
    with drawn_panels(2, n_columns=2, inches=(10.0, 4.2)) as (figure, (left, right)):
        any_axis: dict[str, Any] = {"color": INK, "marker": ".", "linewidth": 1.4}
        left.plot(errors.angles_deg, errors.force_mae, label="force MAE, any axis", **any_axis)
        left.plot(errors.angles_deg, errors.rotational_error, "--", label="rotational error, any axis", **any_axis)
        for axis, colour in zip(AXES, SERIES[1:], strict=False):
            look: dict[str, Any] = {"color": colour, "linewidth": 1}
            left.plot(errors.angles_deg, errors.axis_force_mae[axis], label=f"force MAE, {axis}", **look)
            left.plot(errors.angles_deg, errors.axis_rotational_error[axis], "--", **look)
            right.axhline(errors.axis_percent[axis], label=f"all turns about {axis}", **look)
        right.plot(errors.angles_deg, errors.percent, label="turns by this angle, any axis", **any_axis)
        right.axhline(PERCENT_LINE, color=INK, linestyle=":", linewidth=1, label=f"{PERCENT_LINE:g} %")
        left.set(title="errors of the forces", ylabel="meV/Å")
        right.set(title="share of broken symmetry", ylabel="equivariance percent")
        for panel in (left, right):
            panel.set_xlabel("angle from the original orientation (degrees)")
            panel.set_xlim(0.0, 180.0)
            panel.set_xticks(range(0, 181, 30))
            panel.set_ylim(bottom=0.0)
            panel.legend()
        figure.suptitle(f"{errors.forces} forces, {errors.n_frames} frames", fontsize=9.5)
        save_picture(figure, path)
