"""The networks: what each knows about rotations before training, and that none knows the order of the particles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from remul_md.studies.models.egnn import Egnn, EgnnLayer
from remul_md.studies.models.gatr import Gatr
from remul_md.studies.models.gnn import Gnn, GnnLayer
from remul_md.studies.models.se3 import Se3Transformer
from remul_md.studies.models.transformer import PlainTransformer
from remul_md.studies.particles import Tokens, rotate_each, rotate_tokens
from remul_md.symmetry.rotations import random_rotations

N, S, P = 5, 2, 3


def some_tokens(n: int = 6) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(n, N, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    scalars = torch.rand(n, N, S, generator=generator, dtype=torch.float64) + 0.1
    pairs = torch.rand(n, N, N, P, generator=generator, dtype=torch.float64)
    return Tokens(scalars=scalars, positions=drawn[0], velocities=drawn[1], pairs=pairs, targets=drawn[2])


def built(kind: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module
        if kind == "transformer":
            model = PlainTransformer(n_scalars=S, width=24, n_layers=2, n_heads=4)
        elif kind == "gnn":
            model = Gnn(n_scalars=S, n_pair_features=P, width=18, n_layers=3)
        elif kind == "egnn":
            model = Egnn(n_scalars=S, n_pair_features=P, width=16, n_layers=3)
            for parameter in model.parameters():  # a fresh EGNN hardly moves along differences; a trained one does
                nn.init.normal_(parameter, std=0.2)
        elif kind == "gatr":
            model = Gatr(n_scalars=S, n_channels=4, n_scalar_channels=12, n_layers=2, n_heads=2)
        else:
            model = Se3Transformer(n_scalars=S, n_pair_features=P, n_channels=7, n_layers=3)
            nn.init.constant_(model.scale, 3.0)
    return model.double().eval()


@pytest.mark.parametrize(("kind", "group"), [("egnn", "SO3"), ("egnn", "O3"), ("se3", "SO3")])
def test_what_is_equivariant_by_construction_turns_with_its_input(kind: str, group: str) -> None:
    bodies, model = some_tokens(), built(kind)
    rotations = random_rotations(6, generator=torch.Generator().manual_seed(2), group=group).unsqueeze(0)  # type: ignore[arg-type]
    expected = rotate_each(model(bodies), rotations)
    assert expected.abs().mean() > 0.1
    assert torch.allclose(model(rotate_tokens(bodies, rotations)), expected, atol=1e-11)


@pytest.mark.parametrize("kind", ["egnn", "se3"])
def test_they_use_differences_velocities_scalars_and_pairs(kind: str) -> None:
    bodies, model = some_tokens(), built(kind)
    moved = replace(bodies, positions=bodies.positions + torch.tensor([3.0, -7.0, 11.0]))
    assert torch.allclose(model(moved), model(bodies), atol=1e-11)
    standing = replace(bodies, velocities=torch.zeros_like(bodies.velocities))
    assert (model(standing) - model(bodies)).abs().mean() > 0.01
    for changed in (replace(bodies, scalars=bodies.scalars * 2), replace(bodies, pairs=bodies.pairs * 2)):
        assert (model(changed) - model(bodies)).abs().mean() > 1e-4


def test_the_graph_network_uses_all_that_it_is_given() -> None:
    bodies, model = some_tokens(), built("gnn")
    for name in ("scalars", "positions", "velocities", "pairs"):
        changed = replace(bodies, **{name: 2 * getattr(bodies, name)})
        assert (model(changed) - model(bodies)).abs().mean() > 1e-4, name


def test_kernels_of_odd_parity_tell_a_mirror_image() -> None:
    """The cross product with the direction: SE(3) and not E(3), as the published network."""
    bodies, model = some_tokens(), built("se3")
    mirror = -torch.eye(3, dtype=torch.float64).expand(1, 6, 3, 3)
    gap = model(rotate_tokens(bodies, mirror)) - rotate_each(model(bodies), mirror)
    assert gap.norm() > 1e-3 * model(bodies).norm()


def test_one_egnn_layer_is_its_equations() -> None:
    """A slow loop over pairs, straight from the paper."""
    model = built("egnn")
    assert isinstance(model, Egnn)
    layer = model.layers[0]
    assert isinstance(layer, EgnnLayer)
    h, x, v = (
        torch.randn(1, 4, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (16, 3, 2)
    )
    v = torch.cat([v, v[..., :1]], dim=-1)
    pairs = torch.rand(1, 4, 4, P, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    new_h, new_x = layer(h, x, v, pairs)
    for i in range(4):
        received, moved = torch.zeros(16, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for j in range(4):
            if i != j:
                difference = x[0, i] - x[0, j]
                message = layer.edge(torch.cat([h[0, i], h[0, j], difference.square().sum().view(1), pairs[0, i, j]]))
                received = received + message
                moved = moved + difference * layer.move(message) / 3
        assert torch.allclose(new_x[0, i], x[0, i] + moved + layer.speed(h[0, i]) * v[0, i], atol=1e-12)
        assert torch.allclose(new_h[0, i], h[0, i] + layer.node(torch.cat([h[0, i], received])), atol=1e-12)


def test_one_layer_of_the_graph_network_is_its_equations() -> None:
    """A slow loop over pairs: one linear layer over receiver, sender and pair."""
    model = built("gnn")
    assert isinstance(model, Gnn)
    layer = model.layers[1]
    assert isinstance(layer, GnnLayer)
    h, pairs = (
        torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        for shape in ((1, 4, 18), (1, 4, 4, 1 + P))
    )
    matrix = torch.cat([layer.receive.weight, layer.send.weight, layer.pair.weight], dim=1)
    for i, found in enumerate(layer(h, pairs)[0]):
        received = torch.zeros(18, dtype=torch.float64)
        for j in range(4):
            if i != j:
                received += layer.message(matrix @ torch.cat([h[0, i], h[0, j], pairs[0, i, j]]) + layer.receive.bias)
        assert torch.allclose(found, h[0, i] + layer.node(torch.cat([h[0, i], received])), atol=1e-12)


@pytest.mark.parametrize("kind", ["transformer", "gnn"])
def test_the_plain_networks_know_no_rotation(kind: str) -> None:
    bodies, model = some_tokens(), built(kind)
    rotations = random_rotations(6, generator=torch.Generator().manual_seed(2)).unsqueeze(0)
    gap = model(rotate_tokens(bodies, rotations)) - rotate_each(model(bodies), rotations)
    assert gap.norm() > 0.1 * model(bodies).norm()


@pytest.mark.parametrize("kind", ["transformer", "gnn", "egnn", "se3", "gatr"])
def test_particles_have_no_order_and_systems_do_not_mix(kind: str) -> None:
    bodies, model = some_tokens(), built(kind)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = replace(
        bodies,
        scalars=bodies.scalars[:, order],
        positions=bodies.positions[:, order],
        velocities=bodies.velocities[:, order],
        pairs=bodies.pairs[:, order][:, :, order],
    )
    assert torch.allclose(model(shuffled), model(bodies)[:, order], atol=1e-12)
    assert torch.allclose(model(bodies.select(slice(2, 3)))[0], model(bodies)[2], atol=1e-12)


def test_the_papers_size() -> None:
    """The reference transformer of 384 channels and 10 blocks has 11.83 million weights."""
    with torch.device("meta"):
        model = PlainTransformer(n_scalars=1, width=384, n_layers=10, n_heads=8)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(11.83e6, rel=1e-3)
