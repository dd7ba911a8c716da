"""Every structure held against what training covered: bonds and torsions by their kind, distances by their elements,
in any order of the atoms.

Tables are kept from one structure to the next, verdicts are not: a molecule that was whole a step ago is looked at
again. A structure inside its limits costs one comparison of all its distances.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from remul_md.potentials.domain import DISTANCE_MARGIN, Domain, formula, trained_bond_ranges
from remul_md.potentials.torsions import TorsionLimits
from remul_md.structures.topology import all_pairs, atom_kinds, bond_kinds, bond_lengths, bond_reach, matching_orders

if TYPE_CHECKING:
    from torch import Tensor

# How far outside is said by these steps, Angstrom, so that a run that stays outside says it once and not at every step.
STEPS = (DISTANCE_MARGIN, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0)


MAX_ATOMS_NAMED = 4  # of those with other neighbours; in a molecule in pieces they are all, and others at every step


@dataclass(frozen=True, kw_only=True, eq=False)
class Limits:
    """What is allowed for the distances of one molecule in one order of its atoms.

    Args:
        atomic_numbers: [N].
        pairs: all pairs of atoms, [P, 2].
        names: of each pair, such as `C-H bond` or `C-H distance`, [P].
        bonded: whether training saw them bonded, [P]; all False where no bonds of this composition are known.
        trained: shortest and longest distance seen, [P, 2], Angstrom.
        low: shortest distance without a warning, [P], Angstrom.
        high: longest, [P], Angstrom.
        torsions: those of which training did not see all angles, or None.

    `key` is `atomic_numbers` as bytes, to tell molecules apart.
    """

    atomic_numbers: NDArray[np.int64]
    pairs: NDArray[np.int64]
    names: list[str]
    bonded: NDArray[np.bool_]
    trained: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    torsions: TorsionLimits | None
    key: bytes = field(init=False)
    _tables: tuple[Any, ...] = field(init=False)
    _devices: dict[Any, tuple[Any, ...]] = field(init=False)

    def __post_init__(self) -> None:
        ends = np.ascontiguousarray(self.pairs.T).reshape(-1)
        object.__setattr__(self, "key", self.atomic_numbers.tobytes())
        object.__setattr__(self, "_tables", (ends, self.low**2, self.high**2))
        object.__setattr__(self, "_devices", {})

    def inside(self, positions: NDArray[np.float64]) -> bool:
        """Whether all distances of all geometries [..., N, 3] are within their limits; a NaN is not."""
        # Between two steps of dynamics the cost is that of calls of numpy, so there are as few as can be.
        ends, low, high = self._tables
        both = positions.take(ends, axis=-2)
        separations = both[..., : len(low), :] - both[..., len(low) :, :]
        squared = np.einsum("...c,...c->...", separations, separations)
        margin = np.minimum(squared - low, high - squared)
        return margin.size == 0 or bool(np.min(margin) >= 0.0)

    def room(self, positions: NDArray[np.float64]) -> float:
        """How far the distance nearest to its limit is inside it, Angstrom; negative or NaN outside; [N, 3]."""
        distances = bond_lengths(positions, self.pairs)
        return float(np.min(np.minimum(distances - self.low, self.high - distances), initial=1.0))

    def rows_inside(self, positions: Tensor) -> Tensor:
        """The same for each of R geometries [R, N, 3], on their device: [R]."""
        import torch

        tables = self._devices.get(positions.device)
        if tables is None:
            tables = tuple(torch.from_numpy(table).to(positions.device) for table in self._tables)
            self._devices[positions.device] = tables
        ends, low, high = tables
        first, second = positions.index_select(1, ends).split(len(low), dim=1)
        squared = (first - second).square().sum(-1)
        return ((squared >= low) & (squared <= high)).all(dim=1)


class StructureCheck:
    """Says why structures look unlike the training data of a potential.

    Args:
        domain: what training covered. Bonds are judged for molecules of the composition of its reference frame,
            whose bonds it knows; for others distances only.
    """

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._numbers = np.array(domain.reference_numbers, dtype=np.int64)
        self._bonds = np.array(domain.bonds, dtype=np.int64).reshape(-1, 2)
        self._formula = formula(self._numbers)
        self._ranges = trained_bond_ranges(domain)
        self._longest: dict[str, float] = {}
        for name, longest in zip(_pair_names(self._numbers, self._bonds), domain.bond_max, strict=True):
            self._longest[name] = max(longest, self._longest.get(name, 0.0))
        self._last: Limits | None = None
        self._seen: NDArray[np.float64] | None = None
        self._room = 0.0
        self._limits: dict[bytes, Limits] = {}
        self._graphs: dict[bytes, tuple[Limits | None, str]] = {}

    def outside(self, numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> tuple[str, ...]:
        """Why geometries of an isolated molecule look unlike the training data; empty inside it.

        Args:
            numbers: atomic numbers, [N].
            positions: one geometry [N, 3] or several [R, N, 3], Angstrom; what is not finite is not judged.
        Returns:
            A line for each kind of bond or pair that is outside, with the farthest of all geometries; of geometries in
            which other atoms are bonded than in training, that alone. How far is told in steps, so that lines repeat.
        """
        limits = self._last
        if limits is None or limits.key != numbers.tobytes():
            limits = self._limits_for(numbers, positions)
        if positions.ndim == 2:
            # From one step of dynamics to the next atoms hardly move, and two operations are a proof: all distances
            # are as far from their limits as they were, less what two atoms can have moved; torsions likewise.
            if self._seen is not None:
                moved = positions - self._seen
                if 2.0 * np.vdot(moved, moved) < self._room:
                    return ()
            room = limits.room(positions)
            if limits.torsions is not None and room > 0.0:
                room = min(room, limits.torsions.room(positions))
            self._seen, self._room = (positions.copy(), room**2) if room > 0.0 else (None, 0.0)
            if room >= 0.0:
                return ()
        elif limits.inside(positions) and (limits.torsions is None or limits.torsions.inside(positions)):
            return ()
        return self._reasons(limits, positions.reshape(-1, *positions.shape[-2:]))

    def rows_outside(self, numbers: NDArray[np.int64], positions: Tensor) -> tuple[str, ...]:
        """As `outside`, for [R, N, 3] on any device; only geometries whose distances are outside come to the CPU, and
        only of these torsions are looked at.
        """
        limits = self._limits.get(numbers.tobytes())
        if limits is None:
            limits = self._limits_for(numbers, positions[0].cpu().numpy())
        inside = limits.rows_inside(positions)
        if bool(inside.all()):
            return ()
        return self._reasons(limits, positions[~inside].cpu().numpy())

    def known_bonds(
        self, numbers: NDArray[np.int64], positions: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64] | None, str]:
        """Bonds [M, 2] of one geometry [N, 3] if training saw a molecule with such bonds, else None and why not.

        The reason is empty where training tells nothing about bonds, because the composition is another one.
        """
        pairs = all_pairs(len(numbers))
        if formula(numbers) != self._formula:
            return None, ""
        own, why = self._judged(numbers, pairs, bond_lengths(positions, pairs))
        return (None, why) if own is None else (pairs[own.bonded], "")

    def _limits_for(self, numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Limits:
        """Limits for this order of the atoms: those of the first geometry, if its bonds are those of training."""
        key = numbers.tobytes()
        if key not in self._limits:
            pairs = all_pairs(len(numbers))
            first = bond_lengths(positions.reshape(-1, *positions.shape[-2:])[0], pairs)
            own, _ = self._judged(numbers, pairs, first)
            self._limits[key] = own or self._made(numbers, pairs, np.zeros(len(pairs), dtype=bool))
        self._last, self._seen = self._limits[key], None
        return self._last

    def _judged(
        self, numbers: NDArray[np.int64], pairs: NDArray[np.int64], distances: NDArray[np.float64]
    ) -> tuple[Limits | None, str]:
        """As `_graph`, for the distances [P] of one geometry."""
        reach = bond_reach(numbers, pairs)
        own, why = self._graph(numbers, pairs, distances < reach)
        if own is None:
            # Training may have seen bonds longer than a bond reaches.
            longest = np.array([self._longest.get(name, 0.0) for name in _pair_names(numbers, pairs)])
            wider, _ = self._graph(numbers, pairs, distances < np.maximum(reach, longest + DISTANCE_MARGIN))
            return (own, why) if wider is None else (wider, "")
        return own, why

    def _graph(
        self, numbers: NDArray[np.int64], pairs: NDArray[np.int64], bonded: NDArray[np.bool_]
    ) -> tuple[Limits | None, str]:
        """Limits of a molecule with these bonds if training saw them, else None and what is wrong with them."""
        key = numbers.tobytes() + bonded.tobytes()
        if key not in self._graphs:
            if len(self._graphs) > 1000:  # a melt: forget rather than grow
                self._graphs.clear()
            why = self._unlike(numbers, pairs[bonded])
            self._graphs[key] = (None if why else self._made(numbers, pairs, bonded), why)
        return self._graphs[key]

    def _unlike(self, numbers: NDArray[np.int64], bonds: NDArray[np.int64]) -> str:
        """What bonds have to do with those of training: nothing to say where they are the same in some order."""
        if formula(numbers) != self._formula:
            return ""
        reference = {"reference_numbers": self._numbers, "reference_pairs": self._bonds}
        if next(matching_orders(numbers, bonds, **reference), None) is not None:
            return ""
        own, known = (Counter(_pair_names(n, b)) for n, b in ((numbers, bonds), (self._numbers, self._bonds)))
        told = [
            f"{word} {', '.join(f'{count} {name}' for name, count in sorted(difference.items()))}"
            for word, difference in (("missing", known - own), ("new", own - known))
            if difference
        ]
        trained = set(atom_kinds(self._numbers, self._bonds))
        atoms = [atom for atom, kind in enumerate(atom_kinds(numbers, bonds)) if kind not in trained]
        if 0 < len(atoms) <= MAX_ATOMS_NAMED:
            told.append(f"other neighbours at atoms {', '.join(map(str, atoms))}")
        return f"the bonds are not those trained on ({'; '.join(told) or 'other atoms are bonded'})"

    def _made(self, numbers: NDArray[np.int64], pairs: NDArray[np.int64], bonded: NDArray[np.bool_]) -> Limits:
        """Limits where these pairs are bonded; a composition without known bonds has limits of distances alone."""
        knows_bonds = formula(numbers) == self._formula
        bonded = bonded & knows_bonds
        names = _pair_names(numbers, pairs)
        seen = self._domain.distance_ranges
        # Elements that training never saw together have no limit; such compositions were let in by the user.
        trained = np.array([seen.get(name, (-np.inf, np.inf)) for name in names], dtype=np.float64).reshape(-1, 2)
        nearest = np.zeros(len(pairs))
        if knows_bonds:
            kinds = bond_kinds(numbers, pairs[bonded])
            trained[bonded] = np.array([self._ranges[kind] for kind in kinds]).reshape(-1, 2)
            # The shortest distance of elements that bond is that of a bond: others may not come as close as a bond.
            nearest[~bonded] = bond_reach(numbers, pairs)[~bonded]
        return Limits(
            atomic_numbers=numbers.copy(),
            pairs=pairs,
            names=[f"{name} {'bond' if there else 'distance'}" for name, there in zip(names, bonded, strict=True)],
            bonded=bonded,
            trained=trained,
            low=np.maximum(trained[:, 0] - DISTANCE_MARGIN, nearest),
            high=trained[:, 1] + DISTANCE_MARGIN,
            torsions=TorsionLimits.of(numbers, pairs[bonded], self._domain.torsions) if knows_bonds else None,
        )

    def _reasons(self, limits: Limits, frames: NDArray[np.float64]) -> tuple[str, ...]:
        """Lines for geometries [R, N, 3] of which some are outside."""
        numbers, pairs = limits.atomic_numbers, limits.pairs
        distances = bond_lengths(frames, pairs)
        known = np.isfinite(distances).all(axis=1)
        graphs: list[str] = []
        torsions: set[str] = set()
        worst: dict[str, tuple[float, float, float]] = {}
        for row, at in zip(distances[known], frames[known], strict=True):
            if (row >= limits.low).all() and (row <= limits.high).all():
                torsions.update(() if limits.torsions is None else limits.torsions.outside(at))
                continue
            own, why = self._judged(numbers, pairs, row)
            if own is None:  # no molecule that training saw, so that its distances have nothing to be held against
                graphs.append(why)
                continue
            self._limits[numbers.tobytes()] = self._last = own  # the same molecule may be numbered otherwise
            torsions.update(() if own.torsions is None else own.torsions.outside(at))
            beyond = np.maximum(own.low - row, row - own.high)
            for pair in np.flatnonzero(beyond > 0.0):
                entry = (float(beyond[pair]), *own.trained[pair].tolist())
                worst[own.names[pair]] = max(worst.get(own.names[pair], entry), entry)
        return (
            *sorted(set(graphs)),
            *(_line(name, *entry) for name, entry in sorted(worst.items())),
            *sorted(torsions),
        )


def _line(name: str, beyond: float, low: float, high: float) -> str:
    step = max((step for step in STEPS if step <= beyond + DISTANCE_MARGIN + 1e-9), default=DISTANCE_MARGIN)
    return f"a {name} leaves the trained {low:.2f} to {high:.2f} Angstrom by more than {step:g}"


def _pair_names(numbers: Sequence[int] | NDArray[Any], pairs: NDArray[np.int64]) -> list[str]:
    symbols = [chemical_symbols[int(number)] for number in numbers]
    return ["-".join(sorted((symbols[first], symbols[second]))) for first, second in pairs.tolist()]
