"""Scenes of rigid bodies that fly, fall and collide, simulated by MuJoCo and kept in an HDF5 file.

A scene is a function of (seed, its number, options) alone: the same bits whatever else is made beside it and by however
many processes. Lengths in metres, times in seconds, masses in kilograms; z is up. Letters: K bodies of a scene, V
vertices and F faces of all of them.

Source: the question is that of Brehmer et al. (2024), arXiv:2410.23179, whose simulator and meshes were not found.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from remul_md.errors import InputError
from remul_md.files import changed_values, owned, replace_atomically
from remul_md.labels.extras import require_package
from remul_md.studies.jobs import run_jobs
from remul_md.studies.rigid_meshes import KINDS, Array, Indices, drawn_mesh, mass_properties

World = Literal["free", "floor"]
Numbers = NDArray[np.float32]
GRAVITY = 9.81  # m/s^2, where there is a floor
HORIZON_S = 0.4
TIMESTEP_S = 0.002
MASS_KG = (0.5, 2.0)  # log-uniform, whatever the size of the body
SPREAD_M = 0.5  # standard deviation of a coordinate of the centres
CLOSEST_M = 0.02  # between the balls around two bodies, and between a ball and the floor
DROP_M = 0.8  # and at most so much higher above the floor
SPEED_M_S, SPIN_RAD_S = 0.5, 3.0  # standard deviations of the components
APPROACH_PER_S = 2.0  # bodies fly towards the middle of the scene, the faster the farther they are
FRICTION = 0.5  # sliding
PART = 500  # scenes
ARRAYS = ("masses", "faces", "start", "velocities", "later", "contact_steps")


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """What a scene is made of.

    Args:
        world: "free": no gravity and no floor, which is also the frame that falls with the bodies; "floor": both.
        kinds: of the meshes, one body each, in this order.
        horizon_s: time between start and end.
    Raises:
        InputError: an unknown kind or world, or no time.
    """

    world: World = "free"
    kinds: tuple[str, ...] = tuple(KINDS)
    horizon_s: float = HORIZON_S

    def __post_init__(self) -> None:
        if self.world not in ("free", "floor"):
            raise InputError(f"world must be free or floor, got {self.world!r}")
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise InputError(f"kinds must be some of {', '.join(KINDS)}, got {', '.join(self.kinds) or 'none'}")
        if not self.horizon_s >= TIMESTEP_S:
            raise InputError(f"horizon_s must be >= {TIMESTEP_S} s, the time step, got {self.horizon_s}")

    @property
    def body_of_vertex(self) -> Indices:
        """Which body each vertex belongs to, [V]."""
        return np.repeat(np.arange(len(self.kinds)), [KINDS[kind][0] for kind in self.kinds])

    @property
    def body_of_face(self) -> Indices:
        """Which body each face belongs to, [F]."""
        return np.repeat(np.arange(len(self.kinds)), [KINDS[kind][1] for kind in self.kinds])


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenes:
    """Scenes of the same kinds of bodies.

    Numbers are float32, indices int32.

    Args:
        masses: [B, K], kg.
        faces: vertices of the faces, counterclockwise seen from outside, [B, F, 3].
        start: vertices at the start, [B, V, 3], m.
        velocities: of the vertices at the start, [B, V, 3], m/s.
        later: vertices after the horizon, [B, V, 3], m.
        contact_steps: steps of the simulation in which something touched something, [B].
        options: what they were made of.
    """

    masses: Numbers
    faces: NDArray[np.int32]
    start: Numbers
    velocities: Numbers
    later: Numbers
    contact_steps: NDArray[np.int32]
    options: SceneOptions

    def __len__(self) -> int:
        return len(self.masses)


@dataclass(frozen=True, kw_only=True, eq=False)
class Body:
    """A body at the start of a scene: its mesh about its centre of mass, and how it stands and moves."""

    vertices: Array
    faces: Indices
    mass: float
    place: Array
    rotation: Array
    velocity: Array
    spin: Array


def require_mujoco() -> str:
    """Name and version of MuJoCo.

    Raises:
        InputError: it is not installed; the extra is named.
    """
    return require_package("mujoco", module="mujoco", need="a scene of rigid bodies needs mujoco", extra="rigid-bodies")


def drawn_bodies(options: SceneOptions, rng: np.random.Generator) -> list[Body]:
    """Bodies that touch neither each other nor the floor, in random orientations, on their way to each other."""
    meshes = [drawn_mesh(kind, rng) for kind in options.kinds]
    radii = np.array([np.linalg.norm(vertices, axis=1).max() for vertices, _ in meshes])
    apart = radii[:, None] + radii + CLOSEST_M
    np.fill_diagonal(apart, 0.0)
    spread = SPREAD_M
    while True:
        places = rng.normal(scale=spread, size=(len(meshes), 3))
        if options.world == "floor":
            places[:, 2] = radii + CLOSEST_M + rng.uniform(0.0, DROP_M, size=len(meshes))
        if (np.linalg.norm(places[:, None] - places, axis=2) >= apart).all():
            break
        spread *= 1.02  # many or large bodies need more room
    approach = APPROACH_PER_S * (places.mean(0) - places)
    if options.world == "floor":
        approach[:, 2] = 0.0  # gravity sees to that
    return [
        Body(
            vertices=vertices,
            faces=faces,
            mass=float(np.exp(rng.uniform(*np.log(MASS_KG)))),
            place=place,
            rotation=Rotation.from_quat(rng.normal(size=4)).as_matrix(),
            velocity=towards + rng.normal(scale=SPEED_M_S, size=3),
            spin=rng.normal(scale=SPIN_RAD_S, size=3),
        )
        for (vertices, faces), place, towards in zip(meshes, places, approach, strict=True)
    ]


class Simulation:
    """Bodies in a world of MuJoCo, from their start on; the state is read as arrays.

    Args:
        bodies: at least one.
        gravity: m/s^2, along -z.
        floor: whether there is one, at z = 0.
        timestep_s: of the classical Runge-Kutta method, s.
    Raises:
        InputError: mujoco is not installed.
    """

    def __init__(
        self, bodies: Sequence[Body], *, gravity: float = 0.0, floor: bool = False, timestep_s: float = TIMESTEP_S
    ) -> None:
        require_mujoco()
        import mujoco

        self.bodies, spec = bodies, mujoco.MjSpec()
        self._step = mujoco.mj_step
        spec.option.timestep, spec.option.gravity = timestep_s, [0.0, 0.0, -gravity]
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_RK4
        for number, body in enumerate(bodies):
            mesh = spec.add_mesh(name=f"mesh{number}")
            mesh.uservert, mesh.userface = body.vertices.flatten(), body.faces.astype(np.int32).flatten()
            inertia = body.mass * mass_properties(body.vertices[body.faces])[2]
            part = spec.worldbody.add_body(mass=body.mass, ipos=[0.0, 0.0, 0.0])
            part.explicitinertial = True
            part.fullinertia = inertia[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
            part.add_freejoint()
            part.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"mesh{number}", friction=[FRICTION, 0.005, 0.0001])
        if floor:
            plane = mujoco.mjtGeom.mjGEOM_PLANE
            spec.worldbody.add_geom(type=plane, size=[0.0, 0.0, 1.0], friction=[FRICTION, 0.005, 0.0001])
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        places, speeds = self.data.qpos.reshape(-1, 7), self.data.qvel.reshape(-1, 6)
        for number, body in enumerate(bodies):
            quaternion = np.zeros(4)
            mujoco.mju_mat2Quat(quaternion, body.rotation.flatten())
            places[number, :3], places[number, 3:] = body.place, quaternion
            speeds[number, :3], speeds[number, 3:] = body.velocity, body.rotation.T @ body.spin
        mujoco.mj_forward(self.model, self.data)

    def advance(self, n_steps: int) -> int:
        """Take steps; returns in how many of them something touched something."""
        touching = 0
        for _ in range(n_steps):
            self._step(self.model, self.data)
            touching += int(self.data.ncon > 0)
        return touching

    def placed(self) -> tuple[Array, Array, Array, Array]:
        """Centres [K, 3], rotations [K, 3, 3], velocities of the centres and angular velocities [K, 3], world frame."""
        places, speeds = self.data.qpos.reshape(-1, 7), self.data.qvel.reshape(-1, 6)
        rotations = Rotation.from_quat(places[:, [4, 5, 6, 3]]).as_matrix()
        return places[:, :3].copy(), rotations, speeds[:, :3].copy(), np.einsum("kij,kj->ki", rotations, speeds[:, 3:])

    def vertices(self) -> tuple[Array, Array]:
        """Vertices and their velocities, [V, 3] both, of all bodies in their order."""
        found = []
        for body, centre, rotation, velocity, spin in zip(self.bodies, *self.placed(), strict=True):
            reach = body.vertices @ rotation.T
            found.append((centre + reach, velocity + np.cross(spin, reach)))
        points, speeds = (np.concatenate(each) for each in zip(*found, strict=True))
        return points, speeds


def simulated_scene(number: int, *, seed: int, options: SceneOptions) -> dict[str, Any]:
    """One scene as arrays without the first dimension of `Scenes`; see there."""
    floor = options.world == "floor"
    bodies = drawn_bodies(options, np.random.default_rng([seed, number]))
    simulation = Simulation(bodies, gravity=GRAVITY if floor else 0.0, floor=floor)
    start, velocities = simulation.vertices()
    contact_steps = simulation.advance(round(options.horizon_s / TIMESTEP_S))
    firsts = np.cumsum([0, *(len(body.vertices) for body in bodies)])
    return {
        "masses": np.array([body.mass for body in bodies]),
        "faces": np.concatenate([first + body.faces for first, body in zip(firsts, bodies, strict=False)]),
        "start": start,
        "velocities": velocities,
        "later": simulation.vertices()[0],
        "contact_steps": np.int64(contact_steps),
    }


def simulate_scenes(numbers: Sequence[int], *, seed: int, options: SceneOptions) -> Scenes:
    """The scenes with these numbers.

    Raises:
        InputError: mujoco is not installed, or no scene is asked for.
    """
    if not numbers:
        raise InputError("the number of scenes must be >= 1, got 0")
    made = [simulated_scene(number, seed=seed, options=options) for number in numbers]
    arrays: dict[str, Any] = {name: np.stack([each[name] for each in made]) for name in ARRAYS}
    return Scenes(
        **{name: each.astype(np.int32 if each.dtype.kind == "i" else np.float32) for name, each in arrays.items()},
        options=options,
    )


def write_scenes(path: Path, *, n_scenes: int, seed: int, options: SceneOptions, n_jobs: int = 1) -> None:
    """Make scenes 0 to `n_scenes` - 1 of a seed and keep them in an HDF5 file; what is there already is not made again.

    Parts of `PART` scenes are whole files beside it until all are there, so whatever ends the process, a full disk too,
    at most the parts in hand are lost, and a call with the same arguments goes on.

    Args:
        path: the file, such as `scenes.h5`.
        n_scenes: >= 1.
        seed: of everything drawn.
        options: what a scene is.
        n_jobs: processes at a time; the bits of the file do not depend on it.
    Raises:
        InputError: mujoco is not installed, the file or a part holds other scenes, or it cannot be written.
    """
    if n_scenes < 1:
        raise InputError(f"the number of scenes must be >= 1, got {n_scenes}")
    made_by = {"seed": seed, **asdict(options)}
    with owned(path):
        if path.is_file():
            _check(path, {**made_by, "n_scenes": n_scenes})
            return
        made_by["simulator"] = require_mujoco()
        parts = {
            path.with_name(f"{path.stem}-from-{first:07d}{path.suffix}"): range(first, min(first + PART, n_scenes))
            for first in range(0, n_scenes, PART)
        }
        missing = {
            part.name: (part, [*of], seed, options) for part, of in parts.items() if not _is_there(part, of, made_by)
        }
        if n_jobs == 1:
            for arguments in missing.values():
                _write_part(*arguments)
        elif missing:
            run_jobs(_write_part, missing, n_jobs=n_jobs)
        found = [read_scenes(part) for part in parts]
        joined = Scenes(
            **{name: np.concatenate([getattr(each, name) for each in found]) for name in ARRAYS}, options=options
        )
        _write(path, joined, made_by)
        for part in parts:
            part.unlink()


def _write_part(path: Path, numbers: list[int], seed: int, options: SceneOptions) -> dict[str, Any]:
    made_by = {"seed": seed, **asdict(options), "simulator": require_mujoco()}
    _write(path, simulate_scenes(numbers, seed=seed, options=options), made_by)
    return {}


def _is_there(part: Path, of: range, made_by: dict[str, Any]) -> bool:
    if not part.is_file():
        return False
    _check(part, made_by)
    return bool(_described(part)["n_scenes"] == len(of))


def _check(path: Path, wanted: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(wanted))
    if changed := changed_values(_described(path), plain):
        raise InputError(f"{path}: holds other scenes: {'; '.join(changed)}; choose another file")


def _described(path: Path) -> dict[str, Any]:
    with _opened(path) as file:
        return {**json.loads(file.attrs["made_by"]), "n_scenes": len(file["masses"])}


def _opened(path: Path) -> Any:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read as HDF5 ({error}); remove it, and make it again") from error
    if "made_by" not in file.attrs or not set(ARRAYS) <= set(file):
        file.close()
        raise InputError(f"{path}: holds no scenes of rigid bodies; make them with `remul-md study rigid-bodies`")
    return file


def _write(path: Path, scenes: Scenes, made_by: dict[str, Any]) -> None:
    # In memory first: the library may end the process where a disk is full.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["made_by"] = json.dumps(made_by)
        for name in ARRAYS:
            file.create_dataset(name, data=getattr(scenes, name))
    try:
        replace_atomically(path, content.getvalue())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}); free space and call it again, it goes on") from error


def read_scenes(path: Path) -> Scenes:
    """The scenes of a file.

    Raises:
        InputError: the file is missing, damaged, or no such file.
    """
    with _opened(path) as file:
        made_by = json.loads(file.attrs["made_by"])
        options = SceneOptions(world=made_by["world"], kinds=tuple(made_by["kinds"]), horizon_s=made_by["horizon_s"])
        return Scenes(**{name: file[name][:] for name in ARRAYS}, options=options)
