"""What holds under every network, whatever its weights: lone atoms, and atoms that are pressed together.

A network is asked about geometries that no training frame showed: atoms closer than any were, or an atom that has left
its molecule. Two terms say what is known there. Inside the training data both vanish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from ase.data import chemical_symbols, covalent_radii
from torch import Tensor

# Screening function of Ziegler, Biersack and Littmark (1985): its four exponentials.
COEFFICIENTS = (0.18175, 0.50986, 0.28022, 0.02817)
EXPONENTS = (3.19980, 0.94229, 0.40290, 0.20162)
SCREENING_LENGTH = 0.8854 * 0.529177210903  # Angstrom, times 1 / (Z_i^0.23 + Z_j^0.23)
COULOMB = 14.399645  # e^2 / (4 pi epsilon_0), eV Angstrom
# The repulsion begins at this fraction of the shortest distance of two elements in the training data.
REACH_FRACTION = 0.8
# Sum of the envelopes of an atom's neighbours from which on it is not alone at all. With a cutoff of 6 Angstrom a
# single neighbour at 1.1 Angstrom has 0.95, all neighbours of a hydrogen atom in ethanol have 5.
SURROUNDED = 0.75


def smooth_envelope(distances: Tensor, cutoff: Tensor | float) -> Tensor:
    """1 at distance 0, and 0 with its first two derivatives at the cutoff; distances in Angstrom, any shape.

    The quintic smoothstep: a cosine falls earlier and has a jump in its second derivative.
    """
    x = (distances / cutoff).clamp(max=1.0)
    # The same as 1 - x^3 (10 - 15 x + 6 x^2), without the difference of numbers near 1 close to the cutoff: there
    # single precision came in steps of 6e-8, which large attention weights made into jumps of the energy.
    left = 1.0 - x
    return left * left * left * (1.0 + x * (3.0 + 6.0 * x))


def screened_repulsion(distances: Tensor, strength: Tensor, inverse_length: Tensor, reach: Tensor) -> Tensor:
    """Energy of each pair, eV: `strength / r * phi(r * inverse_length) * envelope(r / reach)`.

    The screened Coulomb repulsion of two nuclei, tapered so that it vanishes with two derivatives at `reach`. It knows
    neither spin nor bonds, and attracts nowhere.

    Args:
        distances: r, > 0, Angstrom, any shape; the others broadcast to it.
        strength: Z_i Z_j e^2 / (4 pi epsilon_0), eV Angstrom.
        inverse_length: of the screening, 1/Angstrom.
        reach: where the repulsion begins, > 0, Angstrom.
    Source: universal screening function of Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Solids
        (1985).
    """
    parts = _screening_parts(distances * inverse_length)
    return strength / distances * parts.sum(-1) * smooth_envelope(distances, reach)


def repulsion_slope(distances: Tensor, strength: Tensor, inverse_length: Tensor, reach: Tensor) -> Tensor:
    """Derivative of `screened_repulsion` by the distance, eV/Angstrom, for forces that are no gradient."""
    parts = _screening_parts(distances * inverse_length)
    screening = parts.sum(-1)
    slope = -inverse_length * (parts * _constants(EXPONENTS, parts)).sum(-1)
    envelope = smooth_envelope(distances, reach)
    x = (distances / reach).clamp(max=1.0)
    envelope_slope = -30.0 * x * x * (1.0 - x) * (1.0 - x) / reach
    return strength / distances * (slope * envelope + screening * (envelope_slope - envelope / distances))


def _screening_parts(x: Tensor) -> Tensor:
    """The four exponentials of the screening function, whose sum it is, [..., 4]."""
    return _constants(COEFFICIENTS, x) * torch.exp(-_constants(EXPONENTS, x) * x.unsqueeze(-1))


def _constants(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def nuclear_tables(species: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`strength` and `inverse_length` of each pair of elements, [S, S] each; see `screened_repulsion`."""
    charges = torch.tensor(species, dtype=torch.float64)
    power = charges.pow(0.23)
    lengths = (power.unsqueeze(0) + power.unsqueeze(1)) / SCREENING_LENGTH
    return COULOMB * charges.unsqueeze(0) * charges.unsqueeze(1), lengths


def reaches(species: Sequence[int], shortest: Mapping[str, float]) -> Tensor:
    """Where the repulsion of each pair of elements begins, [S, S], Angstrom, float64.

    Args:
        species: atomic numbers.
        shortest: shortest distance of pairs of elements in the training data, by names such as `C-H`, Angstrom. Pairs
            that training never saw have the sum of their covalent radii.
    """
    rows = []
    for first in species:
        row = []
        for second in species:
            name = "-".join(sorted((chemical_symbols[first], chemical_symbols[second])))
            row.append(REACH_FRACTION * shortest.get(name, float(covalent_radii[first] + covalent_radii[second])))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)
