"""Names, packaged files and fetching; the net is a server on loopback."""

import hashlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from ase import units

import remul_md
from remul_md import InputError
from remul_md.datasets import fetch, list_datasets, read_frames, registry
from remul_md.datasets.pack import main as pack_main

PACKAGED = Path(__file__).parents[1] / "data" / "rmd17"
SGDML = Path(__file__).parent / "data" / "formats" / "ethanol_ccsdt_sgdml.npz"
MOLECULES = {
    "aspirin": (21, "C9H8O4"), "benzene": (12, "C6H6"), "ethanol": (9, "C2H6O"), "malonaldehyde": (9, "C3H4O2"),
    "naphthalene": (18, "C10H8"), "salicylic": (16, "C7H6O3"), "toluene": (15, "C7H8"),
}  # fmt: skip


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder served over HTTP on loopback, and its address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def small_entry(monkeypatch: pytest.MonkeyPatch) -> registry.DatasetEntry:
    """The CCSD(T) entry, with the sha256 of the small file that the tests have."""
    from dataclasses import replace

    entry = replace(
        registry.ENTRIES["ccsdt/ethanol/train"], sha256=hashlib.sha256(SGDML.read_bytes()).hexdigest(), n_frames=7
    )
    monkeypatch.setitem(registry.ENTRIES, entry.name, entry)
    return entry


def test_fetch_then_read_by_name(server: tuple[Path, str], tmp_path: Path, small_entry: registry.DatasetEntry) -> None:
    folder, address = server
    (folder / small_entry.file_name).write_bytes(SGDML.read_bytes())
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match="`remul-md data fetch ccsdt/ethanol/train`"):
        read_frames(small_entry.name, cache=cache)
    path = fetch(small_entry.name, cache_dir=cache, base_url=address)
    assert path == cache / small_entry.file_name
    assert path.read_bytes() == SGDML.read_bytes()
    assert [item.name for item in cache.iterdir()] == [small_entry.file_name]
    frames = read_frames(small_entry.name, cache=cache)
    assert len(frames) == 7
    assert frames.name == small_entry.name
    (folder / small_entry.file_name).unlink()
    assert fetch(small_entry.name, cache_dir=cache, base_url=address) == path  # no second download


def test_a_changed_file_is_refused_and_not_kept(
    server: tuple[Path, str], tmp_path: Path, small_entry: registry.DatasetEntry
) -> None:
    folder, address = server
    (folder / small_entry.file_name).write_bytes(SGDML.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=f"does not have the sha256 {small_entry.sha256} and was thrown away"):
        fetch(small_entry.name, cache_dir=tmp_path / "cache", base_url=address)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_cached_file_is_refused_and_replaced(
    server: tuple[Path, str], tmp_path: Path, small_entry: registry.DatasetEntry
) -> None:
    folder, address = server
    (folder / small_entry.file_name).write_bytes(SGDML.read_bytes())
    cached = tmp_path / small_entry.file_name
    cached.write_bytes(SGDML.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged: `remul-md data fetch ccsdt/ethanol/train`"):
        read_frames(small_entry.name, cache=tmp_path)
    fetch(small_entry.name, cache_dir=tmp_path, base_url=address)
    assert len(read_frames(small_entry.name, cache=tmp_path)) == 7


def test_missing_at_the_source(server: tuple[Path, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"could not be fetched from http://127.* \(HTTPError: 404"):
        fetch("ccsdt/ethanol/train", cache_dir=tmp_path, base_url=server[1])


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:  # a port on which nobody listens
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(InputError) as caught:
            fetch("md17/ethanol/first-2000", cache_dir=tmp_path, base_url=address)
    text = str(caught.value)
    assert f"'md17/ethanol/first-2000' could not be fetched from {address}/ethanol.npz (ConnectionError" in text
    assert f"put the file at {tmp_path / 'ethanol.npz'} by hand" in text
    assert "Packaged data sets (`remul-md data list`) need no connection" in text
    assert list(tmp_path.iterdir()) == []


def test_fetch_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean ccsdt/ethanol/train"):
        fetch("ccsdt/etanol/train", cache_dir=tmp_path)
    with pytest.raises(InputError, match=r"timeout_s .*got -2"):
        fetch("ccsdt/ethanol/train", cache_dir=tmp_path, timeout_s=-2)


def test_unwritable_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="file/cache: cannot be made "):
        fetch("ccsdt/ethanol/train", cache_dir=tmp_path / "file" / "cache")


def test_the_list_says_where_each_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_entry: registry.DatasetEntry
) -> None:
    monkeypatch.setenv("REMUL_MD_CACHE", str(tmp_path))
    before = {status.entry.name: status.where for status in list_datasets()}
    assert [name for name, where in before.items() if where == "packaged"] == [
        f"rmd17/{molecule}/{part}-01" for molecule in MOLECULES for part in ("train", "test")
    ]
    assert before["ccsdt/ethanol/train"] == "fetchable"
    (tmp_path / small_entry.file_name).write_bytes(SGDML.read_bytes())
    after = {status.entry.name: status.where for status in list_datasets()}
    assert after["ccsdt/ethanol/train"] == "cached"
    assert len(read_frames("ccsdt/ethanol/train")) == 7


def test_entries_are_pinned_and_told_apart() -> None:
    for name, entry in registry.ENTRIES.items():
        assert entry.name == name
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
        # a commit, not a branch, stands in the address
        assert re.match(r"https://raw\.githubusercontent\.com/[\w.-]+/[\w.-]+/[0-9a-f]{40}/", entry.url)
        assert entry.licence
        assert entry.citation
    for attribute in ("file_name", "sha256", "url"):
        assert len({getattr(entry, attribute) for entry in registry.ENTRIES.values()}) == len(registry.ENTRIES)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("molecule", MOLECULES)
