"""Neighbour lists and the step from `Frames` to `Batch`.

Three backends give the same pairs: `vesin` (default, molecules and periodic cells), `dense` (all pairs, molecules
only, needs nothing) and `torch_cluster` (optional, molecules only). None truncates: K is as large as it has to be.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remul_md.errors import InputError
from remul_md.structures.batch import Batch
from remul_md.structures.frames import Frames

Backend = Literal["vesin", "dense", "torch_cluster"]
MIN_DISTANCE = 1e-3  # Angstrom; closer atoms have no direction from one to the other

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def neighbor_pairs(
    positions: NDArray[np.float64],
    *,
    cutoff: float,
    cell: NDArray[np.float64] | None = None,
    pbc: NDArray[np.bool_] | None = None,
    backend: Backend = "vesin",
) -> Pairs:
    """All ordered pairs closer than `cutoff`, sorted by (i, j, shift).

    Args:
        positions: [N, 3], Angstrom.
        cutoff: pair distance limit, Angstrom, > 0.
        cell: lattice vectors as rows, [3, 3], Angstrom; needed where `pbc` is set.
        pbc: periodic flags, [3].
        backend: who searches.
    Returns:
        i [P], j [P], shift [P, 3] (integer cell vectors): atom j + shift @ cell is a neighbour of atom i.
    Raises:
        InputError: unknown backend, cutoff <= 0, a periodic system for a backend that knows molecules only,
            positions that are not finite, two atoms at one place.
    """
    if backend not in get_args(Backend):
        raise InputError(f"neighbour backend {backend!r} is unknown; choose one of {', '.join(get_args(Backend))}")
    if not cutoff > 0.0:
        raise InputError(f"cutoff must be > 0 Angstrom, got {cutoff}; set model.cutoff in the config")
    if not np.isfinite(positions).all():
        atom = int(np.argwhere(~np.isfinite(positions).all(axis=1))[0, 0])
        raise InputError(
            f"position of atom {atom} is not finite: {positions[atom].tolist()}; "
            "check the structure, or the time step if this happened during dynamics"
        )
    periodic = pbc is not None and bool(np.any(pbc))
    if periodic and backend != "vesin":
        raise InputError(f"neighbour backend {backend!r} knows molecules only, pbc is {pbc}; use backend 'vesin'")
    if periodic and cell is None:
        raise InputError(f"pbc is {pbc} but there is no cell; give three lattice vectors or set pbc to False")
    if backend == "vesin":
        i, j, shift = _vesin_pairs(positions, cutoff=cutoff, cell=cell if periodic else None, pbc=pbc)
    elif backend == "dense":
        i, j, shift = _dense_pairs(positions, cutoff=cutoff)
    else:
        i, j, shift = _torch_cluster_pairs(positions, cutoff=cutoff)
    displacements = positions[j] - positions[i]
    if periodic:
        assert cell is not None
        displacements = displacements + shift @ cell
    squared = np.einsum("pc,pc->p", displacements, displacements)
    if len(squared) and squared.min() < MIN_DISTANCE**2:
        pair = int(np.argmin(squared))
        raise InputError(
            f"atoms {int(i[pair])} and {int(j[pair])} are {np.sqrt(squared[pair]):.2g} Angstrom apart; "
            "two atoms at one place have no energy: check the structure"
        )
    return i, j, shift


def _vesin_pairs(
    positions: NDArray[np.float64], *, cutoff: float, cell: NDArray[np.float64] | None, pbc: NDArray[np.bool_] | None
) -> Pairs:
    import vesin

    if cell is not None and abs(np.linalg.det(cell)) < 1e-6:
        raise InputError(f"pbc is {pbc} but the cell has no volume; give three lattice vectors")
    search = vesin.NeighborList(cutoff=cutoff, full_list=True)
    box = np.eye(3) if cell is None else np.asarray(cell, dtype=np.float64)
    i, j, shift = search.compute(
        points=np.ascontiguousarray(positions, dtype=np.float64),
        box=np.ascontiguousarray(box),
        periodic=False if cell is None else [bool(flag) for flag in np.asarray(pbc)],
        quantities="ijS",
    )
    i, j, shift = i.astype(np.int64), j.astype(np.int64), shift.astype(np.int64)
    order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], j, i)) if cell is not None else np.lexsort((j, i))
    return i[order], j[order], shift[order]


def _dense_pairs(positions: NDArray[np.float64], *, cutoff: float) -> Pairs:
    displacements = positions[None, :, :] - positions[:, None, :]
    close = np.einsum("ijc,ijc->ij", displacements, displacements) < cutoff * cutoff
    np.fill_diagonal(close, False)
    i, j = np.nonzero(close)
    return i.astype(np.int64), j.astype(np.int64), np.zeros((len(i), 3), dtype=np.int64)


def _torch_cluster_pairs(positions: NDArray[np.float64], *, cutoff: float) -> Pairs:
    try:
        from torch_cluster import radius_graph
    except ImportError as error:
        raise InputError(
            "neighbour backend 'torch_cluster' needs the torch-cluster extension; build it with `make torch-cluster`"
        ) from error
    # Its default keeps 32 neighbours and drops the others in silence, so the limit is the number of atoms.
    edges = radius_graph(torch.from_numpy(positions), r=cutoff, loop=False, max_num_neighbors=max(len(positions), 1))
    j, i = edges.numpy()
    order = np.lexsort((j, i))
    return i[order], j[order], np.zeros((len(i), 3), dtype=np.int64)


def build_batch(frames: Frames, *, cutoff: float, backend: Backend = "vesin", min_neighbors: int = 1) -> Batch:
    """Frames with their neighbour lists, padded to the largest number of neighbours, on the CPU.

    Args:
        frames: geometries, with labels if they have them.
        cutoff: pair distance limit, Angstrom.
        backend: neighbour search, see `neighbor_pairs`.
        min_neighbors: pad to at least this many columns, so that shapes stay fixed over an MD run.
    Returns:
        One batch with B = len(frames) systems.
    Raises:
        InputError: as `neighbor_pairs`, naming the frame.
    """
    first = frames.first_atom
    lists = []
    for system in range(len(frames)):
        try:
            i, j, shift = neighbor_pairs(
                frames.frame_positions(system),
                cutoff=cutoff,
                cell=None if frames.cell is None else frames.cell[system],
                pbc=frames.pbc[system],
                backend=backend,
            )
        except InputError as error:
            if len(frames) == 1:
                raise
            raise InputError(f"{frames.name}, frame {system}: {error}") from error
        lists.append((i + first[system], j + first[system], shift))
    i, j, shift = (np.concatenate(column) for column in zip(*lists, strict=True))
    n_total = len(frames.positions)
    n_neighbors = np.bincount(i, minlength=n_total)
    width = max(int(n_neighbors.max()), min_neighbors, 1)
    column = np.arange(len(i)) - np.repeat(np.cumsum(n_neighbors) - n_neighbors, n_neighbors)
    slot = i * width + column
    neighbor_index = np.repeat(np.arange(n_total), width)
    neighbor_index[slot] = j
    mask = np.zeros(n_total * width, dtype=bool)
    mask[slot] = True
    # Pairs are sorted by (i, j, shift); sorted by (j, i, -shift) they stand in the order of their reverses.
    reverse_of = np.empty(len(i), dtype=np.int64)
    reverse_of[np.lexsort((-shift[:, 2], -shift[:, 1], -shift[:, 0], i, j))] = np.arange(len(i))
    reverse_index = np.arange(n_total * width)
    reverse_index[slot] = slot[reverse_of]
    shifts = None
    if frames.pbc.any():
        padded = np.zeros((n_total * width, 3), dtype=np.int64)
        padded[slot] = shift
        shifts = torch.from_numpy(padded.reshape(n_total, width, 3))
    return Batch(
        positions=torch.from_numpy(np.ascontiguousarray(frames.positions)),
        atomic_numbers=torch.from_numpy(np.ascontiguousarray(frames.atomic_numbers)),
        system_index=torch.from_numpy(np.repeat(np.arange(len(frames)), frames.n_atoms)),
        pbc=torch.from_numpy(np.ascontiguousarray(frames.pbc)),
        cell=_tensor(frames.cell),
        neighbor_index=torch.from_numpy(neighbor_index.reshape(n_total, width)),
        neighbor_mask=torch.from_numpy(mask.reshape(n_total, width)),
        neighbor_shift=shifts,
        reverse_index=torch.from_numpy(reverse_index.reshape(n_total, width)),
        field_V_per_A=_tensor(frames.field_V_per_A),
        energy=_tensor(frames.energy),
        forces=_tensor(frames.forces),
    )


def _tensor(values: NDArray[np.float64] | None) -> Tensor | None:
    return None if values is None else torch.from_numpy(np.ascontiguousarray(values))
