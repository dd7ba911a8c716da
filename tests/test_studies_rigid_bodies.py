"""Rigid bodies: closed forms of free motion, what collisions keep and lose, and a file that outlives what ends it."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from remul_md.errors import InputError
from remul_md.studies import rigid_bodies
from remul_md.studies.rigid_bodies import (
    ARRAYS,
    GRAVITY,
    TIMESTEP_S,
    Body,
    SceneOptions,
    Simulation,
    drawn_bodies,
    read_scenes,
    simulate_scenes,
    write_scenes,
)
from remul_md.studies.rigid_meshes import KINDS, drawn_mesh, flown, hull_faces, mass_properties, motion_of

pytest.importorskip("mujoco", reason="remul-md[rigid-bodies] is not installed")
PAIR = SceneOptions(kinds=("box", "tetrahedron"), horizon_s=0.05)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def a_body(vertices: np.ndarray, **motion: np.ndarray) -> Body:
    still = dict.fromkeys(("place", "velocity", "spin"), np.zeros(3))
    turn = Rotation.from_quat(rng(5).normal(size=4)).as_matrix()
    return Body(vertices=vertices, faces=hull_faces(vertices), mass=1.7, rotation=turn, **{**still, **motion})


def box(*half: float) -> np.ndarray:
    return np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * np.array(half)


@pytest.mark.parametrize("kind", KINDS)
def test_meshes_are_closed_convex_and_about_their_centre(kind: str) -> None:
    vertices, faces = drawn_mesh(kind, rng(1))
    assert (len(vertices), len(faces)) == KINDS[kind]
    edges = {(face[i], face[(i + 1) % 3]) for face in faces.tolist() for i in range(3)}
    assert len(edges) == 3 * len(faces)  # each edge once in each direction: closed, and of one orientation
    assert {(b, a) for a, b in edges} == edges
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    heights = np.einsum("fi,vfi->vf", np.cross(b - a, c - a), vertices[:, None] - a)
    assert heights.max() < 1e-12  # no vertex lies outside any face
    points = rng(2).uniform(vertices.min(0), vertices.max(0), size=(100_000, 3))
    inside = points[(np.einsum("fi,pfi->pf", np.cross(b - a, c - a), points[:, None] - a) < 0).all(1)]
    volume, centre, inertia = mass_properties(vertices[faces])
    assert volume == pytest.approx(len(inside) / len(points) * np.ptp(vertices, axis=0).prod(), rel=0.03)
    assert np.abs(centre).max() < 1e-12
    second = inside.T @ inside / len(inside)
    assert inertia == pytest.approx(np.trace(second) * np.eye(3) - second, abs=0.03 * np.trace(second))


def test_a_box_weighs_what_the_formula_says() -> None:
    vertices = box(0.1, 0.2, 0.3) + np.array([3.0, -2.0, 1.0])
    volume, centre, inertia = mass_properties(vertices[hull_faces(vertices)])
    assert volume == pytest.approx(8 * 0.1 * 0.2 * 0.3)
    assert centre == pytest.approx([3.0, -2.0, 1.0])
    assert inertia == pytest.approx(np.diag([0.13, 0.10, 0.05]) / 3.0, abs=1e-12)
    with pytest.raises(InputError, match=r"'cone'.*icosahedron"):
        drawn_mesh("cone", rng(0))


def test_free_fall() -> None:
    start, speed, n_steps = np.array([0.3, -0.2, 5.0]), np.array([1.0, 2.0, 3.0]), 150
    simulation = Simulation([a_body(box(0.1, 0.2, 0.3), place=start, velocity=speed)], gravity=GRAVITY)
    assert simulation.advance(n_steps) == 0
    time_s = n_steps * TIMESTEP_S
    expected = start + speed * time_s - [0, 0, 0.5 * GRAVITY * time_s**2]
    assert simulation.placed()[0][0] == pytest.approx(expected, abs=1e-9)


def test_a_symmetric_top_turns_as_in_the_closed_form() -> None:
    """R(t) = exp(t L / I1) exp(t w3 (1 - I3 / I1) n) R0: precession about L, and a spin about the axis n."""
    spin, time_s = np.array([2.0, -3.0, 4.0]), 0.4
    body = a_body(box(0.2, 0.2, 0.35), spin=spin)
    _, _, inertia = mass_properties(body.vertices[body.faces])
    across, along = inertia[0, 0], inertia[2, 2]
    axis = body.rotation[:, 2]
    momentum = body.rotation @ inertia @ body.rotation.T @ spin
    about_axis = spin @ axis * (1.0 - along / across) * axis
    turn = Rotation.from_rotvec(time_s * momentum / across) * Rotation.from_rotvec(time_s * about_axis)
    simulation = Simulation([body])
    start, velocities = simulation.vertices()
    simulation.advance(round(time_s / TIMESTEP_S))
    expected = start @ turn.as_matrix().T
    assert simulation.vertices()[0] == pytest.approx(expected, abs=2e-6)
    corners = flown(start[body.faces], velocities[body.faces], time_s=time_s)
    assert corners == pytest.approx(expected[body.faces], abs=1e-9)
    assert np.abs(corners - start[body.faces]).max() > 0.3


def test_bodies_of_any_shape_fly_as_the_simulation_says() -> None:
    for number in range(3):
        body = replace(drawn_bodies(SceneOptions(kinds=("hull",)), rng(number))[0], velocity=np.array([0.3, -2.0, 1.0]))
        simulation = Simulation([body], gravity=3.0)
        corners, speeds = (each[body.faces] for each in simulation.vertices())
        found = motion_of(corners, speeds)
        assert np.stack(found) == pytest.approx(np.stack([body.place, body.velocity, body.spin]), abs=1e-12)
        simulation.advance(100)
        expected = simulation.vertices()[0][body.faces]
        assert flown(corners, speeds, time_s=100 * TIMESTEP_S, gravity=3.0) == pytest.approx(expected, abs=3e-6)


def kept(simulation: Simulation, gravity: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Momentum, angular momentum about the origin, and energy."""
    momentum, angular, energy = np.zeros(3), np.zeros(3), 0.0
    for body, x, turn, v, w in zip(simulation.bodies, *simulation.placed(), strict=True):
        inertia = body.mass * turn @ mass_properties(body.vertices[body.faces])[2] @ turn.T
        momentum = momentum + body.mass * v
        angular = angular + body.mass * np.cross(x, v) + inertia @ w
        energy += 0.5 * body.mass * v @ v + 0.5 * w @ inertia @ w + body.mass * gravity * x[2]
    return momentum, angular, energy


