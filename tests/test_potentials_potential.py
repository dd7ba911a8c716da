"""The potential file: the same numbers after saving and loading, float64 totals, and every damaged file refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from potentials import molecule_frames, untrained_potential

from remul_md.errors import InputError
from remul_md.potentials.baseline import fit_reference_energies
from remul_md.potentials.potential import (
    FORMAT_VERSION,
    Potential,
    find_potential,
    load_potential,
    resolve_device,
    shipped_potentials,
)
from remul_md.potentials.provenance import Provenance
from remul_md.structures.batch import Batch, Prediction
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch

STORED = Path(__file__).parent / "data" / "potentials"


@pytest.fixture(scope="module")
def frames() -> Frames:
    return molecule_frames()


@pytest.fixture
def potential(frames: Frames) -> Potential:
    return untrained_potential(frames)


@pytest.fixture
def batch(frames: Frames, potential: Potential) -> Batch:
    return build_batch(frames, cutoff=potential.cutoff)


@pytest.fixture
def file(potential: Potential, tmp_path: Path) -> Path:
    path = tmp_path / "saved.pt"
    potential.save(path)
    return path


def raw(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def predicted(potential: Potential, batch: Batch) -> dict[str, torch.Tensor]:
    out: Prediction = potential.predict(batch, forces="both")
    names = ("energy", "forces", "direct_forces", "atomic_energies")
    return {name: getattr(out, name) for name in names}


def compositions(counts: list[list[int]], energies: np.ndarray) -> Frames:
    """Frames of H, C and O atoms in a row; only composition and energy matter."""
    numbers = [np.repeat([1, 6, 8], row) for row in counts]
    sizes = np.array([len(row) for row in numbers])
    return Frames(
        positions=np.arange(sizes.sum())[:, None] * np.array([1.1, 0.0, 0.0]),
        atomic_numbers=np.concatenate(numbers),
        n_atoms=sizes,
        pbc=np.zeros((len(sizes), 3), dtype=bool),
        energy=energies,
    )


def test_a_saved_potential_predicts_the_same_bits(potential: Potential, batch: Batch, file: Path) -> None:
    loaded = load_potential(file)
    before, after = predicted(potential, batch), predicted(loaded, batch)
    for name, value in before.items():
        assert torch.equal(after[name], value), name
        assert not value.requires_grad, name
    assert before["forces"].abs().max() > 1e-3
    assert not torch.equal(before["forces"], before["direct_forces"])
    assert loaded.domain == potential.domain
    assert loaded.provenance == potential.provenance
    assert loaded.config == potential.config
    assert loaded.species == (1, 6, 8)
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not loaded.model.training
    assert [item.name for item in file.parent.iterdir()] == [file.name]


def test_provenance_survives(potential: Potential, tmp_path: Path) -> None:
    told = Provenance(
        trained_forces="direct",
        config={"train": {"beta": 0.5, "patience": None}},
        data={"name": "rmd17/ethanol/train-01", "split": {"train": [3, 1]}},
        metrics={"history": [{"step": 7.0}]},
        commit="abc",
        seconds=12.5,
        origin="f" * 64,
    )
    replace(potential, provenance=told).save(tmp_path / "told.pt")
    assert load_potential(tmp_path / "told.pt").provenance == told


def test_float64_is_computed_in_float64(batch: Batch, file: Path) -> None:
    single, double = load_potential(file), load_potential(file, dtype="float64")
    coarse, fine = predicted(single, batch), predicted(double, batch)
    assert coarse["energy"].dtype == fine["energy"].dtype == torch.float64
    assert coarse["forces"].dtype == torch.float32
    assert fine["forces"].dtype == fine["direct_forces"].dtype == torch.float64
    size = fine["forces"].square().mean().sqrt()
    difference = (fine["forces"] - coarse["forces"]).abs().max() / size
    assert 1e-9 < difference < 1e-4


def test_atomic_energies_sum_to_the_energy(potential: Potential, batch: Batch) -> None:
    out = predicted(potential.to(dtype="float64"), batch)
    sums = torch.zeros(2, dtype=torch.float64).index_add(0, batch.system_index, out["atomic_energies"])
    torch.testing.assert_close(sums, out["energy"], rtol=0, atol=1e-10)
    assert out["atomic_energies"].std() > 1e-3


def test_totals_keep_their_digits(potential: Potential, batch: Batch) -> None:
    """float32 holds -17,000 eV to 2 meV only; energies of a vibration would drown."""
    references = 3.0 * torch.tensor([-13.6, -1029.3, -2041.7], dtype=torch.float64)
    heavy = replace(potential, reference_energies=references)
    light = replace(potential, reference_energies=torch.zeros(3, dtype=torch.float64))
    difference = heavy.predict(batch).energy - light.predict(batch).energy
    counts = np.array([[(batch.atomic_numbers[batch.system_index == b] == z).sum() for z in (1, 6, 8)] for b in (0, 1)])
    expected = counts @ references.numpy()
    assert expected.max() < -9e3
    np.testing.assert_allclose(difference.numpy(), expected, rtol=0, atol=1e-8)


def test_one_composition_gives_its_mean_exactly() -> None:
    energies = np.array([-4209.13, -4208.71, -4210.02, -4209.55])
    frames = compositions([[6, 2, 1]] * 4, energies)
    references = fit_reference_energies(frames, (1, 6, 8))
    assert references.dtype == torch.float64
    assert float(references @ torch.tensor([6.0, 2.0, 1.0], dtype=torch.float64)) == pytest.approx(
        energies.mean(), abs=1e-9
    )


def test_several_compositions_recover_the_element_energies() -> None:
    counts = np.array([[4, 1, 0], [2, 0, 1], [6, 2, 1], [4, 2, 1], [2, 1, 1], [6, 2, 0], [0, 1, 2]])
    planted = np.array([-13.6, -1029.3, -2041.7])
    frames = compositions(counts.tolist(), counts @ planted)
    np.testing.assert_allclose(fit_reference_energies(frames, (1, 6, 8)).numpy(), planted, rtol=0, atol=5e-3)


def test_collinear_compositions_give_finite_references() -> None:
    """A molecule and its dimer do not say what one element weighs: the total is still right."""
    frames = compositions([[6, 2, 1], [12, 4, 2]], np.array([-4209.0, -8418.0]))
    references = fit_reference_energies(frames, (1, 6, 8)).numpy()
    assert references @ [6, 2, 1] == pytest.approx(-4209.0, abs=1e-3)
    np.testing.assert_allclose(references, -4209.0 / 9, rtol=1e-6)  # what is not known is shared out evenly


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.7, 0.97, 0.999])
def test_a_truncated_file_is_refused(file: Path, kept: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=r"saved\.pt: is truncated"):
        load_potential(file)


def test_the_last_byte_counts(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="is truncated"):
        load_potential(file)


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.pt"
    path.write_text("not a potential")
    with pytest.raises(InputError, match=r"notes\.pt: is truncated"):
        load_potential(path)


class Harmful:
    """Opens a file for writing while it is unpickled, as a malicious `.pt` would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


