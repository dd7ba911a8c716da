"""What a file calls its entries, its atoms and itself, and how it is encoded, never makes its geometries unreadable."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.db import connect

from remul_md.datasets import read_frames, write_frames
from remul_md.datasets.structure_source import read_structure
from remul_md.dynamics.read import read_trajectory
from remul_md.errors import InputError

Run = Callable[..., tuple[int, str, str]]

# What this package, ASE or a database calls something of its own.
NAMES = [
    "arrays", "calc", "calculator", "cell", "celldisp", "charge", "charges", "comment", "config_type", "constraint",
    "data", "dipole", "energies", "field", "free_energy", "id", "ids", "info", "initial_charges", "initial_magmoms",
    "key_value_pairs", "magmom", "magmoms", "masses", "momenta", "move_mask", "n_atoms", "name", "numbers",
    "positions", "provenance", "results", "source", "species", "spin", "split", "step", "stress", "stresses",
    "symbols", "system_index", "tags", "Time", "trajectory_step", "unique_id", "velocities", "virial",
]  # fmt: skip
VALUES = ["train", "1", "-1.5", '"1 2 3"', "T", '"a b c"', '"[[1,2],[3,4]]"', "nan", '"_JSON {broken"', '""', "[1, 2]"]
ATOMS = ("C 0 0 0", "H 0 0 1.1", "H 1 0 -0.3", "H -0.5 0.9 -0.3")
POSITIONS = [[0, 0, 0], [0, 0, 1.1], [1, 0, -0.3], [-0.5, 0.9, -0.3]]


def frame(entries: str = "", *, column: str = "", values: str = "") -> str:
    """Methyl with energy and forces, further entries, a further column."""
    properties = f"Properties=species:S:1:pos:R:3:forces:R:3{column}"
    atoms = "".join(f"{atom} 0.5 {-number} 0 {values}\n" for number, atom in enumerate(ATOMS))
    return f"4\n{properties} energy=-3.5 {entries}\n{atoms}"


def check_read(path: Path, *, tag: object) -> None:
    """All readers of the file give the geometry, and labels as they stand."""
    frames = read_frames(path, allow_implausible=True)
    np.testing.assert_array_equal(frames.positions[:4], POSITIONS, err_msg=str(tag))
    assert frames.energy is not None, tag
    assert frames.forces is not None, tag
    assert frames.energy.tolist() == [-3.5, -3.5], tag
    np.testing.assert_array_equal(frames.forces[:4, 1], [0, -1, -2, -3], err_msg=str(tag))
    assert read_structure(path).numbers.tolist() == [6, 1, 1, 1], tag


def test_an_entry_of_the_user_may_have_any_name_and_value(tmp_path: Path) -> None:
    path = tmp_path / "named.extxyz"
    for name, value in product(NAMES, VALUES):
        path.write_text(frame(f"{name}={value}") * 2)
        if name == "charge" and value not in ("1", "T"):  # no charge, and physics is not left out in silence
            with pytest.raises(InputError, match=r"total charge .*whole number"):
                read_frames(path, allow_implausible=True)
            continue
        check_read(path, tag=(name, value))
    path.write_text(frame("data=train") * 2)
    assert len(read_trajectory(path, frame_interval_fs=1.0)) == 2


def test_a_column_of_the_user_may_have_any_name_and_type(tmp_path: Path) -> None:
    path = tmp_path / "columns.extxyz"
    own = {"species", "positions", "numbers", "symbols", "Z"}  # the elements and positions, said twice
    for name, (kind, values) in product(sorted(set(NAMES) - own), (("S:1", "a"), ("R:2", "1 2"), ("L:1", "T"))):
        path.write_text(frame(column=f":{name}:{kind}", values=values) * 2)
        check_read(path, tag=(name, kind))


def test_what_is_set_aside_is_still_there(tmp_path: Path) -> None:
    path = tmp_path / "kept.extxyz"
    path.write_text(frame('stress=low dipole="a b"', column=":charges:S:1", values="x"))
    atoms = read_structure(path)
    assert (atoms.info["stress"], atoms.info["dipole"]) == ("low", "a b")
    assert atoms.arrays["charges"].tolist() == ["x"] * 4
    with pytest.raises(InputError, match="'charges' of frame 0 "):
        read_frames(path, forces_key="charges")


def test_a_run_keeps_its_energies_beside_what_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "run.extxyz"
    path.write_text(frame("stress=low time_ps=0") + frame("stress=low time_ps=0.1"))
    run = read_trajectory(path)
    assert run.energy is not None
    assert run.forces is not None
    assert run.energy.tolist() == [-3.5, -3.5]
    assert run.forces[0, 3].tolist() == [0.5, -3.0, 0.0]


@pytest.mark.parametrize("entries", ["Lattice=train", 'pbc="1 2"'])
def test_what_the_geometry_needs_is_not_set_aside(entries: str, tmp_path: Path) -> None:
    (tmp_path / "geometry.extxyz").write_text(frame(entries))
    with pytest.raises(InputError, match="frame of 4 atoms at line 1"):
        read_frames(tmp_path / "geometry.extxyz")


@pytest.mark.parametrize("ending", [".traj", ".db", ".json"])
def test_names_in_other_formats(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"named{ending}"
    atoms = Atoms("CH3", positions=POSITIONS, info={"data": "train", "key_value_pairs": 3})
    if ending == ".traj":
        ase.io.write(path, atoms)
    else:
        with connect(path) as database:
            database.write(
                atoms, split="train", REF_energy=-3.5, data={"source": [1, 2], "REF_forces": [[0.0] * 3] * 4}
            )
        assert read_frames(path, energy_key="REF_energy", forces_key="REF_forces").energy == pytest.approx(-3.5)
    assert len(read_frames(path, allow_implausible=True)) == 1


@pytest.mark.parametrize(("symbol", "mass"), [("D", 2.014), ("d", 2.014), ("T", 3.016)])
def test_isotopes_of_hydrogen(symbol: str, mass: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "heavy.xyz"
    path.write_text(frame().replace("H 0 0 1.1", f"{symbol} 0 0 1.1") * 2)
    check_read(path, tag=symbol)
    assert f"{symbol.upper()} is read as H with the mass of the isotope" in caplog.text
    assert read_structure(path).get_masses() == pytest.approx([12.011, mass, 1.008, 1.008], abs=1e-3)
    path.write_text(frame().replace("H 0 0 1.1", "Dx 0 0 1.1"))
    with pytest.raises(InputError, match=r"line 4 .* 'Dx' is no element"):
        read_frames(path)


TEXT = frame('note="Molekül é Å"') * 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_ends_of_lines(encoding: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "Molekül.extxyz"
    path.write_bytes(TEXT.replace("\n", end).encode(encoding))
    check_read(path, tag=encoding)
    assert len(read_trajectory(path, frame_interval_fs=1.0)) == 2


READ_ALL = """
import sys
from pathlib import Path
from remul_md.datasets import read_frames
from remul_md.datasets.structure_source import read_structure
from remul_md.errors import InputError
from remul_md.training.config import load_config
for path in sorted(Path(sys.argv[1]).iterdir()):
    if path.suffix == ".extxyz":
        assert len(read_frames(path, allow_implausible=True)) == 2, path
    elif path.suffix == ".yaml":
        assert ascii(load_config(path).data.source) == ascii("\\xe4.xyz"), path
    else:
        assert len(read_structure(path)) == 4, path