@pytest.mark.parametrize("world", ["free", "floor"])
def test_collisions_keep_momentum_without_a_floor_and_lose_energy(world: str) -> None:
    options, gravity = SceneOptions(world=world), GRAVITY if world == "floor" else 0.0  # type: ignore[arg-type]
    for number in range(4):
        simulation = Simulation(drawn_bodies(options, rng(3, number)), gravity=gravity, floor=world == "floor")
        before, touching, highest = kept(simulation, gravity), 0, 0.0
        for _ in range(20):
            touching += simulation.advance(10)
            highest = max(highest, kept(simulation, gravity)[2])
        momentum, angular, energy = kept(simulation, gravity)
        assert touching > 10
        assert highest < before[2] * (1 + 1e-9)
        assert energy < 0.99 * before[2]
        if world == "free":
            assert momentum == pytest.approx(before[0], abs=1e-12)
            assert angular == pytest.approx(before[1], abs=1e-4)
            assert np.abs(angular).max() > 0.1
        else:
            assert np.abs(momentum - before[0])[2] > 0.1
            assert simulation.vertices()[0][:, 2].min() > -0.06  # contacts give way a little


def test_nothing_touches_at_the_start() -> None:
    for world in ("free", "floor"):
        options = SceneOptions(world=world)
        simulation = Simulation(drawn_bodies(options, rng(8)), floor=world == "floor")
        assert simulation.data.ncon == 0
        assert world == "free" or simulation.vertices()[0][:, 2].min() > 0


def test_a_scene_is_the_same_whatever_is_made_beside_it() -> None:
    alone, among = (simulate_scenes(numbers, seed=4, options=PAIR) for numbers in ([7], [5, 7, 6]))
    other = simulate_scenes([7], seed=5, options=PAIR)
    for name in ARRAYS:
        assert np.array_equal(getattr(alone, name)[0], getattr(among, name)[1])
    assert not np.array_equal(alone.start, other.start)
    assert alone.start.shape == (1, 12, 3)
    assert alone.faces.shape == (1, 16, 3)
    assert alone.start.dtype == np.float32


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rigid_bodies, "PART", 3)


