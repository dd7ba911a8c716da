"""What a run trains and on what: frames read and split, reference energies taken off, the model to begin with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from remul_md.datasets import Split, make_split, read_frames
from remul_md.datasets.agreement import warn_of_contradictions
from remul_md.datasets.file_options import FileOptions
from remul_md.datasets.isolated_atoms import (
    IsolatedAtoms,
    packaged_isolated_atoms,
    read_isolated_atoms,
    split_off_atoms,
)
from remul_md.datasets.registry import stretched_file
from remul_md.errors import InputError
from remul_md.models import build_model, model_config
from remul_md.models.short_range import reaches
from remul_md.potentials.baseline import atomic_references, binding_energies, fit_reference_energies
from remul_md.potentials.domain import shortest_distances
from remul_md.potentials.potential import Potential, resolve_device
from remul_md.structures.batch import Batch, BatchStore, concatenate
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch
from remul_md.training.config import RunConfig
from remul_md.training.data_config import DataConfig
from remul_md.training.objectives import PotentialObjective, make_objective
from remul_md.training.schedule import Batches, shuffled
from remul_md.training.trained_part import with_trained_part
from remul_md.training.unlabelled import read_unlabelled, require_compositions

LabelledData = tuple[Frames, IsolatedAtoms | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedTraining:
    """What a run trains, on its device.

    Args:
        model: initialised.
        reference_energies: of each species, float64, eV; taken off the labels of `batches` and `validation`.
        objective: the losses.
        batches: the labelled frames of each step.
        validation: validation frames.
        frames: training frames as they were read.
        split: which frames they are.
        isolated_atoms: energies of lone atoms at the level of the labels, or None.
        stretched: frames of stretched and squeezed bonds that take part in each step, or None.
        unlabelled: geometries that stand beside them, or None.
    """

    model: nn.Module
    reference_energies: torch.Tensor
    objective: PotentialObjective
    batches: Batches[Batch]
    validation: Batch
    frames: Frames
    split: Split
    isolated_atoms: IsolatedAtoms | None = None
    stretched: Frames | None = None
    unlabelled: Frames | None = None


def prepare_training(
    config: RunConfig, *, origin: Potential | None = None, read: LabelledData | None = None
) -> PreparedTraining:
    """Read and split the data, build the model, take the reference energies off the labels.

    Args:
        config: all options.
        origin: potential whose weights and reference energies the run starts from.
        read: what `config.data` names, where it was read already.
    Raises:
        InputError: data that cannot be read or used, CUDA asked for and not there, a direct head to train alone
            without a potential that has conservative forces.
    """
    check_origin(config, origin)
    device, data = resolve_device(config.train.device), config.data
    frames, atoms = labelled_data(config) if read is None else read
    warn_of_contradictions(frames)
    split = split_of(config, frames)
    train, validation = frames.select(split.train), frames.select(split.validation)
    stretched = None if data.stretched is None else _stretched_frames(data, train)
    shortest = shortest_distances(*(part for part in (train, stretched) if part is not None))
    model, references = _initial_model(config, train, origin, atoms=atoms, shortest=shortest)
    model.to(device)
    _, model_options = model_config(model)
    species, cutoff = model_options["species"], model_options["cutoff"]
    known, *further = (
        BatchStore(_residual_batch(part, references, species, cutoff=cutoff).to(device))
        for part in (train, stretched)
        if part is not None
    )
    batches, highest = shuffled(known, config.train), None
    if further:
        assert known.batch.energy is not None
        highest = float(known.batch.energy.max())
        batches = _both(
            batches, shuffled(further[0], config.train, batch_size=config.train.stretched_batch_size, beside=2)
        )
    return PreparedTraining(
        model=model,
        reference_energies=references,
        objective=make_objective(config.train, force_scale=_force_scale(train), highest_energy=highest),
        batches=batches,
        validation=_residual_batch(validation, references, species, cutoff=cutoff).to(device),
        frames=train,
        split=split,
        isolated_atoms=atoms,
        stretched=stretched,
        unlabelled=None if data.unlabelled is None else read_unlabelled(data, train=train, validation=validation),
    )


def _both(first: Batches[Batch], second: Batches[Batch]) -> Batches[Batch]:
    return lambda step: concatenate([first(step), second(step)])


def labelled_data(config: RunConfig) -> tuple[Frames, IsolatedAtoms | None]:
    """The frames of molecules that `config.data` names, and the energies of isolated atoms that belong to them."""
    data, options = config.data, FileOptions.of(config.data)
    read = read_frames(
        data.resolved_source,
        **asdict(options),
        allow_implausible=data.allow_implausible,
        require=("energy", "forces"),
    )
    frames, among_them = split_off_atoms(read)
    if data.isolated_atoms is not None:
        atoms: IsolatedAtoms | None = read_isolated_atoms(data.isolated_atoms, options=options)
    else:
        atoms = among_them or packaged_isolated_atoms(data.resolved_source)
    if atoms is not None:
        atoms.require(tuple(int(number) for number in np.unique(frames.atomic_numbers)))
    return frames, atoms


def _stretched_frames(data: DataConfig, train: Frames) -> Frames:
    """The frames of `data.stretched`; squeezed bonds have forces that no other data have."""
    assert data.stretched is not None  # units as `label` writes them
    options = FileOptions(energy_unit="eV", length_unit="Angstrom")
    read = read_frames(
        stretched_file(data.stretched), **asdict(options), allow_implausible=True, require=("energy", "forces")
    )
    require_compositions(read, train, option=f"data.stretched={data.stretched}")
    return read


def split_of(config: RunConfig, frames: Frames) -> Split:
    """Which frames train and which validate."""
    data = config.data
    return make_split(frames, n_train=data.n_train, n_validation=data.n_validation, seed=data.split_seed)


def _initial_model(
    config: RunConfig,
    train: Frames,
    origin: Potential | None,
    *,
    atoms: IsolatedAtoms | None,
    shortest: dict[str, float],
) -> tuple[nn.Module, torch.Tensor]:
    """The model that training starts from, and the reference energies that are taken off its labels."""
    species = tuple(int(number) for number in np.unique(train.atomic_numbers))
    isolated_eV = None if atoms is None else atoms.energies_eV
    if origin is None:
        references = fit_reference_energies(train, species, isolated_eV=isolated_eV)
        options = config.model.model_dump()
        kind = options.pop("kind")
        with torch.random.fork_rng(devices=[]):  # the seed decides the weights, the caller's random state is kept
            torch.manual_seed(config.train.seed)
            model = build_model(kind, {**options, "species": species, "energy_scale": _force_scale(train)})
        _set_short_range(model, binding_energies(references, species, isolated_eV=isolated_eV), shortest=shortest)
        return model, references
    if set(species) - set(origin.species):
        raise InputError(
            f"--init-from knows the elements {origin.species}, the data hold {species}; train from scratch"
        )
    model = with_trained_part(origin.model, config.train.trained, direct=config.train.forces == "direct")
    if config.train.trained != "all":
        return model, origin.reference_energies  # not shifted: the energies stay what they are
    # Another level of theory shifts all energies; the shift goes into the references, not into the network.
    references = origin.reference_energies + fit_reference_energies(_without_references(train, origin), origin.species)
    if atoms is not None:
        atoms.require(origin.species)
        # The same totals, shared out anew: how one composition shares them is no more than a choice.
        totals = replace(train, energy=train.energy - _residual_energies(train, origin.species, references))
        references = fit_reference_energies(totals, origin.species, isolated_eV=isolated_eV)
    _set_short_range(model, binding_energies(references, origin.species, isolated_eV=isolated_eV), shortest=shortest)
    return model, references


def _set_short_range(model: Any, binding: torch.Tensor, *, shortest: dict[str, float]) -> None:
    """What the frames say of lone atoms and of short distances; a model that saw shorter ones before keeps these."""
    reach = reaches(model.config.species, shortest).to(model.reach)
    known = model.reach > 0
    model.set_short_range(binding=binding, reach=torch.where(known, torch.minimum(model.reach, reach), reach))


def _force_scale(frames: Frames) -> float:
    """RMS force component, eV/Angstrom: the unit of the loss, and times 1 Angstrom that of the raw energies."""
    assert frames.forces is not None
    scale = float(np.sqrt(np.mean(np.square(frames.forces))))
    if scale == 0.0:
        raise InputError(
            f"{frames.name}: the forces on all atoms of {len(frames)} training frames are zero, so there is nothing to "
            "learn; the program that wrote the file left them out, or another entry holds them (data.forces_key)"
        )
    return scale


def _without_references(frames: Frames, potential: Potential) -> Frames:
    return replace(frames, energy=_residual_energies(frames, potential.species, potential.reference_energies))


def _residual_energies(frames: Frames, species: tuple[int, ...], references: torch.Tensor) -> np.ndarray[Any, Any]:
    """Energies without the references of the atoms, [B], eV."""
    assert frames.energy is not None
    atomic = atomic_references(torch.from_numpy(frames.atomic_numbers), species, references).numpy()
    return frames.energy - np.bincount(np.repeat(np.arange(len(frames)), frames.n_atoms), atomic)


def _residual_batch(frames: Frames, references: torch.Tensor, species: tuple[int, ...], *, cutoff: float) -> Batch:
    """One batch with the references taken off in float64; labels in float32, as the model computes."""
    batch = build_batch(frames, cutoff=cutoff)
    assert batch.energy is not None
    atomic = atomic_references(batch.atomic_numbers, species, references)
    totals = torch.zeros_like(batch.energy).index_add(0, batch.system_index, atomic)
    return replace(batch, energy=batch.energy - totals).labels_as(torch.float32)


def check_origin(config: RunConfig, origin: Potential | None) -> None:
    """Refuse to train a part of nothing.

    Raises:
        InputError: a part of the weights is to be trained, but there is no potential that has the others.
    """
    if config.train.trained == "all":
        return
    if origin is None:
        raise InputError(
            f"train.trained={config.train.trained} keeps all other weights of a trained potential; name it with "
            "--init-from"
        )
    if config.train.forces == "direct" and origin.provenance.trained_forces == "direct":
        raise InputError(
            f"train.trained={config.train.trained} keeps the conservative forces of --init-from, which was trained for "
            "direct forces only; give one with conservative forces, or leave train.trained out"
        )
