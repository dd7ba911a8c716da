"""The transformer's own: rotations are not built in, attention fades at the cutoff. The rest: test_models.py."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from potentials import molecule_frames, random_model, unknown_shape_letters

from remul_md.errors import InputError
from remul_md.models import exact_model, transformer
from remul_md.models.operations import Symmetry, smooth_softmax
from remul_md.models.transformer import Transformer, TransformerConfig
from remul_md.structures.batch import Batch
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rotations import random_rotations, rotate_batch, rotate_prediction

CUTOFF = 4.5


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return random_model(cutoff=CUTOFF).double()


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Two systems of 7 and 5 atoms, in which not all atoms are neighbours."""
    return build_batch(molecule_frames(), cutoff=CUTOFF)


def test_the_untrained_model_breaks_rotations(model: torch.nn.Module, batch: Batch) -> None:
    rotations = random_rotations(2, generator=torch.Generator().manual_seed(0))
    original, rotated = model(batch, forces="both"), model(rotate_batch(batch, rotations), forces="both")
    expected = rotate_prediction(original, rotations)
    size = original.forces.abs().mean()
    assert (rotated.energy - original.energy).abs().max() > 1e-3 * original.energy.abs().max()
    assert (rotated.forces - expected.forces).abs().mean() > 0.05 * size


def test_a_fresh_model_depends_on_the_orientation_too(batch: Batch) -> None:
    """Initialisation is gentle on raw directions, but it is no hidden symmetry: training has something to teach.

    The weights are those that training starts from, where raw directions enter. Nothing else depends on the
    orientation: cut, the same model turns to rounding.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = Transformer(TransformerConfig(species=(1, 6, 8), cutoff=CUTOFF)).double()
    for block in fresh.blocks:
        weight = block.pair.weight
        ratio = weight[:, -3:].square().mean().sqrt() / weight[:, :-3].square().mean().sqrt()
        assert ratio.item() == pytest.approx(transformer.DIRECTION_SCALE, rel=0.1)
    rotations = random_rotations(2, generator=torch.Generator().manual_seed(0))
    original, rotated = fresh(batch, forces="both"), fresh(rotate_batch(batch, rotations), forces="both")
    expected = rotate_prediction(original, rotations)
    for one, other in ((rotated.forces, expected.forces), (rotated.direct_forces, expected.direct_forces)):
        assert (one - other).abs().mean() > 0.02 * other.abs().mean()
    exact = exact_model(fresh)
    original, rotated = exact(batch, forces="both"), exact(rotate_batch(batch, rotations), forces="both")
    expected = rotate_prediction(original, rotations)
    for one, other in ((rotated.forces, expected.forces), (rotated.direct_forces, expected.direct_forces)):
        assert (one - other).abs().max() < 1e-12 * max(1.0, float(other.abs().max()))


def test_attention_of_a_lone_neighbour_fades() -> None:
    logits = torch.full((1, 1, 4), 30.0, dtype=torch.float64)
    weights = [smooth_softmax(logits, torch.tensor([[e]], dtype=torch.float64)).max().item() for e in (1.0, 1e-20, 0.0)]
    assert weights[0] > 0.99
    assert weights[1] < 1e-6
    assert weights[2] == 0


def test_every_shape_letter_is_in_the_legend() -> None:
    assert not unknown_shape_letters(transformer)


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match=re.escape("divisible by model.n_heads, got 30 and 8")):
        TransformerConfig(species=(1, 6), width=30)
    with pytest.raises(InputError, match=re.escape("model.n_tensors must be >= 1, got 0")):
        TransformerConfig(species=(1, 6), n_tensors=0)
    with pytest.raises(InputError, match=re.escape("model.max_degree must be 1 to 3, got 4")):
        TransformerConfig(species=(1, 6), max_degree=4)
    with pytest.raises(InputError, match=re.escape("model.direct_layers must be >= 0, got -1")):
        TransformerConfig(species=(1, 6), direct_layers=-1)


@pytest.mark.parametrize("symmetry", ["exact", "relaxed"])
def test_a_field_that_is_an_input_turns_with_the_molecule(batch: Batch, symmetry: Symmetry) -> None:
    """The exact network with it is symmetric under rotations of molecule and field together, not of one of them."""
    model = random_model(cutoff=CUTOFF, symmetry=symmetry, field_input=True).double()
    field = torch.tensor([[0.1, 0.3, -0.2], [0.0, 0.0, 0.5]], dtype=torch.float64)
    inside = replace(batch, field_V_per_A=field)
    rotations = random_rotations(2, generator=torch.Generator().manual_seed(0))
    together = rotate_batch(inside, rotations)
    alone = replace(together, field_V_per_A=field)
    with torch.no_grad():
        original = model(inside, forces="both")
        errors = [
            max(
                float((getattr(model(each, forces="both"), name) - getattr(expected, name)).abs().max())
                for name in ("energy", "forces", "direct_forces")
            )
            for expected in [rotate_prediction(original, rotations)]
            for each in (together, alone, replace(inside, field_V_per_A=0.5 * field))
        ]
    assert (errors[0] < 1e-11) == (symmetry == "exact")
    assert min(errors[1:]) > 1e-2
    with pytest.raises(InputError, match="this model reads the electric field"):
        model(batch)
    assert build_batch(replace(molecule_frames(), field_V_per_A=field.numpy()), cutoff=CUTOFF).field_V_per_A is not None
