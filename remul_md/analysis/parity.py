"""What a potential says of labelled frames beside their labels: forces and energies of a parity plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from remul_md.datasets.file_options import FileOptions
from remul_md.datasets.read import read_frames, recorded_options
from remul_md.errors import InputError
from remul_md.potentials.domain import require_known_frames
from remul_md.potentials.potential import Potential, shipped_potentials
from remul_md.structures.batch import BatchStore
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch

MAX_FRAMES = 200  # evenly spread; thousands of force components: seconds, and a density that more would not change
MAX_ATOMS = 4096  # atoms in one pass: bounds the memory

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parity:
    """Labels and predictions, in the orientations of the data.

    Args:
        forces, predicted_forces: components, [3 A], eV/Angstrom.
        energy, predicted_energy: of the frames, [F], eV.
        data: name of the frames, with what they are where that is not all of them.
        n_frames: that were predicted.
        head: kind of the forces.
    """

    forces: Array
    predicted_forces: Array
    energy: Array
    predicted_energy: Array
    data: str
    n_frames: int
    head: str

    @property
    def force_mae_meV_per_A(self) -> float:
        """Mean absolute error of the components."""
        return 1e3 * float(np.abs(self.predicted_forces - self.forces).mean())

    @property
    def energy_mae_meV(self) -> float:
        """Mean absolute error of the energies."""
        return 1e3 * float(np.abs(self.predicted_energy - self.energy).mean())

    def to_json(self) -> dict[str, Any]:
        """Plain figures; the points themselves are in the plots."""
        return {
            "data": self.data,
            "n_frames": self.n_frames,
            "forces": self.head,
            "force_mae_meV_per_A": self.force_mae_meV_per_A,
            "energy_mae_meV": self.energy_mae_meV,
        }


def parity(potential: Potential, frames: Frames, *, forces: Literal["conservative", "direct"], data: str) -> Parity:
    """Predict frames, at most 200 of them, evenly spread.

    Args:
        potential: as the run used it.
        frames: with energies and forces.
        forces: the kind to compare.
        data: what the frames are called.
    Raises:
        InputError: no labels, or a composition that the potential never saw.
    """
    if frames.energy is None or frames.forces is None:
        raise InputError(f"{data}: has no energies or no forces")
    if len(frames) > MAX_FRAMES:
        frames = frames.select(np.linspace(0, len(frames) - 1, MAX_FRAMES).round().astype(np.int64))
        assert frames.energy is not None
        assert frames.forces is not None
        data = f"{MAX_FRAMES} frames of {data}"
    else:
        data = f"{len(frames)} frames, {data}"
    require_known_frames(potential.domain, frames, species=potential.species)
    store = BatchStore(build_batch(frames, cutoff=potential.cutoff).to(potential.device))
    at_once = max(1, MAX_ATOMS // (int(frames.n_atoms.max()) * potential.n_members))
    found_forces, found_energy = [], []
    for start in range(0, len(frames), at_once):
        batch = store.select(np.arange(start, min(start + at_once, len(frames))))
        out = potential.predict(batch, forces=forces)
        assert out.energy is not None
        found_forces.append(out.of_head(forces).detach().double().cpu().numpy().reshape(-1))
        found_energy.append(out.energy.detach().double().cpu().numpy())
    return Parity(
        forces=np.asarray(frames.forces, dtype=np.float64).reshape(-1),
        predicted_forces=np.concatenate(found_forces),
        energy=np.asarray(frames.energy, dtype=np.float64),
        predicted_energy=np.concatenate(found_energy),
        data=data,
        n_frames=len(frames),
        head=forces,
    )


def known_parity(
    potential: Potential, *, forces: Literal["conservative", "direct"], evaluation: Mapping[str, Any] | None
) -> Parity:
    """Of the frames that an evaluation was made on; without one, of the validation frames of the training.

    Args:
        potential: as the run used it.
        forces: the kind that the run used.
        evaluation: figures of `remul-md evaluate`, which name their data.
    Raises:
        InputError: the frames are not named, or cannot be read any more.
    """
    made = potential.provenance
    run = made.run_of(forces)
    name = str(run["data"].get("name", ""))
    split, places = run["data"].get("split") or {}, None
    if evaluation is None:
        source, places = name, split.get("validation")
    elif evaluation.get("potential_sha256", potential.sha256) != potential.sha256:
        raise InputError("the evaluation is of another potential than this run's")
    else:
        source = str(evaluation.get("data", ""))
        if not Path(source).is_file():  # frames may lie beside a shipped potential
            folders = {file.parent for file in shipped_potentials().values()}
            source = next((str(folder / source) for folder in folders if (folder / source).is_file()), source)
    if not source or (evaluation is None and not places):
        raise InputError("the labelled frames are not named; give --evaluation")
    options = recorded_options(source, FileOptions(), record=made.file_options, trained_on=name)
    frames = read_frames(source, **asdict(options), require=("energy", "forces"))
    called = Path(source).name if Path(source).is_file() else source
    if places is not None:
        if frames.content_hash() != split.get("data_hash"):
            raise InputError(f"{source}: is not what the training read any more")
        frames = frames.select(places)
        called = f"{called}, those that chose the weights of its training"
    return parity(potential, frames, forces=forces, data=called)
