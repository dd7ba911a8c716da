"""Whatever ends a file early is an error or is said, with the number of frames: files joined by `cat`, and cut ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from remul_md.datasets import read_frames
from remul_md.dynamics.read import open_trajectory
from remul_md.dynamics.readers.h5md import export_h5md
from remul_md.errors import InputError

Write = Callable[[Sequence[Atoms], Path], None]


def frames(n_frames: int, *, name: str = "CH3CH2OH", first: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(n_frames)
    made = []
    for index in range(first, first + n_frames):
        atoms = molecule(name)
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        atoms.info["time_ps"] = 0.01 * index
        atoms.calc = SinglePointCalculator(atoms, energy=-3.0, forces=rng.normal(size=atoms.positions.shape))
        made.append(atoms)
    return made


def write_npz(structures: Sequence[Atoms], path: Path) -> None:
    positions = np.array([atoms.positions for atoms in structures])
    np.savez(path, z=structures[0].numbers, R=positions, E=np.zeros(len(positions)), F=np.zeros_like(positions))


def write_database(structures: Sequence[Atoms], path: Path) -> None:
    with connect(str(path)) as database:
        for atoms in structures:
            database.write(atoms)


def write_h5md(structures: Sequence[Atoms], path: Path) -> None:
    source = path.with_suffix(".traj")
    ase.io.write(source, structures)
    export_h5md(source, path)


def write_by_mdanalysis(structures: Sequence[Atoms], path: Path) -> None:
    import MDAnalysis

    topology = path.with_name("topology.pdb")
    ase.io.write(topology, structures[0])
    universe = MDAnalysis.Universe(str(topology), to_guess=())
    with MDAnalysis.Writer(str(path), n_atoms=len(structures[0])) as writer:
        for index, atoms in enumerate(structures):
            universe.atoms.positions, universe.dimensions = atoms.positions, [30, 30, 30, 90, 90, 90]
            universe.trajectory.ts.time = 10.0 * atoms.info["time_ps"]
            universe.trajectory.ts.frame = index
            writer.write(universe.atoms)


def write_dump(structures: Sequence[Atoms], path: Path) -> None:
    lines = []
    for index, atoms in enumerate(structures):
        lines += ["ITEM: TIMESTEP", f"{index}", "ITEM: NUMBER OF ATOMS", f"{len(atoms)}"]
        lines += ["ITEM: BOX BOUNDS pp pp pp", *3 * ["0 30"], "ITEM: ATOMS id type x y z"]
        lines += [f"{k + 1} 1 {x:.5f} {y:.5f} {z:.5f}" for k, (x, y, z) in enumerate(atoms.positions)]
    ase.io.write(path.with_name("topology.pdb"), structures[0])
    path.write_text("\n".join(lines) + "\n")


def joined(write: Write, path: Path) -> Path:
    """Two files of 5 and 7 frames, one behind the other."""
    parts = [path.with_name(f"{part}{path.suffix}") for part in ("one", "two")]
    for part, structures in zip(parts, (frames(5), frames(7, first=5)), strict=True):
        write(structures, part)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def n_read(path: Path) -> int:
    own = path.suffix in (".traj", ".xyz", ".h5md")
    topology = None if own else path.with_name("topology.pdb")
    interval = 1.0 if path.suffix == ".lammpsdump" else None
    opened = open_trajectory(path, topology=topology, frame_interval_fs=interval)
    n_frames = sum(len(block) for block in opened.blocks())
    assert n_frames == opened.n_frames
    return n_frames


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".traj", ase_write := lambda structures, path: ase.io.write(path, structures)),
        (".npz", write_npz),
        (".db", write_database),
    ],
)
def test_joined_data_files_are_refused(suffix: str, write: Write, tmp_path: Path) -> None:
    path = joined(write, tmp_path / f"both{suffix}")
    with pytest.raises(InputError, match="were two files joined"):
        read_frames(path, allow_implausible=True)
    assert len(read_frames(tmp_path / f"two{suffix}", allow_implausible=True)) == 7


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".traj", ase_write),
        (".h5md", write_h5md),
        (".ncdf", write_by_mdanalysis),
        (".dcd", write_by_mdanalysis),
    ],
)
def test_joined_trajectories_are_refused(suffix: str, write: Write, tmp_path: Path) -> None:
    path = joined(write, tmp_path / f"both{suffix}")
    with pytest.raises(InputError, match=r"were two files joined|two files were joined"):
        n_read(path)
    assert n_read(tmp_path / f"two{suffix}") == 7


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("suffix", "write"),
    [(".xyz", ase_write), (".xtc", write_by_mdanalysis), (".trr", write_by_mdanalysis), (".lammpsdump", write_dump)],
)
def test_formats_without_a_head_may_be_joined(suffix: str, write: Write, tmp_path: Path) -> None:
    assert n_read(joined(write, tmp_path / f"both{suffix}")) == 12


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["H2O", "C6H6"])  # XTC does not compress up to nine atoms
@pytest.mark.parametrize("suffix", [".dcd", ".xtc", ".trr", ".lammpsdump", ".traj", ".h5md", ".xyz"])
def test_a_cut_file_never_ends_in_silence(
    name: str, suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writers: dict[str, Write] = {".lammpsdump": write_dump, ".traj": ase_write, ".xyz": ase_write, ".h5md": write_h5md}
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    writers.get(suffix, write_by_mdanalysis)(frames(6, name=name), whole)
    content, noted = whole.read_bytes(), 0
    assert n_read(whole) == 6
    assert not caplog.records
    for n_bytes in (*range(1, 12), 40, 55, 60, 100, len(content) // 3 + 7):
        caplog.clear()
        for old in tmp_path.glob(".cut*"):  # MDAnalysis keeps where the frames of an older file began
            old.unlink()
        cut.write_bytes(content[:-n_bytes])
        try:
            with caplog.at_level(logging.WARNING):
                found = n_read(cut)
        except InputError:
            continue
        said = " ".join(record.message for record in caplog.records)
        assert (found < 6 and f"{found} whole frames are read" in said) or "the last line has no end" in said, n_bytes
        noted += 1
    assert noted > 0 or suffix in (".traj", ".h5md", ".xyz", ".trr")