print("all read")
"""


def test_no_locale_changes_what_a_file_says(tmp_path: Path) -> None:
    atoms = Atoms("CH3", positions=POSITIONS, cell=9.0 * np.eye(3), pbc=True)
    for encoding in ("utf-8", "utf-8-sig", "latin-1"):
        for ending, comment in ((".pdb", "REMARK   Molekül\n{}"), (".cif", "# Molekül\n{}"), (".sdf", "Molekül{}")):
            ase.io.write(tmp_path / f"plain{ending}", atoms)
            plain = (tmp_path / f"plain{ending}").read_text()
            (tmp_path / f"{encoding}{ending}").write_bytes(comment.format(plain).encode(encoding))
        (tmp_path / f"{encoding}.extxyz").write_bytes(TEXT.encode(encoding))
        if encoding != "latin-1":
            config = "# Molekül\ndata:\n  source: ä.xyz\n"
            (tmp_path / f"{encoding}.yaml").write_bytes(config.encode(encoding))
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # else Python makes UTF-8 of it
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(tmp_path)],
        env=os.environ | plain,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "all read\n", done.stderr[-2000:]


def test_a_config_in_latin_1_is_refused(tmp_path: Path, cli: Run) -> None:
    (tmp_path / "run.yaml").write_bytes("# Molekül\n".encode("latin-1"))
    code, _, err = cli("train", tmp_path / "run.yaml", "--run-dir", tmp_path / "run")
    assert code == 2
    assert "run.yaml: byte 7 is b'\\xfc', which is no UTF-8" in err


@pytest.mark.parametrize("ending", [".traj", ".extxyz", ".npz", ".db", ".json", ".pdb", ".h5md"])
def test_an_at_sign_in_the_name_of_a_file(
    ending: str, tmp_path: Path, cli: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """`name@300K.traj` is what one calls a run; ASE takes what follows the sign for the number of a frame."""
    caplog.set_level(logging.ERROR)
    frames = read_frames("rmd17/ethanol/test-01").select(range(3))
    path = tmp_path / f"eth@300K{ending}"
    structures = [frames.atoms(index) for index in range(3)]
    for index, atoms in enumerate(structures):
        atoms.info["time_ps"] = 0.1 * index
        atoms.set_momenta(np.zeros((9, 3)))
    if ending in (".npz", ".extxyz"):
        write_frames(frames, path, provenance={})
    elif ending == ".h5md":
        from remul_md.dynamics.readers.h5md import export_h5md

        ase.io.write(tmp_path / "eth@1.traj", structures)
        export_h5md(tmp_path / "eth@1.traj", path)
    else:
        ase.io.write(path, structures)
    if ending in (".traj", ".extxyz", ".h5md"):
        code, out, err = cli("analyze", path, "--frame-interval-fs", "100")
        assert code == 0, err
        assert "3 frames" in out
    if ending not in (".pdb", ".h5md"):
        assert len(read_frames(path, allow_implausible=True)) == 3
    if ending not in (".npz", ".h5md"):
        assert len(read_structure(path)) == 9
    if ending in (".traj", ".extxyz", ".npz", ".h5md"):
        code, _, err = cli("compare", path, path)
        assert code == 0, err
