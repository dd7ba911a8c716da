"""The contract of every force model, on each of them: exact symmetries, smooth energies, right derivatives."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from potentials import molecule_frames, random_model
from torch import Tensor

from remul_md.errors import InputError
from remul_md.models import MODELS, build_model, model_config
from remul_md.structures.batch import Batch, BatchStore
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch

CUTOFF = 4.5
# A matrix deep in each model, through which the second derivatives of a force loss go.
INNER = {
    "transformer": "blocks.1.pair.weight",
    "painn": "messages.1.filters.weight",
    "plain": "blocks.1.pair.weight",
}


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(kind=request.param, cutoff=CUTOFF).double()


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Two systems of 7 and 5 atoms, in which not all atoms are neighbours."""
    return build_batch(molecule_frames(), cutoff=CUTOFF)


def predicted(model: torch.nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    out = model(batch, forces="both")
    return out.energy.detach(), out.forces.detach(), out.direct_forces.detach()


def test_conservative_forces_are_minus_the_gradient(model: torch.nn.Module, batch: Batch) -> None:
    forces = model(batch, forces="conservative").forces
    step = 1e-4
    for atom, axis in ((0, 0), (3, 2), (8, 1), (11, 2)):
        energies = []
        for sign in (1, -1):
            positions = batch.positions.clone()
            positions[atom, axis] += sign * step
            energies.append(model(replace(batch, positions=positions)).energy.sum().item())
        numeric = -(energies[0] - energies[1]) / (2 * step)
        assert numeric == pytest.approx(forces[atom, axis].item(), abs=2e-6 * forces.square().mean().sqrt().item())


def test_gradients_of_a_force_loss_match_finite_differences(model: torch.nn.Module, batch: Batch) -> None:
    weight = dict(model.named_parameters())[INNER[model_config(model)[0]]]

    def loss() -> Tensor:
        return model(batch, forces="conservative", create_graph=True).forces.square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    for row, column in ((0, 0), (9, 3), (weight.shape[0] - 1, 5)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[row, column] += sign * 1e-4
            values.append(loss().item())
            with torch.no_grad():
                weight[row, column] -= sign * 1e-4
        numeric = (values[0] - values[1]) / 2e-4
        assert numeric == pytest.approx(gradient[row, column].item(), rel=1e-5, abs=1e-9)


def test_padding_changes_nothing(model: torch.nn.Module) -> None:
    tight = build_batch(molecule_frames(), cutoff=CUTOFF)
    padded = build_batch(molecule_frames(), cutoff=CUTOFF, min_neighbors=tight.neighbor_index.shape[1] + 3)
    for a, b in zip(predicted(model, tight), predicted(model, padded), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_batch_gives_what_single_systems_give(model: torch.nn.Module, batch: Batch) -> None:
    store = BatchStore(batch)
    together = predicted(model, batch)
    alone = [predicted(model, store.select([index])) for index in (0, 1)]
    for a, b in zip(together, (torch.cat(parts) for parts in zip(*alone, strict=True)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_translation_changes_nothing(model: torch.nn.Module, batch: Batch) -> None:
    moved = replace(batch, positions=batch.positions + torch.tensor([128.0, -64.0, 32.0], dtype=torch.float64))
    for a, b in zip(predicted(model, batch), predicted(model, moved), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_permuting_atoms_permutes_forces(model: torch.nn.Module) -> None:
    frames = molecule_frames().select([0])
    order = np.random.default_rng(3).permutation(len(frames.positions))
    permuted = replace(frames, positions=frames.positions[order], atomic_numbers=frames.atomic_numbers[order])
    energy, forces, direct = predicted(model, build_batch(frames, cutoff=CUTOFF))
    other_energy, other_forces, other_direct = predicted(model, build_batch(permuted, cutoff=CUTOFF))
    torch.testing.assert_close(other_energy, energy, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other_forces, forces[order], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(other_direct, direct[order], rtol=1e-10, atol=1e-12)


def test_systems_do_not_see_each_other(model: torch.nn.Module, batch: Batch) -> None:
    here = batch.system_index == 0
    energy, forces, direct = predicted(model, batch)
    moved = batch.positions.clone()
    moved[batch.system_index == 1] += torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    other_energy, other_forces, other_direct = predicted(model, replace(batch, positions=moved))
    assert other_energy[0] == energy[0]
    assert torch.equal(other_forces[here], forces[here])
    assert torch.equal(other_direct[here], direct[here])
    assert not torch.equal(other_forces[~here], forces[~here])


def test_net_force_is_zero_for_both_heads(model: torch.nn.Module, batch: Batch) -> None:
    out = model(batch, forces="both")
    for forces in (out.forces, out.direct_forces):
        sums = forces.new_zeros(2, 3).index_add(0, batch.system_index, forces)
        assert sums.abs().max() < 1e-12
        assert forces.abs().max() > 1e-4


@pytest.mark.parametrize("n_others", [0, 1, 2])
def test_crossing_the_cutoff_gives_no_jump(model: torch.nn.Module, n_others: int) -> None:
    """One atom leaves the cutoff of another that has no, one or two further neighbours."""
    others = np.array([[0.3, 1.1, 0.2], [-0.8, -0.9, 0.4]])[:n_others]

    def structure(distance: float) -> Batch:
        frames = Frames(
            positions=np.concatenate([[[0.0, 0.0, 0.0]], others, [[distance, 0.0, 0.0]]]),
            atomic_numbers=np.array([6, 1, 8, 1])[[*range(n_others + 1), 3]],
            n_atoms=np.array([n_others + 2]),
            pbc=np.zeros((1, 3), dtype=bool),
        )
        return build_batch(frames, cutoff=CUTOFF)

    def energy_at(distance: float) -> float:
        return float(model(structure(distance)).energy.item())

    energies, forces = [], []
    distances = CUTOFF + np.array([-3e-6, -1e-6, 1e-6, 3e-6])
    for distance in distances:
        out = model(structure(distance), forces="both")
        energies.append(out.energy.item())
        forces.append(torch.cat([out.forces, out.direct_forces]).detach().numpy())
    # Across 2e-6 Angstrom the energy may change by what the force says, and the force by as little as beside it, where
    # its slope is that of the other pairs.
    work = -0.5 * (forces[1][n_others + 1, 0] + forces[2][n_others + 1, 0]) * (distances[2] - distances[1])
    assert energies[2] - energies[1] == pytest.approx(work, abs=1e-13)
    beside = max(np.abs(forces[1] - forces[0]).max(), np.abs(forces[3] - forces[2]).max())
    assert np.abs(forces[2] - forces[1]).max() < 1e-6 + 1.1 * beside
    # ... and inside the cutoff the pair does interact, so the test can fail.
    assert abs(energy_at(CUTOFF - 1.5) - energies[0]) > 1e-6


def test_an_atom_alone_has_an_energy_and_no_force(model: torch.nn.Module) -> None:
    frames = Frames(
        positions=np.zeros((1, 3)), atomic_numbers=np.array([8]), n_atoms=np.array([1]), pbc=np.zeros((1, 3), bool)
    )
    out = model(build_batch(frames, cutoff=CUTOFF), forces="both")
    assert torch.isfinite(out.energy).all()
    assert out.forces.abs().max() == 0
    assert out.direct_forces.abs().max() == 0


def test_periodic_images_are_equivalent(model: torch.nn.Module) -> None:
    cell = np.array([[5.0, 0.0, 0.0], [0.7, 4.8, 0.0], [0.2, -0.4, 5.4]])
    rng = np.random.default_rng(5)
    positions = rng.uniform(0, 1, (4, 3)) @ cell * np.array([1.0, 1.0, 1.0])
    frames = Frames(
        positions=positions,
        atomic_numbers=np.array([6, 8, 1, 1]),
        n_atoms=np.array([4]),
        pbc=np.ones((1, 3), dtype=bool),
        cell=cell[None],
    )
    moved = replace(frames, positions=positions + np.array([[0, 0, 0], [1, 0, -1], [0, 2, 0], [-1, 1, 0]]) @ cell)
    for a, b in zip(
        predicted(model, build_batch(frames, cutoff=CUTOFF)),
        predicted(model, build_batch(moved, cutoff=CUTOFF)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_the_same_call_gives_the_same_bits(model: torch.nn.Module, batch: Batch) -> None:
    def gradients() -> list[Tensor]:
        model.zero_grad()
        out = model(batch, forces="both", create_graph=True)
        (out.forces.square().sum() + out.direct_forces.square().sum() + out.energy.sum()).backward()
        return [out.forces.detach().clone(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    first = gradients()
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(first, gradients(), strict=True))


def test_the_shared_matrix_serves_all_outputs(model: torch.nn.Module, batch: Batch) -> None:
    out = model(batch, forces="both", create_graph=True)
    for value in (out.energy.sum(), out.forces.square().sum(), out.direct_forces.square().sum()):
        (gradient,) = torch.autograd.grad(value, model.shared_matrix, retain_graph=True)
        assert gradient.abs().max() > 0


def test_energies_scale_with_their_unit(model: torch.nn.Module, batch: Batch) -> None:
    kind, options = model_config(model)
    scaled = build_model(kind, {**options, "energy_scale": 2.5}).double()
    scaled.load_state_dict(model.state_dict())
    for a, b in zip(predicted(scaled, batch), predicted(model, batch), strict=True):
        torch.testing.assert_close(a, 2.5 * b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_model_rebuilds_from_its_config(kind: str) -> None:
    model = random_model(kind=kind, cutoff=3.5)
    assert model_config(model)[0] == kind
    twin = build_model(*model_config(model))
    assert {n: p.shape for n, p in twin.state_dict().items()} == {n: p.shape for n, p in model.state_dict().items()}


@pytest.mark.parametrize("kind", sorted(MODELS))
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_layers": 0}, "model.n_layers must be >= 1, got 0"),
        ({"width": -8}, "model.width must be >= 1, got -8"),
        ({"n_radial": 0}, "model.n_radial must be >= 1, got 0"),
        ({"cutoff": -5.0}, "model.cutoff must be > 0.5 Angstrom, got -5.0"),
        ({"energy_scale": 0.0}, "model.energy_scale must be > 0 eV, got 0.0"),
        ({"species": ()}, "model.species is empty"),
    ],
)
def test_options_out_of_range_are_refused(kind: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        build_model(kind, {"species": (1, 6), **options})


def test_unknown_model_options_are_refused(model: torch.nn.Module, batch: Batch) -> None:
    with pytest.raises(InputError, match=r"model kind 'schnet' .*transformer, painn"):
        build_model("schnet", {})
    with pytest.raises(InputError, match=r"'widht' .*transformer"):
        build_model("transformer", {"widht": 3})
    with pytest.raises(InputError, match=r"'n_heads' .*painn; it knows cutoff, energy_scale"):
        build_model("painn", {"n_heads": 3})
    with pytest.raises(InputError, match=r"forces .*none, direct, conservative, both, got 'magic'"):
        model(batch, forces="magic")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_second_derivatives_agree_on_cuda(model: torch.nn.Module, batch: Batch) -> None:
    def gradient(on: str) -> Tensor:
        moved = build_model(*model_config(model)).double()
        moved.load_state_dict(model.state_dict())
        moved = moved.to(on)
        loss = moved(batch.to(on), forces="conservative", create_graph=True).forces.square().sum()
        return torch.autograd.grad(loss, dict(moved.named_parameters())[INNER[model_config(model)[0]]])[0].cpu()

    torch.testing.assert_close(gradient("cuda"), gradient("cpu"), rtol=1e-9, atol=1e-12)
