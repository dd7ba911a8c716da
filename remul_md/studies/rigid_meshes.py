"""Convex bodies of triangles: their meshes, what they weigh, and how they fly while nothing touches them.

Lengths in metres, times in seconds, masses in kilograms. Letters: V vertices, F faces; leading dimensions are bodies.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from remul_md.errors import InputError

# Kind -> vertices and faces: a convex mesh of V vertices, no four of them in a plane that is not cut, has 2 V - 4.
KINDS = {"icosahedron": (12, 20), "box": (8, 12), "tetrahedron": (4, 4), "hull": (8, 12)}
RADIUS_M = (0.2, 0.4)  # of the ball that a mesh would stand in, were it not squeezed
SQUEEZED = (0.6, 1.0)  # each axis
SMALLEST_HULL = 0.8  # volume of the hull of points on the unit ball; half of all drawn ones are larger
FLIGHT_STEPS = 200
Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def drawn_mesh(kind: str, rng: np.random.Generator) -> tuple[Array, Indices]:
    """A mesh of this kind about its centre of mass: vertices [V, 3] in its own frame, and faces [F, 3].

    Each is squeezed along three random axes and scaled. The corners of a face run counterclockwise, seen from outside.

    Raises:
        InputError: no such kind.
    """
    points = _unit_points(kind, rng)
    faces = hull_faces(points)
    axes = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    squeezed = points @ (axes.T @ np.diag(rng.uniform(*SQUEEZED, size=3)) @ axes)
    vertices = rng.uniform(*RADIUS_M) * squeezed
    return vertices - mass_properties(vertices[faces])[1], faces


def _unit_points(kind: str, rng: np.random.Generator) -> Array:
    if kind == "icosahedron":
        golden = (1.0 + 5.0**0.5) / 2.0
        points = np.array([[0.0, a, golden * b] for a, b in product((-1, 1), repeat=2)])
        points = np.concatenate([np.roll(points, shift, axis=1) for shift in range(3)])
    elif kind == "box":
        points = np.array([*product((-1.0, 1.0), repeat=3)])
    elif kind == "tetrahedron":
        points = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    elif kind == "hull":
        while True:  # thin ones would spin too fast for any time step
            points = rng.normal(size=(KINDS[kind][0], 3))
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            if ConvexHull(points).volume > SMALLEST_HULL:
                return points
    else:
        raise InputError(f"mesh {kind!r} is unknown; choose from {', '.join(KINDS)}")
    return points / np.linalg.norm(points[0])


def hull_faces(points: Array) -> Indices:
    """Triangles [F, 3] of the hull of points [V, 3], counterclockwise seen from outside."""
    faces: Indices = ConvexHull(points).simplices.astype(np.int64)
    a, b, c = np.moveaxis(points[faces], 1, 0)
    outward = np.einsum("fi,fi->f", np.cross(b - a, c - a), a - points.mean(0))
    faces[outward < 0] = faces[outward < 0][:, [0, 2, 1]]
    return faces


def mass_properties(corners: Array) -> tuple[Array, Array, Array]:
    """Volume [...], centre of mass [..., 3], and inertia about it for a mass of 1 [..., 3, 3], at uniform density.

    Sums over the tetrahedra that the faces make with the origin.

    Args:
        corners: of the faces of a closed mesh, [..., F, 3, 3], counterclockwise seen from outside.
    """
    volumes = np.linalg.det(corners) / 6.0
    sums = corners.sum(-2)
    volume = volumes.sum(-1)
    centre = np.einsum("...f,...fi->...i", volumes, sums) / (4.0 * volume[..., None])
    second = np.einsum("...f,...fai,...faj->...ij", volumes, corners, corners)
    second = (second + np.einsum("...f,...fi,...fj->...ij", volumes, sums, sums)) / (20.0 * volume[..., None, None])
    second -= centre[..., :, None] * centre[..., None, :]
    trace = np.trace(second, axis1=-2, axis2=-1)[..., None, None]
    return volume, centre, trace * np.eye(3) - second


def motion_of(corners: Array, velocities: Array) -> tuple[Array, Array, Array]:
    """Centre of mass, its velocity and the angular velocity [..., 3] of bodies whose corners [..., F, 3, 3] move so."""
    points, speeds = (each.reshape(*each.shape[:-3], -1, 3) for each in (corners, velocities))
    middle, drift = points.mean(-2), speeds.mean(-2)
    reach = points - middle[..., None, :]
    second = np.einsum("...pi,...pj->...ij", reach, reach)
    matrix = np.trace(second, axis1=-2, axis2=-1)[..., None, None] * np.eye(3) - second
    spin = np.linalg.solve(matrix, np.cross(reach, speeds - drift[..., None, :]).sum(-2)[..., None])[..., 0]
    centre = mass_properties(corners)[1]
    return centre, drift + np.cross(spin, centre - middle), spin


def flown(corners: Array, velocities: Array, *, time_s: float, gravity: float = 0.0) -> Array:
    """Corners [..., F, 3, 3] of bodies of uniform density after a time in which nothing touches them.

    The centre falls along -z; the body turns with its angular momentum kept, dR/dt = w x R with w = R I^-1 R^T L, by
    the classical Runge-Kutta method, whose error here is far below that of float32.

    Args:
        corners: of the faces of closed meshes, counterclockwise seen from outside.
        velocities: of the corners, m/s.
        time_s: how long, s.
        gravity: m/s^2.
    """
    centre, velocity, spin = motion_of(corners, velocities)
    inertia = mass_properties(corners)[2]
    momentum, inverse = np.einsum("...ij,...j->...i", inertia, spin), np.linalg.inv(inertia)
    step = time_s / FLIGHT_STEPS

    def rate(turn: Array) -> Array:
        own = np.einsum("...ij,...kj,...k->...i", inverse, turn, momentum)
        return np.cross(np.einsum("...ij,...j->...i", turn, own)[..., None, :], np.swapaxes(turn, -1, -2)).swapaxes(
            -1, -2
        )

    turn: Array = np.broadcast_to(np.eye(3), inertia.shape)
    for _ in range(FLIGHT_STEPS):
        first = rate(turn)
        second = rate(turn + 0.5 * step * first)
        third = rate(turn + 0.5 * step * second)
        fourth = rate(turn + step * third)
        turn = turn + step / 6.0 * (first + 2.0 * second + 2.0 * third + fourth)
    centre_later = centre + time_s * velocity - 0.5 * gravity * time_s**2 * np.array([0.0, 0.0, 1.0])
    reach = corners - centre[..., None, None, :]
    later: Array = centre_later[..., None, None, :] + np.einsum("...ij,...fcj->...fci", turn, reach)
    return later
