"""The same systems again and again at new positions: batches whose neighbour lists need no search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remul_md.structures.batch import Batch
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch

# Up to here all pairs of a molecule are its neighbours: nothing is searched, nothing leaves the device, shapes never
# change, so rows of the batch do not depend on each other in a single bit. Pairs beyond the cutoff add exact zeros.
MAX_ATOMS_ALL_PAIRS = 64


class MovingSystems:
    """Batches of some systems at the positions of the moment; the list of all pairs lives here between calls.

    Args:
        frames: the systems; their first positions matter for periodic and large ones only in their number.
        cutoff: pair distance limit, Angstrom.
        device: where the batches shall lie.
    """

    def __init__(self, frames: Frames, *, cutoff: float, device: torch.device) -> None:
        self._frames, self._cutoff, self._device = frames, cutoff, device
        small = not frames.pbc.any() and int(frames.n_atoms.max()) <= MAX_ATOMS_ALL_PAIRS
        self._all_pairs = build_batch(frames, cutoff=np.inf, backend="dense").to(device) if small else None

    @property
    def atomic_numbers(self) -> NDArray[np.int64]:
        """Of all systems, [A]."""
        return self._frames.atomic_numbers

    @property
    def searches(self) -> bool:
        """Whether neighbours are searched at every call."""
        return self._all_pairs is None

    def at(self, positions: Tensor, *, cell: Tensor | None = None) -> Batch:
        """The systems at `positions` [A, 3], Angstrom, in the cells [B, 3, 3] (rows) if they are periodic."""
        moved = positions.detach().to(device=self._device, dtype=torch.float64)
        if self._all_pairs is not None:
            return replace(self._all_pairs, positions=moved)
        frames = replace(self._frames, positions=moved.cpu().numpy())
        if cell is not None and self._frames.cell is not None:
            frames = replace(frames, cell=cell.detach().double().cpu().numpy())
        return build_batch(frames, cutoff=self._cutoff).to(self._device)
