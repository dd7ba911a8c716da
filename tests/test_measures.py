"""T, s2, equivariance percent and E': exact identities, and models whose values are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from potentials import molecule_frames, random_model
from torch import Tensor

from remul_md.errors import InputError
from remul_md.structures.batch import Batch
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.measures import (
    bootstrap_interval,
    equivariance_norm,
    equivariance_percent,
    jacobian_asymmetry,
    jacobian_products,
    lie_derivative,
    median_interval,
    net_force_and_torque,
    twirl_statistics,
)
from remul_md.symmetry.rotations import Group, random_rotations, rotate_batch, rotate_vectors, rotations_about

Model = Callable[[Tensor], Tensor]


def rotated_back(model: Model, x: Tensor, *, n_draws: int, seed: int = 0, group: Group = "SO3") -> Tensor:
    """g_k^-1 f(g_k x) for vectors x [n, 3] and independent draws, [K, n, 3]."""
    generator = torch.Generator().manual_seed(seed)
    g = random_rotations(n_draws * len(x), generator=generator, group=group).view(n_draws, len(x), 3, 3)
    rotated = torch.einsum("knij,nj->kni", g, x)
    return torch.einsum("knji,knj->kni", g, model(rotated.flatten(0, 1)).view_as(rotated))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(11,), (11, 3), (11, 7, 3)])
@pytest.mark.parametrize("n_draws", [2, 5])
def test_t_and_s2_add_up_to_the_mean_squared_loss(shape: tuple[int, ...], n_draws: int) -> None:
    draws, target = normal(n_draws, *shape), normal(*shape, seed=1)
    twirled, spread = twirl_statistics(draws, target)
    loss = (draws - target).square().reshape(n_draws, 11, -1).sum(2).mean(0)
    assert twirled.shape == spread.shape == (11,)
    torch.testing.assert_close(twirled + spread, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(spread, draws.reshape(n_draws, 11, -1).var(0).sum(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_draws", [2, 8, 32])
@pytest.mark.parametrize("group", ["SO3", "O3"])
def test_estimators_are_unbiased_for_a_crooked_matrix(n_draws: int, group: Group) -> None:
    """f(x) = M x: the mean over orientations is tr(M)/3 x, the mean of |f|^2 is |x|^2 |M|_F^2 / 3."""
    matrix = torch.tensor([[1.4, 0.3, -0.2], [0.1, 0.7, 0.5], [0.0, -0.6, 1.1]], dtype=torch.float64)
    n = 40_000 // n_draws
    x = torch.tensor([[0.8, -1.1, 0.5]], dtype=torch.float64).expand(n, 3)
    target = 1.3 * x + torch.tensor([0.2, 0.0, -0.3], dtype=torch.float64)
    twirled, spread = twirl_statistics(rotated_back(lambda v: v @ matrix.T, x, n_draws=n_draws, group=group), target)
    mean = torch.trace(matrix) / 3
    true_spread = x[0].square().sum() * (matrix.square().sum() / 3 - mean**2)
    true_twirled = (mean * x[0] - target[0]).square().sum()
    for found, true in ((spread, true_spread), (twirled, true_twirled)):
        error = found.std() / n**0.5
        assert abs(found.mean() - true) < 4 * error
        # Sharp enough to see a factor (K - 1)/K in s2, or s2/K left in T.
        assert 5 * error < true_spread / n_draws
    if n_draws == 2:  # single frames may be negative; only sums mean something
        assert twirled.min() < 0 < true_twirled


def test_an_equivariant_model_has_no_spread() -> None:
    x, target = normal(13, 3), normal(13, 3, seed=1)

    def model(v: Tensor) -> Tensor:
        return v * v.norm(dim=1, keepdim=True)

    twirled, spread = twirl_statistics(rotated_back(model, x, n_draws=6), target)
    torch.testing.assert_close(twirled, (model(x) - target).square().sum(1), rtol=1e-12, atol=1e-12)
    assert spread.max() < 1e-28
    assert equivariance_percent(twirled.numpy(), spread.numpy()).value < 1e-25


def test_a_constant_vector_is_all_spread() -> None:
    """f = c turns back to g^-1 c, uniform on a sphere: its mean is 0, so E s2 = |c|^2 and E T = |y|^2."""
    c = torch.tensor([0.3, -1.2, 0.4], dtype=torch.float64)
    n = 5_000
    target = torch.tensor([0.5, 0.1, 0.2], dtype=torch.float64).expand(n, 3)
    twirled, spread = twirl_statistics(rotated_back(lambda v: c.expand_as(v), normal(n, 3), n_draws=3), target)
    assert spread.mean() == pytest.approx(c.square().sum().item(), abs=4 * float(spread.std()) / n**0.5)
    assert twirled.mean() == pytest.approx(0.3, abs=4 * float(twirled.std()) / n**0.5)
    found = equivariance_percent(twirled.numpy(), spread.numpy())
    assert found.value == pytest.approx(100 * 1.69 / (1.69 + 0.30), abs=1)


def test_percent_is_a_ratio_of_sums() -> None:
    twirled, spread = np.array([4.0, -0.5, 1.0, 0.25]), np.array([0.5, 0.75, 0.0, 0.125])
    found = equivariance_percent(twirled, spread)
    assert found.value == pytest.approx(100 * 1.375 / 6.125, rel=1e-14)
    assert found.largest_frame == pytest.approx(100 * 4.5 / 6.125, rel=1e-14)
    shares = np.sort(100 * spread / (twirled + spread))
    assert found.median == pytest.approx((shares[1] + shares[2]) / 2, rel=1e-14)
    assert (found.low, found.high) == (shares[0], shares[3])  # four frames: all that order statistics can say
    assert equivariance_percent(np.zeros(3), np.zeros(3)).value == 0.0


@pytest.mark.parametrize(("n_frames", "law"), [(7, "exponential"), (50, "lognormal"), (200, "lognormal")])
def test_the_interval_of_the_median_covers_it(n_frames: int, law: str) -> None:
    """Also where one frame of many carries the sum, as in real test sets, and for few frames."""
    rng, inside = np.random.default_rng(3), 0
    for _ in range(1000):
        values = rng.exponential(1.0, n_frames) if law == "exponential" else rng.lognormal(0.0, 3.0, n_frames)
        low, high = median_interval(values)
        inside += low <= (np.log(2) if law == "exponential" else 1.0) <= high
    assert inside / 1000 > 0.95 - 3 * 0.0069


def test_the_interval_of_the_median_is_not_wider_than_it_must() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = median_interval(values)
    assert low < np.median(values) < high
    assert high - low == pytest.approx(2 * 1.96 * 1.2533 * 2.0 / 20, rel=0.25)  # the median of normal values
    assert median_interval(np.array([5.0, 2.0])) == (2.0, 5.0)


def test_equivariance_norm_by_hand() -> None:
    rotated, reference = normal(4, 5, 7, 3), normal(4, 5, 7, 3, seed=1)
    gaps = (rotated - reference).numpy()
    norms = [np.sqrt((gaps[k, b] ** 2).sum()) for k in range(4) for b in range(5)]
    assert equivariance_norm(rotated, reference).item() == pytest.approx(np.mean(norms), rel=1e-12)


def test_one_draw_is_refused() -> None:
    with pytest.raises(InputError, match="rotations, got 1"):
        twirl_statistics(normal(1, 11, 3), normal(11, 3))


# --- an infinitesimal turn, and the Jacobian -----------------------------------------------------------------------

CUTOFF = 4.5


@pytest.fixture(scope="module")
def molecules() -> Batch:
    """Systems of 7 and 5 atoms, off the origin: the measures must not depend on where molecules stand."""
    batch = build_batch(molecule_frames(), cutoff=CUTOFF)
    return replace(batch, positions=batch.positions + torch.tensor([3.0, -20.0, 7.0], dtype=torch.float64))


def head(kind: str) -> Callable[[Batch], Tensor]:
    model = random_model(cutoff=CUTOFF).double().requires_grad_(False)

    def forces_of(batch: Batch) -> Tensor:
        out = model(batch, forces=kind, create_graph=True)
        found = out.direct_forces if kind == "direct" else out.forces
        assert found is not None
        return found

    return forces_of


@pytest.mark.parametrize("kind", ["direct", "conservative"])
def test_jacobian_products_are_finite_differences(molecules: Batch, kind: str) -> None:
    forces_of, v, u = head(kind), normal(12, 3, seed=5), normal(12, 3, seed=6)

    def moved(step: float) -> Tensor:
        return forces_of(replace(molecules, positions=molecules.positions + step * v)).detach()

    forces, along, transposed = jacobian_products(forces_of, molecules, v)
    torch.testing.assert_close(forces, moved(0.0))
    torch.testing.assert_close(along, (moved(1e-5) - moved(-1e-5)) / 2e-5, rtol=1e-6, atol=1e-7)
    # u . J v = v . J^T u, and the second product is with the same vector.
    _, along_u, transposed_u = jacobian_products(forces_of, molecules, u)
    assert (u * along).sum().item() == pytest.approx((v * transposed_u).sum().item(), rel=1e-9)
    assert (v * along_u).sum().item() == pytest.approx((u * transposed).sum().item(), rel=1e-9)
    assert along.abs().max() > 0.01


@pytest.mark.parametrize("kind", ["direct", "conservative"])
def test_the_lie_derivative_is_the_rotational_error_of_a_small_turn(molecules: Batch, kind: str) -> None:
    forces_of, step = head(kind), 1e-5
    found = lie_derivative(forces_of, molecules)
    assert found.shape == (3, 12, 3)
    for axis in range(3):

        def back(angle: float, axis: int = axis) -> Tensor:
            g = rotations_about(torch.eye(3, dtype=torch.float64)[axis : axis + 1], torch.tensor([angle]).double())
            rotated = forces_of(rotate_batch(molecules, g.expand(2, 3, 3))).detach()
            return rotate_vectors(rotated, g.mT.expand(2, 3, 3), system_index=molecules.system_index)

        torch.testing.assert_close(found[axis], (back(step) - back(-step)) / (2 * step), rtol=1e-5, atol=1e-6)
    assert found.abs().max() > 0.01  # the model is unconstrained and untrained


def test_the_lie_derivative_of_an_equivariant_model_is_rounding(molecules: Batch) -> None:
    def central(batch: Batch) -> Tensor:
        vectors = batch.positions[batch.neighbor_index] - batch.positions[:, None]
        return (vectors * vectors.square().sum(-1, keepdim=True) * batch.neighbor_mask[..., None]).sum(1)

    assert lie_derivative(central, molecules).abs().max() < 1e-11 * float(central(molecules).abs().max())
    field = torch.tensor([0.3, -1.2, 0.4], dtype=torch.float64)
    shaken = lie_derivative(lambda batch: central(batch) + field, molecules)
    for axis, unit in enumerate(torch.eye(3, dtype=torch.float64)):  # of a constant vector: - axis x c
        expected = -torch.linalg.cross(unit, field).expand(12, 3)
        torch.testing.assert_close(shaken[axis], expected, rtol=0, atol=1e-10)


def test_net_torque_is_minus_the_derivative_of_the_energy_by_rotation(molecules: Batch) -> None:
    model = random_model(cutoff=CUTOFF).double().requires_grad_(False)
    forces = model(molecules, forces="conservative").forces
    net, torque = net_force_and_torque(forces, molecules)
    assert net.abs().max() < 1e-12 * forces.abs().max()  # displacements only: exact
    step, rows = 1e-5, []
    for axis in torch.eye(3, dtype=torch.float64):
        plus, minus = (
            model(rotate_batch(molecules, rotations_about(axis[None], torch.tensor([angle]).double()).expand(2, 3, 3)))
            for angle in (step, -step)
        )
        rows.append(-(plus.energy - minus.energy).detach() / (2 * step))
    torch.testing.assert_close(torque, torch.stack(rows, dim=1), rtol=1e-6, atol=1e-8)
    assert torque.abs().max() > 0.01
    pushed = forces + normal(12, 3, seed=8)  # with a net force the torque depends on the point: it is the centre
    net, torque = net_force_and_torque(pushed, molecules)
    torch.testing.assert_close(net, torch.stack([part.sum(0) for part in pushed.split([7, 5])]))
    levers = [molecules.positions[rows] - molecules.positions[rows].mean(0) for rows in (slice(0, 7), slice(7, 12))]
    by_hand = torch.stack([torch.linalg.cross(a, f).sum(0) for a, f in zip(levers, pushed.split([7, 5]), strict=True)])
    torch.testing.assert_close(torque, by_hand)


def test_jacobian_asymmetry_of_a_known_matrix() -> None:
    """lambda of symmetric + c antisymmetric, from 400 probes, against the Frobenius norms."""
    matrix = normal(12, 12, seed=9)
    symmetric, skew = (matrix + matrix.T) / 2, (matrix - matrix.T) / 2
    probes = normal(400, 12, seed=10)
    for share in (0.0, 0.1, 1.0):
        jacobian = symmetric + share * skew
        expected = (share * skew).norm() / jacobian.norm()
        found = jacobian_asymmetry(probes @ jacobian.T, probes @ jacobian)
        assert found == pytest.approx(expected.item(), rel=0.06, abs=1e-12)
    assert jacobian_asymmetry(probes @ skew.T, probes @ skew) == pytest.approx(1.0, rel=1e-12)


def test_conservative_forces_have_a_symmetric_jacobian_and_direct_ones_have_not(molecules: Batch) -> None:
    v = normal(12, 3, seed=5)
    found = {
        kind: jacobian_asymmetry(*jacobian_products(head(kind), molecules, v)[1:])
        for kind in ("conservative", "direct")
    }
    assert found["conservative"] < 1e-12
    assert 0.05 < found["direct"] <= 1.0


def test_a_cell_has_no_lie_derivative(molecules: Batch) -> None:
    with pytest.raises(InputError, match=r"Lie derivative .*cell"):
        lie_derivative(head("direct"), replace(molecules, cell=torch.eye(3).expand(2, 3, 3)))


def test_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.15)
    assert bootstrap_interval(values) == (low, high)


@pytest.mark.parametrize("n_draws", [2, 8, 32])
def test_a_model_that_ignores_its_input_in_closed_form(n_draws: int) -> None:
    """f = c for N atoms: E s2 = N |c|^2, E T = |y|^2, so percent = N |c|^2 / (N |c|^2 + |y|^2)."""
    n, n_atoms = 20_000 // n_draws, 5
    c = torch.tensor([0.9, -0.4, 0.7], dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    g = random_rotations(n_draws * n, generator=generator).view(n_draws, n, 1, 3, 3)
    back = torch.einsum("knaji,j->knai", g, c).expand(n_draws, n, n_atoms, 3)
    target = normal(1, n_atoms, 3, seed=4).expand(n, n_atoms, 3)
    twirled, spread = twirl_statistics(back, target)
    size, labels = n_atoms * c.square().sum().item(), target[0].square().sum().item()
    assert spread.mean().item() == pytest.approx(size, abs=4 * spread.std().item() / n**0.5)
    assert twirled.mean().item() == pytest.approx(labels, abs=4 * twirled.std().item() / n**0.5)
    found = equivariance_percent(twirled.numpy(), spread.numpy())
    assert found.value == pytest.approx(100 * size / (size + labels), abs=1.5)
