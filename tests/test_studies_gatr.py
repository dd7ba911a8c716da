"""GATr: the algebra from anticommutation alone, equivariance of every layer in mirrors and their products, its size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from remul_md.studies.lab import study_options
from remul_md.studies.models import gatr
from remul_md.studies.models.gatr import (
    Attention,
    Block,
    EquivariantLinear,
    Gatr,
    Mlp,
    bilinear,
    distance_features,
    embed_point,
    embed_translation,
    join_table,
    normalised,
    product_table,
    read_displacement,
)
from remul_md.studies.particles import Tokens, rotate_each, rotate_tokens
from remul_md.studies.tasks import find_task
from remul_md.symmetry.rotations import random_rotations

B, N, C, S = 4, 5, 6, 7
Layer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
NAMES = ("1", "0", "1", "2", "3", "01", "02", "03", "12", "13", "23", "012", "013", "023", "123", "0123")
WORDS = [[], *[[int(letter) for letter in name] for name in NAMES[1:]]]


def shortened(word: list[int]) -> tuple[int, int]:
    """Component and sign of a product of generators, by exchanging neighbours and squaring equal ones."""
    letters, sign = list(word), 1
    at = 0
    while at < len(letters) - 1:
        if letters[at] > letters[at + 1]:
            letters[at : at + 2] = [letters[at + 1], letters[at]]
            sign, at = -sign, max(0, at - 1)
        elif letters[at] == letters[at + 1]:
            sign *= 0 if letters[at] == 0 else 1
            del letters[at : at + 2]
            at = max(0, at - 1)
        else:
            at += 1
    return WORDS.index(letters), sign


def by_anticommutation() -> Tensor:
    table = torch.zeros(16, 16, 16, dtype=torch.float64)
    for i, first in enumerate(WORDS):
        for j, second in enumerate(WORDS):
            k, sign = shortened(first + second)
            table[i, j, k] = sign
    return table


PRODUCT = by_anticommutation()
REVERSED = torch.tensor([(-1.0) ** (len(word) * (len(word) - 1) // 2) for word in WORDS], dtype=torch.float64)
ODD = torch.tensor([len(word) % 2 == 1 for word in WORDS])


def times(x: Tensor, y: Tensor) -> Tensor:
    return torch.einsum("...i,...j,ijk->...k", x, y, PRODUCT)


def mirror(normal: Tensor, offset: float) -> Tensor:
    """The plane n x = d as a vector of norm 1."""
    plane = torch.zeros(16, dtype=torch.float64)
    plane[2:5] = normal / normal.norm()
    plane[1] = -offset
    return plane


def acted(versor: Tensor, x: Tensor, *, odd: bool) -> Tensor:
    """What the product of mirrors does to multivectors."""
    moved = torch.where(ODD, -x, x) if odd else x
    return times(times(versor.expand_as(x), moved), (versor * REVERSED).expand_as(x))


def versors() -> dict[str, tuple[Tensor, bool]]:
    """A mirror, a translation (two parallel mirrors), a rotation about an axis off the origin, and a screw mirror."""
    generator = torch.Generator().manual_seed(5)
    normals = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    first, second, third = mirror(normals[0], 0.7), mirror(normals[0], -0.4), mirror(normals[1], 1.3)
    rotation = times(first, third)
    return {
        "mirror": (first, True),
        "translation": (times(first, second), False),
        "rotation": (rotation, False),
        "three mirrors": (times(rotation, mirror(normals[2], -0.9)), True),
    }


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(make: Callable[[], Any]) -> Any:
    """In float64, every weight drawn anew, and larger than at the start of a training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: nn.Module = make()
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=2.5 * max(parameter.shape[1:].numel(), 4) ** -0.5)
    return module.double()


def test_the_product_is_that_of_anticommuting_generators() -> None:
    table = torch.tensor(product_table())
    assert torch.equal(table, PRODUCT)
    assert table.count_nonzero() == 16 * 16 - 8 * 8
    x, y, z = some(3, 16)
    assert torch.allclose(times(times(x, y), z), times(x, times(y, z)), atol=1e-12)
    assert torch.allclose(bilinear(table, x, y), times(x, y), atol=1e-12)