@pytest.mark.usefixtures("small_parts")
def test_a_file_is_made_once_and_is_not_that_of_others(tmp_path: Path) -> None:
    path = tmp_path / "scenes.h5"
    write_scenes(path, n_scenes=7, seed=4, options=PAIR)
    assert [each.name for each in tmp_path.iterdir()] == ["scenes.h5"]
    found, expected = read_scenes(path), simulate_scenes(range(7), seed=4, options=PAIR)
    assert found.options == PAIR
    assert all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in ARRAYS)
    written = path.stat().st_mtime_ns
    write_scenes(path, n_scenes=7, seed=4, options=PAIR)
    assert path.stat().st_mtime_ns == written
    for other in ({"seed": 5}, {"n_scenes": 8}, {"options": replace(PAIR, world="floor")}):
        with pytest.raises(InputError, match="holds other scenes"):
            write_scenes(path, **{"n_scenes": 7, "seed": 4, "options": PAIR, **other})  # type: ignore[arg-type]


def test_a_full_disk_leaves_files_that_can_be_read_and_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rigid_bodies, "PART", 10)
    path = tmp_path / "scenes.h5"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, hard))  # a part fits, all of them do not
    try:
        with pytest.raises(InputError, match=r"cannot be written.*goes on"):
            write_scenes(path, n_scenes=31, seed=4, options=PAIR)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    parts = sorted(tmp_path.glob("*.h5"))
    assert [len(read_scenes(part)) for part in parts] == [10, 10, 10, 1]
    with pytest.raises(InputError, match="holds other scenes: seed was 4, now 9"):
        write_scenes(path, n_scenes=31, seed=9, options=PAIR)
    parts[2].unlink()
    made: list[int] = []
    simulate: Callable[..., dict[str, Any]] = rigid_bodies.simulated_scene

    def counted(number: int, *, seed: int, options: SceneOptions) -> dict[str, Any]:
        made.append(number)
        return simulate(number, seed=seed, options=options)

    monkeypatch.setattr(rigid_bodies, "simulated_scene", counted)
    write_scenes(path, n_scenes=31, seed=4, options=PAIR)
    assert made == [*range(20, 30)]
    assert [each.name for each in tmp_path.iterdir()] == ["scenes.h5"]
    expected = simulate_scenes([0, 25, 30], seed=4, options=PAIR)
    assert np.array_equal(read_scenes(path).later[[0, 25, 30]], expected.later)


SCRIPT = """
import sys
from pathlib import Path
from remul_md.studies import rigid_bodies
from remul_md.studies.rigid_bodies import SceneOptions, write_scenes

rigid_bodies.PART = 12
write_scenes(Path(sys.argv[1]), n_scenes=120, seed=4, options=SceneOptions(kinds=("tetrahedron",), horizon_s=0.01))
"""


@pytest.mark.slow
def test_a_killed_process_and_more_processes_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name / "scenes.h5" for name in ("killed", "two")]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(paths[0])])
    try:
        end = time.monotonic() + 60
        while not [*paths[0].parent.glob("scenes-from-*")] and time.monotonic() < end:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not paths[0].exists()
    assert [len(read_scenes(part)) for part in paths[0].parent.glob("scenes-from-*")]
    options = SceneOptions(kinds=("tetrahedron",), horizon_s=0.01)
    monkeypatch.setattr(rigid_bodies, "PART", 12)
    write_scenes(paths[0], n_scenes=120, seed=4, options=options)
    write_scenes(paths[1], n_scenes=120, seed=4, options=options, n_jobs=2)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"world.*'moon'"):
        SceneOptions(world="moon")  # type: ignore[arg-type]
    for kinds in ((), ("box", "cone")):
        with pytest.raises(InputError, match="kinds must be some of icosahedron, box"):
            SceneOptions(kinds=kinds)
    with pytest.raises(InputError, match="horizon_s"):
        SceneOptions(horizon_s=0.0)
    with pytest.raises(InputError, match=">= 1, got 0"):
        write_scenes(tmp_path / "scenes.h5", n_scenes=0, seed=0, options=PAIR)
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    with pytest.raises(InputError, match=r"damaged\.h5.*cannot be read"):
        read_scenes(damaged)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(InputError, match=r"pip install \"remul-md\[rigid-bodies\]\""):
        write_scenes(tmp_path / "scenes.h5", n_scenes=1, seed=0, options=PAIR)
