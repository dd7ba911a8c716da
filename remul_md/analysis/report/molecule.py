"""What the 3D view of a report shows: some frames of the run, and the rotational error of each atom in some of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.trajectory import TrajectoryAnalysis
from remul_md.errors import InputError
from remul_md.structures.topology import BOND_SCALE

if TYPE_CHECKING:
    from remul_md.dynamics.trajectory import TrajectoryArrays

MAX_FRAMES = 500  # the slider of a phone resolves no more
MAX_PLACES = 40_000  # atoms times frames: about 0.8 MB of text
MAX_ATOMS = 2000  # a canvas draws that at once


@dataclass(frozen=True, kw_only=True, eq=False)
class MoleculeView:
    """Some frames of a run. Letters: V frames shown, E of them rotated at random, N atoms.

    Args:
        symbols: of the atoms, N.
        radii_A: covalent radii, [N], Angstrom.
        frames: numbers of the frames in the run, ascending, [V].
        time_ps: of them, [V].
        positions: about the mean position of each frame, [V, N, 3], Angstrom.
        tested: places in `frames` of those that were rotated at random, ascending, [E].
        atom_error_meV_per_A: rotational error of each atom in those, [E, N]; [0, N] if none was rotated.
        n_frames: of the run.
    """

    symbols: tuple[str, ...]
    radii_A: NDArray[np.float64]
    frames: NDArray[np.int64]
    time_ps: NDArray[np.float64]
    positions: NDArray[np.float64]
    tested: NDArray[np.int64]
    atom_error_meV_per_A: NDArray[np.float64]
    n_frames: int

    @property
    def thinned(self) -> str:
        """What was left out; empty if nothing was."""
        if len(self.frames) == self.n_frames:
            return ""
        return f"Thinned to {len(self.frames):,} of {self.n_frames:,} frames."

    def to_json(self) -> dict[str, Any]:
        """Plain lists; positions to 0.01 Angstrom, which is less than a pixel."""
        return {
            "symbols": list(self.symbols),
            "radii_A": self.radii_A.tolist(),
            "bond_scale": BOND_SCALE,
            "frames": self.frames.tolist(),
            "time_ps": [round(float(time), 6) for time in self.time_ps],
            "positions_A": np.round(self.positions, 2).tolist(),
            "tested": self.tested.tolist(),
            "atom_error_meV_per_A": [[float(f"{x:.4g}") for x in row] for row in self.atom_error_meV_per_A],
            "first_view": np.round(first_view(self.positions[0]), 6).tolist(),
            "n_frames": self.n_frames,
            "thinned": self.thinned,
        }


def molecule_view(blocks: Iterable[TrajectoryArrays], analysis: TrajectoryAnalysis) -> MoleculeView:
    """Frames for the 3D view, evenly spread, with those among them that were rotated at random.

    Where more frames were rotated than can be shown, the one with the largest error of all is among those kept.

    Args:
        blocks: consecutive parts of the run that was analysed, or all of it as one.
        analysis: of it.
    Raises:
        InputError: too many atoms for a browser, or blocks of another run.
    """
    from ase.data import chemical_symbols, covalent_radii

    n_atoms, n_frames = analysis.n_atoms, len(analysis.time_ps)
    if n_atoms > MAX_ATOMS:
        raise InputError(f"the 3D view shows up to {MAX_ATOMS:,} atoms, this system has {n_atoms:,}")
    chosen, errors = shown_frames(analysis)
    found, start, numbers = [], 0, None
    for block in blocks:
        here = chosen[(chosen >= start) & (chosen < start + len(block))] - start
        found.append(block.positions[here])
        start += len(block)
        numbers = block.atomic_numbers
    if start != n_frames or numbers is None or len(numbers) != n_atoms:
        raise InputError(f"the analysis is of {n_frames} frames of {n_atoms} atoms, {start} other frames were given")
    positions = np.concatenate(found)
    rows = {int(frame): row for row, frame in enumerate(analysis.rotation_frames)}
    tested = np.array([place for place, frame in enumerate(chosen) if int(frame) in rows], dtype=np.int64)
    return MoleculeView(
        symbols=tuple(chemical_symbols[int(number)] for number in numbers),
        radii_A=covalent_radii[numbers],
        frames=chosen,
        time_ps=analysis.time_ps[chosen],
        positions=positions - positions.mean(axis=1, keepdims=True),
        tested=tested,
        atom_error_meV_per_A=errors[[rows[int(chosen[place])] for place in tested]],
        n_frames=n_frames,
    )


def shown_frames(analysis: TrajectoryAnalysis) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Frames to show, ascending, and the errors of the atoms in all frames that were rotated, [R, N]."""
    n_frames = len(analysis.time_ps)
    at_most = max(2, min(MAX_FRAMES, MAX_PLACES // analysis.n_atoms))
    errors = np.empty((0, analysis.n_atoms))
    tested = np.empty(0, dtype=np.int64)
    if analysis.rotational is not None:
        errors, tested = analysis.rotational.atom_error_meV_per_A, analysis.rotation_frames
        worst = int(np.argmax(analysis.rotational.error_meV_per_A))
        # Half of the room, so that the rest still makes the molecule move.
        kept = np.linspace(0, len(tested) - 1, min(len(tested), at_most // 2)).round().astype(np.int64)
        if worst not in kept:
            kept[np.argmin(np.abs(kept - worst))] = worst
        tested = tested[kept]
    n_others = min(n_frames, at_most) - len(tested)
    others = np.setdiff1d(np.arange(n_frames), tested)
    if n_others < len(others):
        others = others[np.linspace(0, len(others) - 1, n_others).round().astype(np.int64)]
    return np.union1d(tested, others).astype(np.int64), errors


def first_view(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Principal axes as the rows of a rotation, [3, 3]: those along which the atoms reach furthest lie in the plane."""
    _, _, axes = np.linalg.svd(positions - positions.mean(axis=0), full_matrices=True)
    # Signs do not matter to the extent, but an image in a mirror would be another molecule.
    axes[2] = np.cross(axes[0], axes[1])
    return axes


def molecule_block(view: MoleculeView | None, missing: str, *, name: str) -> str:
    """The view with its controls, or why there is none; nothing where nobody asked."""
    if view is None:
        return f'<p class="note">{escape(missing)}</p>' if missing else ""
    known = bool(len(view.tested))
    meaning = (
        f"{len(view.tested):,} of these frames were rotated at random: how much the force on each atom then changed, "
        "though it should only turn along, is its rotational error. The other frames show the nearest one's."
        if known
        else "No potential was given, so rotational errors are not known."
    )
    overlay = '<label><input type="checkbox" id="errors"> colour by error</label>' if known else ""
    jump = '<button type="button" id="worst-frame">Largest error</button>' if known else ""
    table = (
        '<table id="worst-atoms"><caption>Largest errors in this frame</caption><thead><tr><th scope="col">atom</th>'
        '<th scope="col">rotational error, meV/Å</th></tr></thead><tbody></tbody></table>'
        if known
        else ""
    )
    return (
        f'<figure id="molecule"><figcaption><h3 id="molecule-title">{escape(name)}</h3><p>Colours tell the elements. '
        f"{meaning}</p></figcaption>"
        '<div class="view"><div><canvas id="scene" tabindex="0" role="img" aria-labelledby="molecule-title" '
        'aria-describedby="scene-help moment"></canvas>'
        '<div class="controls"><button type="button" id="play">▶ Play</button>'
        f'<input type="range" id="frame" min="0" max="{len(view.frames) - 1}" value="0" step="1" '
        'aria-describedby="moment" title="Frame">'
        f'{jump}<button type="button" id="home">Reset view</button>{overlay}</div></div>'
        '<div><p><output id="moment"></output></p><p id="picked" role="status">Point at an atom, or tap it, for its '
        f'number.</p>{table}<div id="scale" hidden></div><p class="note" id="scene-help">Drag, or use the arrow keys, '
        "to turn; two fingers, the wheel with Ctrl, or + and − to zoom; Page Up and Page Down to step through the "
        f"frames. Atoms are named by element and number, counted from 0. {escape(view.thinned)}</p></div></div>"
        "</figure>"
    )
