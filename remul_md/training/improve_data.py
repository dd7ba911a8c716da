"""The data that a potential was trained on, found again by what its file says, with the same frames held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.datasets import read_frames
from remul_md.datasets.file_options import FileOptions
from remul_md.errors import InputError
from remul_md.labels.calculated import CalculatedLabels
from remul_md.labels.sources import LabelSource
from remul_md.labels.stretched import require_one_molecule
from remul_md.potentials.potential import Potential
from remul_md.structures.frames import Frames, joined
from remul_md.training.config import RunConfig, validated_config
from remul_md.training.data_config import DataConfig
from remul_md.training.prepare import labelled_data, split_of

# A label that is computed again differs by so much at most (root mean square, meV/Angstrom; meV): RI-J and grid of
# PySCF come back within 0.1 meV/Angstrom of the labels of rMD17.
MAX_FORCE_DIFFERENCE, MAX_ENERGY_DIFFERENCE = 20.0, 20.0
N_COMPARED = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class MemberData:
    """What one model was trained on.

    Args:
        config: as its file records it, with what was given anew.
        train: training frames.
        validation: frames that chose its weights; never trained on.
        further: further training frames (`data.stretched`), or None.
    """

    config: DataConfig
    train: Frames
    validation: Frames
    further: Frames | None


def member_data(members: Sequence[Potential], given: Mapping[str, Any]) -> list[MemberData]:
    """The data of each member, split as it was.

    Args:
        members: potentials that say what they were trained on.
        given: entries of `data` that take the place of what is recorded, such as `source`.
    Raises:
        InputError: a potential without such a record, data that cannot be found or are others, several molecules, a
            cell, labels in a field, members that were trained on other files.
    """
    found: list[MemberData] = []
    read: dict[str, Frames] = {}
    for member in members:
        record = member.provenance
        if not record.config.get("data") or not record.data.get("split"):
            raise InputError(
                "the potential does not say what it was trained on, so what it was tested on cannot be held out; give "
                "one of `remul-md train`"
            )
        entries = {**record.config["data"], "unlabelled": None, "unlabelled_length_unit": None, **given}
        if "source" in given:
            entries["molecule"] = None
        config = validated_config({"data": entries}, origin="the data of the potential")
        data, key = config.data, config.data.model_dump_json(exclude={"n_train", "n_validation", "split_seed"})
        if found and data.resolved_source != found[0].config.resolved_source:
            raise InputError(
                f"the members were trained on {found[0].config.resolved_source} and {data.resolved_source}; give "
                "members of one data set"
            )
        if key not in read:
            read[key] = _read(config)
        frames = read[key]
        split = split_of(config, frames)
        recorded = record.data["split"]
        if "data_hash" in recorded and recorded["data_hash"] != split.data_hash:
            raise InputError(
                f"{frames.name}: is not what the potential was trained on ({record.data.get('name')}), or has other "
                "units; give that file (--data), so that frames it was tested on stay held out"
            )
        held_out = set(recorded["validation"])
        if held_out - set(split.validation):
            raise InputError(
                f"{frames.name}: data.n_train, n_validation or split_seed are not those of the potential, so frames "
                "that chose its weights would be trained on; leave them out"
            )
        further = None if data.stretched is None else _further(data)
        found.append(
            MemberData(
                config=data,
                train=frames.select(split.train),
                validation=frames.select(split.validation),
                further=further,
            )
        )
    return found


def _read(config: RunConfig) -> Frames:
    try:
        frames, _ = labelled_data(config)
    except InputError as error:
        raise InputError(
            f"{error} (these are data of the potential; name their file with --data, others with --set data.KEY=FILE)"
        ) from error
    require_one_molecule(frames)
    if frames.distinct_fields:
        raise InputError(f"{frames.name}: its labels are those of an electric field, new ones would have none")
    return frames


def _further(data: DataConfig) -> Frames:
    options = FileOptions(energy_unit="eV", length_unit="Angstrom")
    try:
        return read_frames(str(data.stretched), **asdict(options), allow_implausible=True, require=("energy", "forces"))
    except InputError as error:
        raise InputError(f"{error} (give the file with --set data.stretched=FILE, or null for none)") from error


def held_out(data: Sequence[MemberData]) -> Frames:
    """The validation frames of all members, each once."""
    return distinct([member.validation for member in data])


def distinct(parts: Sequence[Frames]) -> Frames:
    """All frames that differ in their positions."""
    kept: list[Frames] = []
    seen: set[bytes] = set()
    for frames in parts:
        new = [index for index in range(len(frames)) if frames.frame_positions(index).tobytes() not in seen]
        seen |= {frames.frame_positions(index).tobytes() for index in new}
        if new:
            kept.append(frames.select(new))
    return joined(kept, name=parts[0].name)


def compared_with(data: Sequence[MemberData], source: LabelSource, made: CalculatedLabels) -> dict[str, float]:
    """How labels of this method differ from those of the data.

    Args:
        data: of the members.
        source: the method.
        made: its labels of `compared_frames`.
    Returns:
        Root mean square difference of forces, meV/Angstrom, and the largest of energies, meV.
    Raises:
        InputError: more than two codes differ by: another level of theory.
    """
    compared = compared_frames(data)
    there = data[0].validation.select([index for index in range(len(compared)) if index not in made.refused])
    force = 1000.0 * _rms(made.frames.forces, there.forces)
    energy = 1000.0 * float(np.abs(_of(made.frames.energy) - _of(there.energy)).max())
    if not (force <= MAX_FORCE_DIFFERENCE and energy <= MAX_ENERGY_DIFFERENCE):
        raise InputError(
            f"{source.name} is not the level of theory of {there.name}: on {len(there)} of its frames forces differ by "
            f"{force:.3g} meV/Angstrom and energies by {energy:.3g} meV; label with the method of the data, or train a "
            "potential on labels of this one first (`remul-md label`, `remul-md train`)"
        )
    return {"force_rms_meV_per_A": force, "energy_max_meV": energy}


def compared_frames(data: Sequence[MemberData]) -> Frames:
    """Frames whose labels are computed again to see that the method is that of the data."""
    validation = data[0].validation
    return validation.select(range(min(N_COMPARED, len(validation)))).without_labels()


def file_of(data: DataConfig) -> Path | None:
    """The file of the data, or None for a registered name."""
    path = Path(data.resolved_source)
    return path if path.is_file() else None


def _of(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
    assert values is not None
    return values


def _rms(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> float:
    return float(np.sqrt(np.square(_of(one) - _of(other)).mean()))
