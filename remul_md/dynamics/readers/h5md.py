"""Trajectories as H5MD 1.1, with units that MDAnalysis reads.

MDAnalysis refuses eV: forces are in kJ/mol/Angstrom, velocities in Angstrom/ps. Energies are observables in eV,
which it passes through. MDAnalysis takes elements and masses from a topology, so a PDB file is written beside.
Source: de Buyl, Colberg, Höfling (2014), doi:10.1016/j.cpc.2014.01.018, specification 1.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from remul_md._version import __version__
from remul_md.datasets.readers.ends import check_hdf5_end
from remul_md.dynamics.momenta import kinetic_energy_eV
from remul_md.dynamics.pdb import write_topology
from remul_md.dynamics.readers.ase_files import count_traj, traj_frames
from remul_md.dynamics.recording import writing
from remul_md.dynamics.trajectory import TrajectoryArrays, block_length, frame_arrays
from remul_md.errors import InputError
from remul_md.files import written_beside

if TYPE_CHECKING:
    from ase import Atoms

FRAMES_AT_ONCE = 64  # read, converted and written together: memory does not grow with the trajectory
CHUNK_BYTES = 2**20  # of a data set in the file, at most (one frame at least)

# Factor to our units (Angstrom, ps, Angstrom/fs, eV/Angstrom) for the units that a file may name.
_LENGTH = {"Angstrom": 1.0, "angstrom": 1.0, "A": 1.0, "nm": 10.0, "pm": 0.01}
_TIME = {"ps": 1.0, "fs": 1e-3, "ns": 1e3}


def _energy_per_mole() -> dict[str, float]:
    from ase import units

    return {"kJ mol-1": units.kJ / units.mol, "kcal mol-1": units.kcal / units.mol, "eV": 1.0}


def export_h5md(trajectory: str | Path, output: str | Path) -> Path:
    """Copy an ASE trajectory of `run_md` to H5MD 1.1; memory stays flat. Returns the topology file.

    The topology, `NAME.topology.pdb` beside `NAME.h5md`, holds elements, bonds and first positions:
    `MDAnalysis.Universe("run.topology.pdb", "run.h5md")`. Masses in the H5MD file are those of the run (MDAnalysis
    takes the standard ones of the elements).

    Args:
        trajectory: `.traj`; frames need `info["time_ps"]`, and all the same fields. Not modified.
        output: `.h5md`; replaced at once when it is complete.
    Raises:
        InputError: unreadable, empty or varying trajectory, no times, an output that cannot be written.
    """
    import h5py

    source, target = Path(trajectory), Path(output)
    topology = target.with_suffix(".topology.pdb")
    if count_traj(source) == 0:
        raise InputError(f"{str(source)!r} holds no frame; nothing to export")
    with writing(target), written_beside(target) as temporary:
        with h5py.File(temporary, "w") as handle:
            frames, first, head = traj_frames(source), 0, None
            while some := list(islice(frames, FRAMES_AT_ONCE)):
                if head is None:
                    head = some[0]
                    _write_header(handle, head)
                arrays = frame_arrays(some, name=str(source), first=first, head=head)
                _append(handle, arrays, some, first=first)
                first += len(some)
        assert head is not None
        write_topology(head, topology)
    return topology


def _write_header(handle: Any, atoms: Atoms) -> None:
    handle.create_group("h5md").attrs["version"] = np.array([1, 1], dtype=np.int32)
    handle["h5md"].create_group("author").attrs["name"] = "unknown"
    handle.create_group("observables")
    creator = handle["h5md"].create_group("creator")
    creator.attrs["name"], creator.attrs["version"] = "remul-md", __version__
    particles = handle.create_group("particles/trajectory")
    box = particles.create_group("box")
    box.attrs["dimension"] = 3
    box.attrs["boundary"] = ["periodic" if flag else "none" for flag in atoms.pbc]
    particles["species"] = atoms.numbers.astype(np.int32)  # atomic numbers
    particles["mass"] = atoms.get_masses()
    particles["mass"].attrs["unit"] = "amu"


def _append(handle: Any, arrays: TrajectoryArrays, frames: Sequence[Atoms], *, first: int) -> None:
    from ase import units

    kJ_per_mol = units.kJ / units.mol
    particles = handle["particles/trajectory"]
    elements: dict[str, tuple[Any, str | None]] = {"position": (arrays.positions, "Angstrom")}
    observables: dict[str, tuple[Any, str | None]] = {}
    kinetic = None
    if arrays.momenta is not None:
        elements["velocity"] = (1000.0 * arrays.momenta / arrays.masses[:, None], "Angstrom ps-1")
        kinetic = kinetic_energy_eV(arrays.momenta, arrays.masses)
        observables["kinetic_energy"] = (kinetic, "eV")
    if arrays.forces is not None:
        elements["force"] = (arrays.forces / kJ_per_mol, "kJ mol-1 Angstrom-1")
    if arrays.energy is not None:
        observables["potential_energy"] = (arrays.energy, "eV")
        if kinetic is not None:
            observables["total_energy"] = (arrays.energy + kinetic, "eV")
    try:
        steps = np.array([int(frame.info.get("step", first + k)) for k, frame in enumerate(frames)], dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"a frame from number {first} on has a step that is no number: {error}") from error
    groups = [(particles.require_group(name), value) for name, value in elements.items()]
    groups += [(handle.require_group(f"observables/{name}"), value) for name, value in observables.items()]
    if arrays.pbc.any():
        groups.append((particles.require_group("box/edges"), (arrays.cell, "Angstrom")))
    clock = particles["position"]
    _extend(clock, "step", steps, unit=None)
    _extend(clock, "time", arrays.time_ps, unit="ps")
    for group, (values, unit) in groups:
        _extend(group, "value", values, unit=unit)
        for name in ("step", "time"):
            if name not in group:
                group[name] = clock[name]  # a hard link: H5MD's way to say that elements share their times
    filled = [group for parent in (particles, handle["observables"]) for group in parent.values() if "value" in group]
    uneven = [group.name for group in filled if len(group["value"]) != len(clock["step"])]
    if uneven:
        raise InputError(f"some frames have no {', '.join(uneven)}; a trajectory of run_md has the same in all frames")


def _extend(group: Any, name: str, values: Any, *, unit: str | None) -> None:
    if name not in group:
        shape = values.shape[1:]
        n_chunk = max(1, min(FRAMES_AT_ONCE, CHUNK_BYTES // values[0].nbytes))
        group.create_dataset(
            name, shape=(0, *shape), maxshape=(None, *shape), chunks=(n_chunk, *shape), dtype=values.dtype
        )
        if unit is not None:
            group[name].attrs["unit"] = unit
    dataset = group[name]
    dataset.resize(dataset.shape[0] + len(values), axis=0)
    dataset[-len(values) :] = values


def count_h5md(path: Path) -> int:
    """Number of frames of an H5MD file.

    Raises:
        InputError: as `read_h5md`.
    """
    with _opened(path) as handle:
        return int(_particles(handle, path=path)["position/value"].shape[0])


def read_h5md(path: Path) -> Iterator[TrajectoryArrays]:
    """Frames of an H5MD file with units, some at a time; see `remul_md.dynamics.read.open_trajectory`.

    Raises:
        InputError: unreadable file, no positions or species, shapes that do not fit together, a unit that is missing
            or unknown.
    """
    with _opened(path) as handle:
        particles = _particles(handle, path=path)
        n_frames, n_atoms, _ = particles["position/value"].shape
        step = block_length(n_atoms)
        for start in range(0, n_frames, step):
            yield _read_particles(handle, particles, slice(start, min(start + step, n_frames)), path=path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    try:
        check_hdf5_end(path)
        with h5py.File(path, "r") as handle:
            yield handle
    except InputError:
        raise
    except (OSError, RuntimeError) as error:  # how h5py reports damage that the HDF5 library finds
        raise InputError(f"cannot read {str(path)!r}: {error}; it is truncated, corrupt or no HDF5") from error
    except Exception as error:  # KeyError, TypeError, AttributeError and more, where something else stands
        raise InputError(f"{str(path)!r} is not laid out as H5MD 1.1 says: {error}; convert it again") from error


def _particles(handle: Any, *, path: Path) -> Any:
    """The group of particles with its positions and elements."""
    groups = list(_entry(handle, "particles") or [])
    if len(groups) != 1:
        raise InputError(f"{str(path)!r} has the particle groups {groups}; a trajectory with exactly one is read")
    particles = handle["particles"][groups[0]]
    missing = [name for name in ("position", "species") if name not in particles]
    if missing:
        raise InputError(f"{str(path)!r} has no {', '.join(missing)} in {particles.name}; convert it with both")
    positions, species = particles["position/value"], particles["species"]
    n_atoms = species.shape[0] if species.shape else 0
    _require_shape(species, (n_atoms,), path=path)
    _require_shape(positions, (*positions.shape[:1], n_atoms, 3), path=path)
    if species.dtype.kind not in "iu":
        raise InputError(f"{str(path)!r}: {species.name} has type {species.dtype}; atomic numbers are read")
    return particles


def _entry(group: Any, name: str) -> Any:
    """What a group holds under a name, or None; not `group.get`, which gives None where the file is damaged, too."""
    return group[name] if group is not None and name in group else None


def _require_shape(dataset: Any, shape: tuple[int, ...], *, path: Path) -> None:
    if dataset.shape != shape:
        raise InputError(
            f"{str(path)!r}: {dataset.name} has shape {dataset.shape}, expected {shape} from species and positions; "
            "convert it with all atoms in all frames"
        )


def _read_particles(handle: Any, particles: Any, part: slice, *, path: Path) -> TrajectoryArrays:
    from ase.data import atomic_masses

    n_frames, n_atoms, _ = particles["position/value"].shape
    numbers = np.asarray(particles["species"]).astype(np.int64)
    if "mass" in particles:
        _require_shape(particles["mass"], (n_atoms,), path=path)
        masses = np.asarray(particles["mass"], dtype=np.float64)
    else:
        masses = atomic_masses[np.clip(numbers, 0, 118)]
    per_mole = _energy_per_mole()
    velocity = {f"{a} {t}-1": _LENGTH[a] / (1000.0 * _TIME[t]) for a in _LENGTH for t in _TIME}
    force = {f"{e} {a}-1": per_mole[e] / _LENGTH[a] for e in per_mole for a in _LENGTH}

    def values(group: Any, name: str, factors: dict[str, float], *shape: int) -> Any:
        if group[name].shape[:1] != (n_frames,):
            raise InputError(
                f"{str(path)!r}: {group.name} has {len(group[name])} frames, not as many as the positions; "
                "convert it with all of them in every frame"
            )
        _require_shape(group[name], (n_frames, *shape), path=path)
        if group[name].dtype.kind not in "iuf":
            raise InputError(f"{str(path)!r}: {group[name].name} has type {group[name].dtype}; real numbers are read")
        return np.asarray(group[name][part], dtype=np.float64) * _factor(group[name], factors, path=path)

    velocities = values(particles["velocity"], "value", velocity, n_atoms, 3) if "velocity" in particles else None
    energies = _entry(_entry(handle, "observables"), "potential_energy")
    boundary = [b.decode() if isinstance(b, bytes) else str(b) for b in particles["box"].attrs["boundary"]]
    if len(boundary) != 3 or not set(boundary) <= {"periodic", "none"}:
        raise InputError(f"{str(path)!r}: the box has the boundary {boundary}; three of periodic and none are read")
    return TrajectoryArrays(
        positions=values(particles["position"], "value", _LENGTH, n_atoms, 3),
        atomic_numbers=numbers,
        masses=masses,
        time_ps=values(particles["position"], "time", _TIME),
        pbc=np.array([flag == "periodic" for flag in boundary]),
        cell=_cell(particles["box"], part, n_frames=n_frames, path=path),
        momenta=None if velocities is None else velocities * masses[:, None],
        forces=values(particles["force"], "value", force, n_atoms, 3) if "force" in particles else None,
        energy=None if energies is None else values(energies, "value", per_mole),
    )


def _cell(box: Any, part: slice, *, n_frames: int, path: Path) -> Any:
    """Lattice vectors of some frames, [T, 3, 3], Angstrom: one box for all or one a frame, edges or their lengths."""
    import h5py

    cell = np.zeros((part.stop - part.start, 3, 3))
    if "edges" not in box:
        return cell
    fixed = isinstance(box["edges"], h5py.Dataset)
    dataset = box["edges"] if fixed else box["edges/value"]
    of_frames = () if fixed else (n_frames,)
    lengths = dataset.shape == (*of_frames, 3)
    _require_shape(dataset, (*of_frames, 3) if lengths else (*of_frames, 3, 3), path=path)
    values = np.asarray(dataset if fixed else dataset[part], dtype=np.float64) * _factor(dataset, _LENGTH, path=path)
    cell[:] = values[..., None] * np.eye(3) if lengths else values
    return cell


def _factor(dataset: Any, factors: dict[str, float], *, path: Path) -> float:
    unit = dataset.attrs.get("unit")
    text = unit.decode() if isinstance(unit, bytes) else unit
    if text not in factors:
        raise InputError(f"{str(path)!r}: {dataset.name} has unit {text!r}; known ones are {', '.join(factors)}")
    return factors[text]
