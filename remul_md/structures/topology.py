"""Bond graph of a molecule from covalent radii: which atoms are bonded, how far apart, and which graphs are alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError

if TYPE_CHECKING:
    from networkx import Graph

Numbers = NDArray[np.integer[Any]]

BOND_SCALE = 1.25  # times the sum of the covalent radii: closer atoms are bonded


def all_pairs(n_atoms: int) -> NDArray[np.int64]:
    """Every pair of that many atoms once, [N (N - 1) / 2, 2], i < j."""
    return np.stack(np.triu_indices(n_atoms, k=1), axis=1).astype(np.int64)


def bond_pairs(
    atomic_numbers: Numbers, positions: NDArray[np.float64], *, scale: float = BOND_SCALE
) -> NDArray[np.int64]:
    """Pairs of atoms closer than `scale` times the sum of their covalent radii, [M, 2], i < j, sorted.

    The default reaches 25 % past the sum: it keeps every bond of a room-temperature molecule (C-H up to 1.34,
    C-C up to 1.90 Angstrom) and stays below every 1-3 distance. Molecules only: no periodic images.

    Args:
        atomic_numbers: [N].
        positions: [N, 3], Angstrom.
        scale: how far past the sum of the radii a bond reaches, > 0, dimensionless.
    Raises:
        InputError: `scale` <= 0.
    Source: covalent radii of Cordero et al. (2008), doi:10.1039/b801115j, as ASE tabulates them.
    """
    if not scale > 0.0:
        raise InputError(f"scale must be > 0, got {scale}; {BOND_SCALE} suits organic molecules")
    pairs = all_pairs(len(positions))
    return pairs[bond_lengths(positions, pairs) < bond_reach(atomic_numbers, pairs, scale=scale)]


def bond_reach(atomic_numbers: Numbers, pairs: NDArray[np.int64], *, scale: float = BOND_SCALE) -> NDArray[np.float64]:
    """Distance below which each of the pairs [M, 2] counts as bonded, [M], Angstrom; see `bond_pairs`."""
    from ase.data import covalent_radii

    radii = covalent_radii[np.asarray(atomic_numbers)]
    return np.asarray(scale * (radii[pairs[:, 0]] + radii[pairs[:, 1]]), dtype=np.float64)


def atom_kinds(atomic_numbers: Numbers, pairs: NDArray[np.int64]) -> list[str]:
    """What each atom is and is bonded to, such as `C(CHHO)`: the same whatever the order of the atoms.

    Args:
        atomic_numbers: [N].
        pairs: bonds, [M, 2].
    """
    from ase.data import chemical_symbols

    symbols = [chemical_symbols[int(number)] for number in atomic_numbers]
    bonded: list[list[str]] = [[] for _ in symbols]
    for first, second in np.asarray(pairs, dtype=np.int64).reshape(-1, 2).tolist():
        bonded[first].append(symbols[second])
        bonded[second].append(symbols[first])
    return [f"{symbol}({''.join(sorted(others))})" for symbol, others in zip(symbols, bonded, strict=True)]


def bond_kinds(atomic_numbers: Numbers, pairs: NDArray[np.int64]) -> list[str]:
    """Kind of each bond, [M], such as `C(CHHO)-O(CH)`: its two atoms with what they are bonded to."""
    kinds = atom_kinds(atomic_numbers, pairs)
    return ["-".join(sorted((kinds[first], kinds[second]))) for first, second in np.asarray(pairs).reshape(-1, 2)]


def matching_orders(
    atomic_numbers: Numbers,
    pairs: NDArray[np.int64],
    *,
    reference_numbers: Numbers,
    reference_pairs: NDArray[np.int64],
) -> Iterator[NDArray[np.int64]]:
    """All ways to read a molecule in the order of another with the same bonds; none if the bond graphs differ.

    Each is `order`, [N]: atom `order[k]` stands where the reference has atom k. Equal atoms may be exchanged, so there
    are several (12 of ethanol). Atoms that are numbered alike come first, as they are.

    Args:
        atomic_numbers: [N].
        pairs: bonds, [M, 2], i < j.
        reference_numbers: of the reference, [N].
        reference_pairs: its bonds, likewise.
    Source: graph isomorphism by VF2++ (Juttner and Madarasi 2018, doi:10.1016/j.dam.2018.02.018), of networkx.
    """
    numbers, known = np.asarray(atomic_numbers), np.asarray(reference_numbers)
    if len(pairs) != len(reference_pairs) or not np.array_equal(np.sort(numbers), np.sort(known)):
        return
    same = np.array_equal(numbers, known) and {*map(tuple, pairs.tolist())} == {*map(tuple, reference_pairs.tolist())}
    if same:
        yield np.arange(len(numbers))
    from networkx import vf2pp_all_isomorphisms

    reference, own = _bond_graph(known, reference_pairs), _bond_graph(numbers, pairs)
    for found in vf2pp_all_isomorphisms(reference, own, node_label="element"):
        order = np.array([found[atom] for atom in range(len(known))], dtype=np.int64)
        if not same or not np.array_equal(order, np.arange(len(order))):
            yield order


def _bond_graph(atomic_numbers: Numbers, pairs: NDArray[np.int64]) -> Graph[int]:
    from networkx import Graph

    graph: Graph[int] = Graph()
    graph.add_nodes_from((atom, {"element": int(number)}) for atom, number in enumerate(atomic_numbers))
    graph.add_edges_from(pairs.tolist())
    return graph


def bond_lengths(positions: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distances of the pairs [M, 2] in one geometry [N, 3] or many [..., N, 3]: [..., M], Angstrom."""
    return np.linalg.norm(positions[..., pairs[:, 1], :] - positions[..., pairs[:, 0], :], axis=-1)


