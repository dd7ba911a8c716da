"""The two models: what each knows about rotations before training, and that neither knows the order of the bodies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from remul_md.errors import InputError
from remul_md.studies.nbody.generator import Bodies, rotate_bodies, rotate_body_vectors
from remul_md.studies.nbody.models import BodyTransformer, BodyTransformerConfig, Egnn, EgnnConfig, EgnnLayer
from remul_md.symmetry.rotations import random_rotations


def some_bodies(n: int = 6, n_bodies: int = 5) -> Bodies:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(n, n_bodies, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    masses = torch.rand(n, n_bodies, generator=generator, dtype=torch.float64) + 0.1
    return Bodies(masses=masses, positions=drawn[0], velocities=drawn[1], displacements=drawn[2])


def built(kind: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "egnn":
            model: nn.Module = Egnn(EgnnConfig(width=16, n_layers=3))
            for parameter in model.parameters():  # a fresh EGNN hardly moves along differences; a trained one does
                nn.init.normal_(parameter, std=0.2)
        else:
            model = BodyTransformer(BodyTransformerConfig(width=24, n_layers=2, n_heads=4))
    return model.double().eval()


@pytest.mark.parametrize("group", ["SO3", "O3"])
def test_egnn_turns_with_its_input(group: str) -> None:
    bodies, model = some_bodies(), built("egnn")
    rotations = random_rotations(6, generator=torch.Generator().manual_seed(2), group=group).unsqueeze(0)  # type: ignore[arg-type]
    expected = rotate_body_vectors(model(bodies), rotations)
    assert expected.abs().mean() > 0.1
    assert torch.allclose(model(rotate_bodies(bodies, rotations)), expected, atol=1e-11)


def test_egnn_uses_differences_and_velocities() -> None:
    bodies, model = some_bodies(), built("egnn")
    moved = replace(bodies, positions=bodies.positions + torch.tensor([3.0, -7.0, 11.0]))
    assert torch.allclose(model(moved), model(bodies), atol=1e-11)
    standing = replace(bodies, velocities=torch.zeros_like(bodies.velocities))
    assert (model(standing) - model(bodies)).abs().mean() > 0.01
    heavier = replace(bodies, masses=bodies.masses * 2)
    assert (model(heavier) - model(bodies)).abs().mean() > 1e-4


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
    new_h, new_x = layer(h, x, v)
    for i in range(4):
        received, moved = torch.zeros(16, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for j in range(4):
            if i != j:
                difference = x[0, i] - x[0, j]
                message = layer.edge(torch.cat([h[0, i], h[0, j], difference.square().sum().view(1)]))
                received = received + message
                moved = moved + difference * layer.move(message) / 3
        assert torch.allclose(new_x[0, i], x[0, i] + moved + layer.speed(h[0, i]) * v[0, i], atol=1e-12)
        assert torch.allclose(new_h[0, i], h[0, i] + layer.node(torch.cat([h[0, i], received])), atol=1e-12)


def test_the_transformer_knows_no_rotation() -> None:
    bodies, model = some_bodies(), built("transformer")
    rotations = random_rotations(6, generator=torch.Generator().manual_seed(2)).unsqueeze(0)
    gap = model(rotate_bodies(bodies, rotations)) - rotate_body_vectors(model(bodies), rotations)
    assert gap.norm() > 0.1 * model(bodies).norm()


@pytest.mark.parametrize("kind", ["transformer", "egnn"])
def test_bodies_have_no_order_and_systems_do_not_mix(kind: str) -> None:
    bodies, model = some_bodies(), built(kind)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = Bodies(
        masses=bodies.masses[:, order],
        positions=bodies.positions[:, order],
        velocities=bodies.velocities[:, order],
        displacements=bodies.displacements[:, order],
    )
    assert torch.allclose(model(shuffled), model(bodies)[:, order], atol=1e-12)
    assert torch.allclose(model(bodies.select(slice(2, 3)))[0], model(bodies)[2], atol=1e-12)


def test_the_papers_size() -> None:
    """The reference transformer of 384 channels and 10 blocks has 11.83 million weights."""
    with torch.device("meta"):
        model = BodyTransformer(BodyTransformerConfig(width=384, n_layers=10))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(11.83e6, rel=1e-3)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="divisible by n_heads, got 30 and 8"):
        BodyTransformerConfig(width=30)
    with pytest.raises(InputError, match="n_layers must be >= 1, got 0"):
        BodyTransformerConfig(n_layers=0)
    with pytest.raises(InputError, match="width must be >= 1, got 0"):
        EgnnConfig(width=0)