def test_the_join_of_points_is_their_line_and_plane() -> None:
    """A point lies on what it was joined to, so joined once more it gives nothing; four points give their volume."""
    join = torch.tensor(join_table())
    a, b, c, d = embed_point(some(4, 3))
    line = bilinear(join, a, b)
    plane = bilinear(join, line, c)
    assert line[5:11].norm() > 0.1
    assert line[[*range(5), *range(11, 16)]].abs().max() < 1e-12
    assert plane[1:5].norm() > 0.1
    for joined, points in ((line, (a, b)), (plane, (a, b, c))):
        assert all(bilinear(join, joined, point).abs().max() < 1e-12 for point in points)
    corners = some(4, 3)
    volume = torch.linalg.det(corners[1:] - corners[0]).abs()
    assert bilinear(join, plane, d)[0].abs() == pytest.approx(volume.item(), abs=1e-12)
    edges = corners[1:3] - corners[0]
    assert plane[2:5].abs().numpy() == pytest.approx(torch.linalg.cross(*edges).abs().numpy(), abs=1e-12)


def test_there_are_nine_maps_of_norm_one() -> None:
    maps = gatr.linear_maps()
    assert np.square(maps).sum((1, 2)) == pytest.approx(np.ones(9))
    assert np.linalg.matrix_rank(maps.reshape(9, -1)) == 9


LAYERS: dict[str, tuple[Callable[[], Any], int]] = {
    "linear": (lambda: EquivariantLinear(n_in=C, n_out=3, scalars_in=S, scalars_out=2), 2),
    "norm": (lambda: None, 2),
    "attention": (lambda: Attention(n_channels=C, n_scalars=S, n_heads=4), 2),
    "mlp": (lambda: Mlp(n_channels=C, n_scalars=S), 3),
    "block": (lambda: Block(n_channels=C, n_scalars=S, n_heads=4), 3),
}


@pytest.mark.parametrize("kind", [*versors()])
@pytest.mark.parametrize("layer", [*LAYERS])
def test_every_layer_is_equivariant(layer: str, kind: str) -> None:
    versor, odd = versors()[kind]
    make, n_inputs = LAYERS[layer]
    module = normalised if layer == "norm" else built(make)
    x, s = some(B, N, C, 16), some(B, N, S, seed=1)

    def output(x: Tensor) -> tuple[Tensor, Tensor]:
        reference = x[..., 14].mean((1, 2))[:, None, None, None]
        found: tuple[Tensor, Tensor] = module(x, s, reference) if n_inputs == 3 else module(x, s)
        return found

    (moved_x, moved_s), (found_x, found_s) = output(acted(versor, x, odd=odd)), output(x)
    assert found_x.abs().mean() > 0.05
    assert (found_x - x[..., : found_x.shape[-2], :]).abs().mean() > 0.02
    assert (moved_x - acted(versor, found_x, odd=odd)).abs().max() < 1e-10
    assert (moved_s - found_s).abs().max() < 1e-10


def small() -> Gatr:
    sizes = {"n_channels": C, "n_scalar_channels": 12, "n_layers": 3, "n_heads": 4}
    model: Gatr = built(lambda: Gatr(n_scalars=2, **sizes))
    return model


@pytest.mark.parametrize("kind", [*versors()])
def test_the_network_between_multivectors_is_equivariant(kind: str) -> None:
    versor, odd = versors()[kind]
    model, x, s = small(), some(B, N, 1, 16), some(B, N, 2, seed=1)
    expected = acted(versor, model.transformed(x, s), odd=odd)
    assert expected.abs().mean() > 0.05
    assert (model.transformed(acted(versor, x, odd=odd), s) - expected).abs().max() < 1e-10


def particles() -> Tokens:
    drawn = [some(B, N, 3, seed=seed) for seed in range(3)]
    pairs = torch.zeros(B, N, N, 0, dtype=torch.float64)
    return Tokens(scalars=some(B, N, 2, seed=4), positions=drawn[0], velocities=drawn[1], pairs=pairs, targets=drawn[2])


def test_displacements_turn_with_particles_and_do_not_move_with_them() -> None:
    model, tokens = small(), particles()
    found = model(tokens)
    assert found.abs().mean() > 5e-3
    rotations = random_rotations(B, generator=torch.Generator().manual_seed(2)).unsqueeze(0)
    assert (model(rotate_tokens(tokens, rotations)) - rotate_each(found, rotations)).abs().max() < 1e-10
    away = replace(tokens, positions=tokens.positions + torch.tensor([3.0, -7.0, 11.0]))
    assert (model(away) - found).abs().max() < 1e-10
    for name in ("scalars", "velocities"):
        assert (
            model(replace(tokens, **{name: 2.0 * getattr(tokens, name)})) - found
        ).abs().mean() > 1e-3 * found.abs().mean()


def test_systems_do_not_mix() -> None:
    """Each has a reference of its own."""
    model, x, s = small(), some(B, N, 1, 16), some(B, N, 2, seed=1)
    alone = model.transformed(x[2:3], s[2:3])
    assert (model.transformed(x, s)[2:3] - alone).abs().max() < 1e-10


