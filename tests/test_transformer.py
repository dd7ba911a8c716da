"""The transformer: exact symmetries hold, energy and forces are smooth, derivatives of any order are right."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from potentials import molecule_frames, random_model
from torch import Tensor

from remul_md.errors import InputError
from remul_md.models import build_model, model_config, transformer
from remul_md.models.neighborhood import (
    gather_neighbors,
    pair_displacements,
    smooth_envelope,
    sum_over_pairs,
    sum_over_systems,
)
from remul_md.models.transformer import Transformer, TransformerConfig, smooth_softmax
from remul_md.neighbors import build_batch
from remul_md.structures import Batch, BatchStore, Frames
from remul_md.symmetry.rotations import random_rotations, turn_batch, turn_prediction

CUTOFF = 4.5


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return random_model(cutoff=CUTOFF).double()


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
    weight = dict(model.named_parameters())["blocks.1.pair.weight"]

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


def test_gather_and_sum_have_derivatives_of_second_order(batch: Batch) -> None:
    values = torch.randn(batch.n_atoms, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def through_neighbors(x: Tensor) -> Tensor:
        return sum_over_pairs(gather_neighbors(x, batch).square(), batch)

    assert torch.autograd.gradgradcheck(through_neighbors, (values.requires_grad_(),))


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
    positions = batch.positions.clone().requires_grad_()
    out = model(batch)
    moved = batch.positions.clone()
    moved[batch.system_index == 1] += torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert model(replace(batch, positions=moved)).energy[0] == out.energy[0]
    assert positions.grad is None


def test_net_force_is_zero_for_both_heads(model: torch.nn.Module, batch: Batch) -> None:
    out = model(batch, forces="both")
    for forces in (out.forces, out.direct_forces):
        sums = forces.new_zeros(2, 3).index_add(0, batch.system_index, forces)
        assert sums.abs().max() < 1e-12
        assert forces.abs().max() > 1e-4


def test_the_untrained_model_breaks_rotations(model: torch.nn.Module, batch: Batch) -> None:
    rotations = random_rotations(2, generator=torch.Generator().manual_seed(0))
    stock, turned = model(batch, forces="both"), model(turn_batch(batch, rotations), forces="both")
    expected = turn_prediction(stock, rotations)
    size = stock.forces.abs().mean()
    assert (turned.energy - stock.energy).abs().max() > 1e-3 * stock.energy.abs().max()
    assert (turned.forces - expected.forces).abs().mean() > 0.05 * size


def test_a_fresh_model_depends_on_the_orientation_too(batch: Batch) -> None:
    """Initialisation is gentle on raw directions, but it is no hidden symmetry: training has something to teach."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = Transformer(TransformerConfig(species=(1, 6, 8), cutoff=CUTOFF)).double()
    rotations = random_rotations(2, generator=torch.Generator().manual_seed(0))
    stock, turned = fresh(batch, forces="both"), fresh(turn_batch(batch, rotations), forces="both")
    expected = turn_prediction(stock, rotations)
    for one, other in ((turned.forces, expected.forces), (turned.direct_forces, expected.direct_forces)):
        assert (one - other).abs().mean() > 0.02 * other.abs().mean()


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
    distances = CUTOFF + np.array([-1e-3, -1e-6, 1e-6, 1e-3])
    for distance in distances:
        out = model(structure(distance), forces="both")
        energies.append(out.energy.item())
        forces.append(torch.cat([out.forces, out.direct_forces]).detach().numpy())
    # Across 2e-6 Angstrom the energy may change by what the force says, and the force by as little as a smooth one.
    work = -0.5 * (forces[1][n_others + 1, 0] + forces[2][n_others + 1, 0]) * (distances[2] - distances[1])
    assert energies[2] - energies[1] == pytest.approx(work, abs=1e-13)
    assert np.abs(forces[2] - forces[1]).max() < 1e-6
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


def test_displacements_reverse_under_the_reverse_index(batch: Batch) -> None:
    displacements = pair_displacements(batch, padding=CUTOFF)
    reverse = displacements.flatten(0, 1)[batch.reverse_index.flatten()].view_as(displacements)
    assert torch.equal(reverse[batch.neighbor_mask], -displacements[batch.neighbor_mask])


def test_envelope_vanishes_with_two_derivatives() -> None:
    r = torch.tensor([0.0, 2.0, CUTOFF], dtype=torch.float64, requires_grad=True)
    value = smooth_envelope(r, CUTOFF)
    (first,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    assert value[0] == 1
    assert 0 < value[1] < 1
    assert value[2].abs() < 1e-14
    assert first[2].abs() < 1e-14
    assert second[2].abs() < 1e-13


def test_attention_of_a_lone_neighbour_fades() -> None:
    logits = torch.full((1, 1, 4), 30.0, dtype=torch.float64)
    weights = [smooth_softmax(logits, torch.tensor([[e]], dtype=torch.float64)).max().item() for e in (1.0, 1e-20, 0.0)]
    assert weights[0] > 0.99
    assert weights[1] < 1e-6
    assert weights[2] == 0


def test_sum_over_systems_sums_each_system(batch: Batch) -> None:
    values = torch.arange(12.0)
    assert sum_over_systems(values, batch).tolist() == [21.0, 45.0]


def test_every_shape_letter_is_in_the_legend() -> None:
    source = inspect.getsource(transformer)
    legend = source.split("Letters of the shape suffixes:")[1].split('"""')[0]
    known = set(re.findall(r"\b([A-Z])\b", legend))
    suffixes = set(re.findall(r"\b[a-z][a-z_]*_([A-Z][A-Z0-9]*)\b", source))
    assert len(suffixes) > 10
    for suffix in suffixes:
        assert set(re.sub(r"\d", "", suffix)) <= known, suffix


def test_model_rebuilds_from_its_config() -> None:
    model = random_model(cutoff=3.5)
    kind, options = model_config(model)
    twin = build_model(kind, options)
    assert {n: p.shape for n, p in twin.state_dict().items()} == {n: p.shape for n, p in model.state_dict().items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 30}, "divisible by model.n_heads, got 30 and 8"),
        ({"n_layers": 0}, "model.n_layers must be >= 1, got 0"),
        ({"cutoff": -5.0}, "model.cutoff must be > 0.5 Angstrom, got -5.0"),
        ({"energy_scale": 0.0}, "model.energy_scale must be > 0 eV, got 0.0"),
        ({"species": ()}, "model.species is empty"),
    ],
)
def test_config_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        TransformerConfig(**{"species": (1, 6), **options})  # type: ignore[arg-type]


def test_unknown_model_options_are_refused(model: torch.nn.Module, batch: Batch) -> None:
    with pytest.raises(InputError, match="model kind 'schnet' is unknown; choose one of transformer"):
        build_model("schnet", {})
    with pytest.raises(InputError, match="model option 'widht' is unknown to transformer"):
        build_model("transformer", {"widht": 3})
    with pytest.raises(InputError, match="forces must be one of none, direct, conservative, both, got 'magic'"):
        model(batch, forces="magic")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_second_derivatives_agree_on_cuda(model: torch.nn.Module, batch: Batch) -> None:
    def gradient(on: str) -> Tensor:
        moved = random_model(cutoff=CUTOFF).double().to(on)
        loss = moved(batch.to(on), forces="conservative", create_graph=True).forces.square().sum()
        return torch.autograd.grad(loss, moved.blocks[0].query.weight)[0].cpu()

    torch.testing.assert_close(gradient("cuda"), gradient("cpu"), rtol=1e-9, atol=1e-12)
