"""What tells a jump from a steep slope, and one well from two: pure functions of points on a curve."""

from __future__ import annotations

import numpy as np

from remul_md.analysis.audit.probe import Array


def interval_integrals(x: Array, y: Array) -> Array:
    """Integral of y(x) over each interval of [S] points, by the cubic through its ends and the next point beyond each.

    The error falls with the fifth power of the spacing. Three points or fewer: by trapezoids.
    """
    widths = np.diff(x)
    if len(x) < 4:
        return 0.5 * widths * (y[1:] + y[:-1])
    first = np.clip(np.arange(len(widths)) - 1, 0, len(x) - 4)
    total = np.zeros(len(widths))
    # Two Gauss points integrate a cubic exactly.
    for share in (0.5 - 0.5 / np.sqrt(3.0), 0.5 + 0.5 / np.sqrt(3.0)):
        at = x[:-1] + share * widths
        total += (
            0.5
            * widths
            * sum(
                weight * y[first + k]
                for k, weight in enumerate(_lagrange_weights(x[first[:, None] + np.arange(4)], at))
            )
        )
    return total


def node_residuals(x: Array, y: Array) -> Array | None:
    """How far each of the S points is from the cubic through two points on either side, [S]; the largest component.

    Points at the ends have the residual of the nearest that is not. None for fewer than five points.

    Args:
        x: increasing, [S].
        y: [S, N, 3].
    """
    if len(x) < 5:
        return None
    inner = np.arange(2, len(x) - 2)
    beside = inner[:, None] + np.array([-2, -1, 1, 2])
    predicted = sum(w[:, None, None] * y[beside[:, k]] for k, w in enumerate(_lagrange_weights(x[beside], x[inner])))
    residual = np.abs(y[inner] - predicted).max(axis=(1, 2))
    return np.concatenate([[residual[0]] * 2, residual, [residual[-1]] * 2])


def _lagrange_weights(nodes: Array, at: Array) -> list[Array]:
    """Weights of the polynomial through 4 nodes [M, 4] at points [M]: four arrays [M]."""
    weights = []
    for k in range(4):
        weight = np.ones(len(at))
        for other in range(4):
            if other != k:
                weight = weight * (at - nodes[:, other]) / (nodes[:, k] - nodes[:, other])
        weights.append(weight)
    return weights


def other_minima(
    values: Array, energies: Array, *, start: float, min_depth: float
) -> tuple[tuple[float, float, float], ...]:
    """Minima besides the one downhill of `start`: (coordinate, depth, barrier) of each.

    The barrier is the highest energy on the way there, relative to the first minimum; the depth is how far the energy
    falls again behind it. An end of the scan that lies lower than the way to it counts as a minimum.

    Args:
        values: increasing coordinate, [S].
        energies: [S], eV.
        start: coordinate where the structure stands.
        min_depth: shallower ones are left out, and so are ripples of one well, eV, > 0.
    """
    from scipy.signal import find_peaks

    home = int(np.argmin(np.abs(values - start)))
    while True:
        around = [index for index in (home - 1, home + 1) if 0 <= index < len(energies)]
        lowest = min(around, key=lambda index: energies[index], default=home)
        if not around or energies[lowest] >= energies[home]:
            break
        home = lowest
    # Points of one height would each be the bottom of the whole: a tilt too small to matter makes one the lowest.
    energies = energies + 1e-6 * min_depth * np.arange(len(energies)) / len(energies)
    walled = np.concatenate([[energies.max() + 1.0], energies, [energies.max() + 1.0]])
    wells, _ = find_peaks(-walled, prominence=min_depth)
    found = []
    for index in (wells - 1).tolist():
        way = energies[min(home, index) : max(home, index) + 1].max()
        if way - energies[index] >= min_depth:
            found.append((float(values[index]), float(way - energies[index]), float(way - energies[home])))
    return tuple(found)