def test_single_precision_serves_far_from_the_origin() -> None:
    """Squares of distances would else be differences of squares of 1e4; what is left is the rounding of the input."""
    model, tokens = small().float(), particles()
    here = replace(tokens, **{name: getattr(tokens, name).float() for name in ("scalars", "positions", "velocities")})
    found = model(here)
    far = replace(here, positions=here.positions + 256.0)
    assert (model(far) - found).abs().max() < 0.02 * found.abs().max()


def test_a_mirror_image_of_particles_is_told_apart() -> None:
    """A mirror negates the trivector of a point as well: the algebra's action is not that of embedded points.

    The gap of this fresh network is 2e-4 of its outputs; that of rotations is at rounding, 1e-13.
    """
    tokens = particles()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Gatr(n_scalars=2, n_channels=C, n_scalar_channels=12, n_layers=3, n_heads=4).double()
    image = -torch.eye(3, dtype=torch.float64).expand(1, B, 3, 3)
    gap = model(rotate_tokens(tokens, image)) - rotate_each(model(tokens), image)
    assert gap.norm() > 1e-5 * model(tokens).norm()
    plane = mirror(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), 0.0)
    there = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64) * tokens.positions
    assert torch.allclose(acted(plane, embed_point(tokens.positions), odd=True), -embed_point(there), atol=1e-12)


def test_what_is_embedded_is_read_out() -> None:
    here, there = some(2, N, 3)
    assert torch.allclose(read_displacement(embed_point(there), here), there - here, atol=1e-12)
    assert torch.allclose(read_displacement(2.5 * embed_point(there), here), 2.5 * (there - here), atol=1e-12)
    moved = torch.stack(
        [
            acted(motor, point, odd=False)
            for motor, point in zip(embed_translation(there), embed_point(here), strict=True)
        ]
    )
    assert torch.allclose(moved, embed_point(here + there), atol=1e-12)


def test_the_distance_term_is_minus_the_squared_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    points = some(N, 3)
    query, key = distance_features(embed_point(points))
    squared = torch.cdist(points, points).square()
    assert torch.allclose(query @ key.mT, -squared / 1.001**4, atol=1e-10)
    monkeypatch.setattr(gatr, "WEIGHT_FLOOR", 0.0)
    # Of any weight, since it is divided out; what is no trivector is not read.
    query = distance_features(3.0 * embed_point(points) + embed_translation(points))[0]
    key = distance_features(-0.2 * embed_point(points))[1]
    assert torch.allclose(query @ key.mT, -squared, atol=1e-10)


def test_the_distances_are_in_the_logits() -> None:
    """Queries, keys and scalars at 0 but for the bias-free trivectors: weights are a softmax of squared distances."""
    layer: Attention = built(lambda: Attention(n_channels=1, n_scalars=4, n_heads=2))
    for part in (layer.query, layer.key):
        for parameter in part.parameters():
            nn.init.zeros_(parameter)
        nn.init.constant_(part.weight[:, :, 3].data, 2.0)  # the basis map has entries 1/2: trivectors as they are
    nn.init.constant_(layer.log_distance_weight, 0.3)
    points = some(1, N, 3)
    x, s = embed_point(points).unsqueeze(2), some(1, N, 4, seed=2)
    squared = torch.cdist(points, points).square() / 1.001**4
    n_features = 7 + 5 + 4
    weights = (-squared * np.exp(0.3) / n_features**0.5).softmax(-1)
    value_x, value_s = layer.value(x, s)
    heard_x = torch.einsum("bij,bjcm->bicm", weights, value_x).repeat(1, 1, 2, 1)
    expected = layer.out(heard_x, (weights @ value_s).repeat(1, 1, 2))
    for found, wanted in zip(layer(x, s), expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-10)


def test_the_papers_size() -> None:
    """2.21 million weights with 16 multivectors, 128 scalars, 10 blocks and 8 heads."""
    task = find_task("nbody")
    options = study_options(task, size="paper", overrides=["device=cpu"])
    example = replace(particles(), scalars=torch.ones(B, N, 1))
    model = options.model("gatr", example, seed=0)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(2.21e6, rel=2e-3)
    assert options.gatr_layers == 10
    assert study_options(find_task("mocap"), size="paper").gatr_layers == 12


@pytest.mark.parametrize("name", ["nbody", "charged", "mocap"])
def test_it_is_a_network_of_the_particle_tasks_trained_plainly(name: str) -> None:
    task = find_task(name)
    assert task.models["gatr"] == "GATr"
    assert "gatr" in task.exact
