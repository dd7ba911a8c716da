"""One potential out of several: `remul-md ensemble OUT.pt MEMBER.pt MEMBER.pt ...`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import torch

from remul_md.errors import InputError
from remul_md.models import build_model, model_config
from remul_md.models.ensemble import stacked_states
from remul_md.potentials.domain import merged_domain
from remul_md.potentials.potential import Potential, load_potential
from remul_md.potentials.provenance import Provenance
from remul_md.potentials.settings import own_settings


def make_ensemble(files: Sequence[str | Path]) -> Potential:
    """The ensemble of potentials of one architecture: their mean, with their scatter as error bar.

    The members should differ in their split (`data.split_seed`) and in their seed (`train.seed`). The ensemble's
    reference energies are the means of theirs, so its energy is the mean of their energies exactly.

    Args:
        files: potentials by path or shipped name, at least 2.
    Raises:
        InputError: fewer than 2, an ensemble among them, two with the same weights, members that differ in
            architecture, elements or compositions, or that have no trained head in common.
    """
    if len(files) < 2:
        raise InputError(f"an ensemble needs at least 2 members, got {len(files)}; use the potential alone")
    members = {str(file): load_potential(file) for file in files}
    if len(members) < len(files):
        raise InputError(f"a member is given twice among {', '.join(map(str, files))}; give each once")
    kind, options = _same_architecture(members)
    for (first, one), (second, other) in combinations(members.items(), 2):
        # Equal weights, not equal files: a copy tells nothing about the error, it only makes the scatter smaller.
        state = one.model.state_dict()
        if all(torch.equal(state[name], value) for name, value in other.model.state_dict().items()):
            raise InputError(f"{first} and {second} have the same weights; give members of other seeds or splits")
    potentials = list(members.values())
    config = {
        "member_kind": kind,
        "member_options": options,
        "energy_scales": tuple(float(potential.config.energy_scale) for potential in potentials),
    }
    with torch.random.fork_rng(devices=[]):  # the members' weights replace what is drawn here
        model: Any = build_model("ensemble", config)
    model.member.model.load_state_dict(stacked_states([potential.model for potential in potentials]))
    references = torch.stack([potential.reference_energies for potential in potentials])
    return Potential(
        model=model.eval().requires_grad_(False),
        reference_energies=references.mean(0),
        member_references=references,
        domain=merged_domain({name: potential.domain for name, potential in members.items()}),
        provenance=_provenance(members),
    )


def with_std_scale(ensemble: Potential, scale: float, *, record: Mapping[str, Any]) -> Potential:
    """An ensemble whose scatter times `scale` is its error bar; what it was calibrated on goes into its record.

    Args:
        ensemble: of at least two members.
        scale: > 0, replaces the one that it has; see `remul_md.analysis.calibration.std_scale`.
        record: of the frames, JSON-able.
    Raises:
        InputError: a single model, or a scale that is not a number above 0.
    """
    if ensemble.n_members < 2:
        raise InputError("a single model has no scatter to calibrate; make an ensemble of several")
    model: Any = copy(ensemble.model)  # the weights are shared
    model.config = replace(model.config, std_scale=float(scale))
    told = replace(ensemble.provenance, data={**ensemble.provenance.data, "calibration": dict(record)})
    return replace(ensemble, model=model, provenance=told)


def _same_architecture(members: dict[str, Potential]) -> tuple[str, dict[str, Any]]:
    """Kind and options that all members share, without the energy scale, which belongs to each member's data."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, potential in members.items():
        if potential.n_members > 1:
            raise InputError(f"{name} is an ensemble of {potential.n_members}; give its members instead")
        kind, options = model_config(potential.model)
        del options["energy_scale"]
        found[name] = kind, options
    first = next(iter(found))
    for name, (kind, options) in found.items():
        ours = {"kind": found[first][0], **found[first][1]}
        theirs = {"kind": kind, **options}
        unlike = [f"{key} {ours.get(key)} and {theirs.get(key)}" for key in ours if ours.get(key) != theirs.get(key)]
        if unlike:
            raise InputError(f"{first} and {name} differ in {'; '.join(unlike)}; members share one architecture")
    return found[first]


def _provenance(members: dict[str, Potential]) -> Provenance:
    each = {name: potential.provenance for name, potential in members.items()}
    heads: set[Literal["conservative", "direct"]] = {"conservative", "direct"}
    for own in each.values():
        heads &= {"conservative", "direct"} if own.trained_forces == "both" else {own.trained_forces}
    if not heads:
        told = ", ".join(f"{name} {own.trained_forces}" for name, own in each.items())
        raise InputError(f"the members have no trained head in common ({told}); train them with one train.forces")
    sources = sorted({str(own.data.get("name", "unknown")) for own in each.values()})
    return Provenance(
        trained_forces="both" if len(heads) == 2 else heads.pop(),
        data={"name": ", ".join(sources)},
        seconds=sum(own.seconds for own in each.values()),
        members=[
            {"name": Path(name).name, "sha256": members[name].sha256}
            | {key: value for key, value in own.to_json().items() if key != "members"}
            for name, own in each.items()
        ],
    )


@own_settings()
def members_of(ensemble: Potential) -> list[Potential]:
    """The members of an ensemble, each as a potential of its own; of a single potential that alone.

    Their domain is that of the ensemble, which covers those of all members.
    """
    if ensemble.member_references is None:
        return [ensemble]
    kind, options = ensemble.config.member_kind, ensemble.config.member_options
    model: Any = ensemble.model
    states = model.member.model.state_dict()
    like = next(model.parameters())
    found = []
    for number, scale in enumerate(ensemble.config.energy_scales):
        with torch.random.fork_rng(devices=[]):  # the member's weights replace what is drawn here
            single: Any = build_model(kind, {**options, "energy_scale": scale}).to(like.device, like.dtype)
        single.load_state_dict({name: value[number] for name, value in states.items()})
        record = ensemble.provenance.members[number]
        found.append(
            Potential(
                model=single.eval().requires_grad_(False),
                reference_energies=ensemble.member_references[number],
                domain=ensemble.domain,
                provenance=Provenance(**{key: value for key, value in record.items() if key not in ("name", "sha256")}),
            )
        )
    return found