def test_a_pickle_payload_is_never_executed(file: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({**raw(file), "extra": Harmful(marker)}, file)
    torch.load(file, weights_only=False)["extra"].close()  # the payload is live ...
    assert marker.exists()
    marker.unlink()
    with pytest.raises(InputError, match="was not executed"):
        load_potential(file)
    assert not marker.exists()  # ... and was not run


def test_a_bare_pickle_is_never_executed(tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "old.pt"
    path.write_bytes(pickle.dumps({"format_version": 1, "weights": Harmful(marker)}))
    with pytest.raises(InputError, match=r"old\.pt: is truncated"):
        load_potential(path)
    assert not marker.exists()


def test_a_whole_module_is_refused(potential: Potential, tmp_path: Path) -> None:
    torch.save(potential.model, tmp_path / "module.pt")
    with pytest.raises(InputError, match="was not executed"):
        load_potential(tmp_path / "module.pt")


def test_another_format_is_refused(file: Path) -> None:
    torch.save({**raw(file), "format_version": FORMAT_VERSION + 1}, file)
    message = f"has format {FORMAT_VERSION + 1}, remul-md .* reads format {FORMAT_VERSION}; use the version"
    with pytest.raises(InputError, match=message):
        load_potential(file)


def test_a_torch_file_of_something_else_is_refused(file: Path) -> None:
    torch.save({"model": torch.zeros(3)}, file)
    with pytest.raises(InputError, match=r"\(no format_version\)"):
        load_potential(file)
    torch.save([1, 2], file)
    with pytest.raises(InputError, match="no format_version"):
        load_potential(file)


@pytest.mark.parametrize("key", ["metadata", "weights", "reference_energies"])
def test_missing_keys_are_named(file: Path, key: str) -> None:
    payload = raw(file)
    del payload[key]
    torch.save(payload, file)
    with pytest.raises(InputError, match=f"lacks {key}; the file is damaged"):
        load_potential(file)


@pytest.mark.parametrize("section", ["model", "domain", "provenance"])
def test_damaged_metadata_is_refused(file: Path, section: str) -> None:
    payload = raw(file)
    metadata = json.loads(payload["metadata"])
    del metadata[section]
    torch.save({**payload, "metadata": json.dumps(metadata)}, file)
    with pytest.raises(InputError, match=r"saved\.pt: .*metadata.*damaged"):
        load_potential(file)


def test_metadata_that_is_no_json_is_refused(file: Path) -> None:
    torch.save({**raw(file), "metadata": '{"model": '}, file)
    with pytest.raises(InputError, match=r"saved\.pt: .*metadata.*damaged"):
        load_potential(file)


def test_weights_that_do_not_fit_are_refused(file: Path) -> None:
    payload = raw(file)
    name = next(name for name, value in payload["weights"].items() if value.ndim == 2)
    payload["weights"][name] = payload["weights"][name][:, 1:]
    torch.save(payload, file)
    with pytest.raises(InputError, match=f"(?s)weights do not fit .*{re.escape(name)}"):
        load_potential(file)


def test_a_flipped_bit_is_refused(file: Path) -> None:
    """Weights that were damaged on the way would give plausible, wrong forces."""
    content = bytearray(file.read_bytes())
    weight = next(value for value in raw(file)["weights"].values() if value.numel() > 100)
    start = bytes(content).index(weight.numpy().tobytes())
    content[start + 2] ^= 0x40
    file.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_potential(file)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder; .*potential\.pt"):
        load_potential(tmp_path)


@pytest.mark.parametrize("name", ["etanol", "etanol.pt", "runs/ethanol", "nowhere/potential.pt"])
def test_an_unknown_name_lists_the_shipped_ones(name: str) -> None:
    listed = ", ".join(shipped_potentials()) or "none"
    with pytest.raises(
        InputError, match=re.escape(f"potential {name!r} is no file and not shipped; shipped: {listed}")
    ):
        load_potential(name)


def test_a_file_comes_before_a_shipped_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    for name in shipped_potentials():
        assert find_potential(name) == shipped_potentials()[name]
        file.with_name(name).write_bytes(file.read_bytes())
        assert find_potential(name) == Path(name)
    assert find_potential("saved.pt") == Path("saved.pt")


def test_a_missing_folder_is_an_error(potential: Potential, file: Path) -> None:
    with pytest.raises(InputError, match="cannot be written "):
        potential.save(file.parent / "missing" / "potential.pt")


def test_a_full_disk_is_an_error_and_leaves_the_old_file(potential: Potential, file: Path) -> None:
    """The kernel refuses to write past a limit that is smaller than the file, as a full disk does."""
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(InputError, match=r"saved\.pt: cannot be written "):
            potential.save(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before
    assert [item.name for item in file.parent.iterdir()] == [file.name]


def test_heads_that_were_not_trained_are_refused(frames: Frames) -> None:
    assert untrained_potential(frames, trained_forces="both").resolve_forces("auto") == "conservative"
    assert untrained_potential(frames, trained_forces="direct").resolve_forces("auto") == "direct"
    conservative = untrained_potential(frames, trained_forces="conservative")
    assert conservative.resolve_forces("conservative") == "conservative"
    with pytest.raises(InputError, match=r"forces='direct' .* trained for conservative"):
        conservative.resolve_forces("direct")
    with pytest.raises(InputError, match=r"forces .*auto, conservative or direct, got 'both'"):
        conservative.resolve_forces("both")  # type: ignore[arg-type]


def test_devices_and_dtypes_are_checked(file: Path) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match=r"device 'gpu' .*auto, cpu, cuda or cuda:N"):
        resolve_device("gpu")
    for device in ("mps", "meta"):  # torch knows them, but they hold no float64 or no numbers at all
        with pytest.raises(InputError, match=f"device '{device}' cannot be used; use auto, cpu, cuda or cuda:N"):
            resolve_device(device)
    if not torch.cuda.is_available():
        assert resolve_device("auto") == torch.device("cpu")
        with pytest.raises(InputError, match=r"device 'cuda' .*no CUDA device; use cpu"):
            resolve_device("cuda")
    with pytest.raises(InputError, match=r"dtype .*got 'float16'"):
        load_potential(file, dtype="float16")  # type: ignore[arg-type]


def test_a_stored_file_still_predicts_what_it_did() -> None:
    stored = json.loads((STORED / "stored.json").read_text())
    frames = Frames(
        positions=np.array(stored["positions"]),
        atomic_numbers=np.array(stored["atomic_numbers"]),
        n_atoms=np.array(stored["n_atoms"]),
        pbc=np.zeros((len(stored["n_atoms"]), 3), dtype=bool),
    )
    potential = load_potential(STORED / "stored.pt", dtype="float64")
    out = predicted(potential, build_batch(frames, cutoff=potential.cutoff))
    for name in ("energy", "forces", "direct_forces", "atomic_energies"):
        expected = np.array(stored[name])
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(out[name].numpy(), expected, rtol=1e-9, atol=1e-9, err_msg=name)


def key_tree(path: Path) -> dict[str, list[str]]:
    payload = raw(path)
    metadata = json.loads(payload["metadata"])
    sections = {name: sorted(metadata[name]) for name in ("units", "model", "domain", "provenance")}
    return {"file": sorted(payload), "metadata": sorted(metadata), **sections}


def test_the_format_version_is_bumped_when_what_is_saved_changes(file: Path) -> None:
    """Fails when a key is added, renamed or dropped: raise FORMAT_VERSION and store a new file."""
    assert raw(file)["format_version"] == FORMAT_VERSION == 6
    assert key_tree(file) == key_tree(STORED / "stored.pt")


def test_a_folder_does_not_hide_the_shipped_potential_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of ethanol are kept in a folder that is called so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ethanol").mkdir()
    shipped = load_potential("ethanol")
    assert shipped.sha256 == load_potential("ethanol.pt").sha256
    with pytest.raises(InputError, match="is a folder"):
        load_potential(tmp_path / "ethanol")