def bonded_chains(pairs: NDArray[np.int64], *, length: int) -> NDArray[np.int64]:
    """Chains of that many atoms along bonds, [P, length], each once, no atom twice: 3 for angles, 4 for dihedrals.

    A chain is given in the direction in which its first atom has the smaller number.

    Args:
        pairs: bonds, [M, 2].
        length: atoms in a chain, >= 2.
    Raises:
        InputError: `length` < 2.
    """
    if length < 2:
        raise InputError(f"a chain has at least 2 atoms, got length {length}")
    neighbors: dict[int, list[int]] = {}
    for first, second in np.asarray(pairs, dtype=np.int64).reshape(-1, 2).tolist():
        neighbors.setdefault(first, []).append(second)
        neighbors.setdefault(second, []).append(first)
    chains: list[tuple[int, ...]] = [(atom,) for atom in sorted(neighbors)]
    for _ in range(length - 1):
        chains = [(*chain, atom) for chain in chains for atom in sorted(neighbors[chain[-1]]) if atom not in chain]
    once = [chain for chain in chains if chain[0] < chain[-1]]
    return np.array(once, dtype=np.int64).reshape(-1, length)


def torsion_chains(atomic_numbers: Numbers, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """Torsions about bonds that are in no ring, chains of four atoms [P, 4], and the kind of each.

    A kind is the kinds of its four atoms (`atom_kinds`), the same in either direction.

    Args:
        atomic_numbers: [N].
        pairs: bonds, [M, 2].
    """
    from networkx import bridges

    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    kinds = atom_kinds(atomic_numbers, pairs)
    in_no_ring = {frozenset(bond) for bond in bridges(_bond_graph(np.asarray(atomic_numbers), pairs))}
    chains = [chain for chain in bonded_chains(pairs, length=4).tolist() if frozenset(chain[1:3]) in in_no_ring]
    named = [[kinds[atom] for atom in chain] for chain in chains]
    return np.array(chains, dtype=np.int64).reshape(-1, 4), ["-".join(min(name, name[::-1])) for name in named]


def side_of_bond(pairs: NDArray[np.int64], first: int, second: int) -> NDArray[np.int64]:
    """Atoms that hang together with the second atom of a bond when it is cut; with the first, too, if it is in a ring.

    Args:
        pairs: bonds, [M, 2].
        first: an atom of the bond.
        second: the other one.
    """
    from networkx import Graph, node_connected_component

    graph: Graph[int] = Graph()
    graph.add_edges_from(np.asarray(pairs).reshape(-1, 2).tolist())
    graph.remove_edge(first, second)
    return np.array(sorted(node_connected_component(graph, second)), dtype=np.int64)


def bond_angles(positions: NDArray[np.float64], chains: NDArray[np.int64]) -> NDArray[np.float64]:
    """Angles i-j-k at the middle atoms, [..., P], degrees, 0 to 180, of positions [..., N, 3] and chains [P, 3]."""
    one = positions[..., chains[:, 0], :] - positions[..., chains[:, 1], :]
    other = positions[..., chains[:, 2], :] - positions[..., chains[:, 1], :]
    # atan2 of sine and cosine: the arc cosine alone loses half the digits near 0 and 180 degrees.
    sine = np.linalg.norm(np.cross(one, other), axis=-1)
    return np.degrees(np.arctan2(sine, (one * other).sum(axis=-1)))


def dihedral_angles(positions: NDArray[np.float64], chains: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dihedral angles i-j-k-l, [..., P], degrees, -180 to 180, of positions [..., N, 3] and chains [P, 4].

    0 is cis, and positive is clockwise seen along j to k (IUPAC). Atoms i, j, k on one line have none: 0 is given.
    """
    i, j, k, end = (positions[..., chains[:, column], :] for column in range(4))
    axis = k - j
    before, after = np.cross(j - i, axis), np.cross(axis, end - k)
    sine = np.linalg.norm(axis, axis=-1) * ((j - i) * after).sum(axis=-1)
    return np.degrees(np.arctan2(sine, (before * after).sum(axis=-1)))


def weakest_link(
    atomic_numbers: NDArray[np.integer[Any]], positions: NDArray[np.float64]
) -> tuple[tuple[int, int], float]:
    """The longest of the bonds that hold all atoms together, and its length over the sum of the covalent radii.

    Those bonds are the tree that joins all atoms by links as short as possible in that unit: in a molecule each of them
    is a bond, whatever it is stretched to; a ring may open without being noticed. Molecules only.

    Args:
        atomic_numbers: [N].
        positions: [N, 3], Angstrom.
    Returns:
        The two atoms, and 0 for a single atom.
    """
    from ase.data import covalent_radii

    radii, n_atoms = covalent_radii[np.asarray(atomic_numbers)], len(positions)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2) / (radii[:, None] + radii[None])
    longest, link = 0.0, (0, 0)
    nearest, reach = np.zeros(n_atoms, dtype=np.int64), distances[0].copy()
    outside = np.arange(n_atoms) > 0
    while outside.any():  # Prim's algorithm
        atom = int(np.argmin(np.where(outside, reach, np.inf)))
        if reach[atom] > longest:
            longest, link = float(reach[atom]), (int(nearest[atom]), atom)
        outside[atom] = False
        closer = distances[atom] < reach
        nearest[closer], reach[closer] = atom, distances[atom][closer]
    return (min(link), max(link)), longest