def test_packaged_files(molecule: str, part: str) -> None:
    from ase.formula import Formula

    n_atoms, formula = MOLECULES[molecule]
    path = PACKAGED / f"rmd17_{molecule}_{part}_01.npz"
    assert f"| {path.name} | {path.stat().st_size} | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |" in (
        PACKAGED / "README.md"
    ).read_text("utf-8")
    with np.load(path, allow_pickle=False) as arrays:
        assert {key: arrays[key].dtype.name for key in arrays.files} == {
            "nuclear_charges": "uint8", "coords": "float32", "energies": "float64", "forces": "float32",
            "old_indices": "int32",
        }  # fmt: skip
    frames = read_frames(f"rmd17/{molecule}/{part}-01", require=("energy", "forces"))
    assert len(frames) == registry.ENTRIES[frames.name].n_frames == 1000
    assert (frames.n_atoms == n_atoms).all()
    assert Formula(formula).count() == Formula(str(frames.atoms(0).symbols)).count()
    # no force acts on the centre of mass, up to the rounding to float32
    assert np.abs(frames.forces.reshape(1000, n_atoms, 3).sum(1)).max() < 1e-5


@pytest.mark.parametrize("molecule", MOLECULES)
def test_readme_says_how_close_test_frames_are_to_training_frames(molecule: str) -> None:
    loaded = {}
    for part in ("train", "test"):
        with np.load(PACKAGED / f"rmd17_{molecule}_{part}_01.npz") as arrays:
            loaded[part] = {key: arrays[key] for key in ("old_indices", "forces")}
    gap = np.abs(loaded["test"]["old_indices"][:, None] - loaded["train"]["old_indices"][None, :]).min(axis=1)
    rms = [np.sqrt((loaded[part]["forces"].astype(float) ** 2).mean()) for part in ("train", "test")]
    row = f"| {rms[0]:.2f} / {rms[1]:.2f} | {(gap <= 2).sum()} / {(gap <= 10).sum()} |"
    assert gap.min() > 0
    assert len(np.unique(loaded["train"]["old_indices"])) == 1000
    lines = (PACKAGED / "README.md").read_text("utf-8").splitlines()
    assert any(line.startswith(f"| {molecule} |") and line.endswith(row) for line in lines), row


def test_pack_keeps_the_numbers_and_refuses_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    with np.load(SGDML) as arrays:
        published = {
            "nuclear_charges": arrays["z"], "coords": arrays["R"], "energies": arrays["E"][:, 0], "forces": arrays["F"],
            "old_indices": np.arange(7), "old_energies": arrays["E"][:, 0], "old_forces": arrays["F"],
        }  # fmt: skip
    source = tmp_path / "rmd17_ethanol_train_01.npz"
    np.savez(source, **published)
    (tmp_path / "out").mkdir()
    command = [str(source), "--output-dir", str(tmp_path / "out")]
    assert pack_main(command) == 2
    assert "expected 096946747b8d" in capsys.readouterr().err
    entry = registry.ENTRIES["rmd17/ethanol/train-01"]
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setitem(registry.ENTRIES, entry.name, replace(entry, sha256=digest))
    assert pack_main(command) == 0
    packed = tmp_path / "out" / source.name
    assert f"| {source.name} | {packed.stat().st_size} | `" in capsys.readouterr().out
    with np.load(packed) as arrays:
        assert sorted(arrays.files) == ["coords", "energies", "forces", "nuclear_charges", "old_indices"]
    original, small = read_frames(source), read_frames(packed)
    np.testing.assert_array_equal(small.energy, original.energy)
    np.testing.assert_allclose(small.positions, original.positions, rtol=0, atol=5e-7)
    np.testing.assert_allclose(small.forces, original.forces, rtol=1e-6, atol=1e-9)
    (tmp_path / "other.npz").write_bytes(b"PK")
    assert pack_main([str(tmp_path / "other.npz"), "--output-dir", str(tmp_path)]) == 2
    assert "no registered rMD17 file has this name" in capsys.readouterr().err


def test_names_work_from_any_folder(tmp_path: Path) -> None:
    command = "from remul_md import read_frames; print(len(read_frames('rmd17/benzene/test-01')))"
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1000"


def test_a_file_wins_over_a_registered_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rmd17" / "ethanol").mkdir(parents=True)
    (tmp_path / "rmd17" / "ethanol" / "test-01").write_text("a file of the user")
    with pytest.raises(InputError, match="ending '' is unknown"):
        remul_md.read_frames("rmd17/ethanol/test-01")


def test_importing_datasets_stays_light() -> None:
    command = (
        "import sys, remul_md.datasets; "
        "print([name for name in ('pooch', 'requests', 'ase.io', 'vesin', 'MDAnalysis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("part", ["train-01", "test-01"])
def test_the_temperature_of_benzene_is_that_of_its_energies(part: str) -> None:
    """A stiff molecule is nearly 3N - 6 harmonic vibrations, whose potential energy scatters by k T sqrt(n / 2).

    RMS forces say the same beside naphthalene, which is stiff, too: their square goes with the temperature.
    """
    frames, other = read_frames(f"rmd17/benzene/{part}"), read_frames(f"rmd17/naphthalene/{part}")
    assert frames.energy is not None
    assert frames.forces is not None
    assert other.forces is not None
    spread = float(np.std(frames.energy)) / np.sqrt(30 / 2) / units.kB
    assert spread == pytest.approx(registry.ENTRIES[f"rmd17/benzene/{part}"].temperature_K, rel=0.1)
    ratio = float(np.mean(frames.forces**2) / np.mean(other.forces**2))
    assert 0.4 < ratio < 0.6
    assert registry.ENTRIES[f"rmd17/naphthalene/{part}"].temperature_K == 500.0
