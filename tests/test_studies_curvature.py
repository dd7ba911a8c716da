"""Curvature by products with vectors: a quadratic by hand, a small network's Hessian entry by entry, in float64."""

from __future__ import annotations

import json
from pathlib import Path

import conditioning
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from remul_md.errors import InputError
from remul_md.studies.curvature import gradient_and_product, lanczos, spectrum
from remul_md.studies.models.transformer import PlainTransformer
from remul_md.studies.particles import Tokens
from remul_md.symmetry.rotations import random_rotations


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_quadratic_is_found_as_it_was_made() -> None:
    """0.5 w A w + b w of 30 weights in two tensors, with eigenvalues -2, 0.1, 0.2, ... and 7."""
    values = torch.cat([torch.tensor([-2.0]), 0.1 * torch.arange(1, 29), torch.tensor([7.0])]).double()
    basis, _ = torch.linalg.qr(torch.randn(30, 30, generator=drawn(), dtype=torch.float64))
    matrix, slope = basis @ torch.diag(values) @ basis.mT, torch.randn(30, generator=drawn(1), dtype=torch.float64)
    weights = [torch.randn(n, generator=drawn(2), dtype=torch.float64).requires_grad_() for n in (11, 19)]

    def loss() -> Tensor:
        w = torch.cat(weights)
        return 0.5 * w @ matrix @ w + slope @ w

    gradient, product = gradient_and_product(loss, weights)
    assert torch.allclose(gradient, matrix @ torch.cat(weights) + slope)
    found = spectrum(product, gradient, n_lanczos=14, n_traces=400, generator=drawn(3))
    assert found.largest == pytest.approx(7.0, rel=1e-6)
    assert found.smallest == pytest.approx(-2.0, rel=1e-6)
    assert abs(found.trace - values.sum().item()) < 4 * found.trace_error
    assert found.trace_error < 0.05 * found.trace
    assert lanczos(product, gradient, n=30) == pytest.approx(values.tolist(), abs=1e-8)
    with pytest.raises(InputError, match="at least 1"):
        spectrum(product, gradient, n_lanczos=14, n_traces=1, generator=drawn(3))


def test_few_different_eigenvalues_end_the_search_early() -> None:
    kept = torch.tensor([2.0] * 5 + [3.0] * 4, dtype=torch.float64)
    assert lanczos(lambda v: kept * v, torch.ones(9, dtype=torch.float64), n=8) == pytest.approx([2.0, 3.0])


def test_both_parts_of_the_loss_have_the_full_hessian_of_a_small_network() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PlainTransformer(n_scalars=1, width=4, n_layers=1, n_heads=2).double()
    x, v, y = torch.randn(3, 5, 4, 3, generator=drawn(), dtype=torch.float64)
    one, no_pairs = torch.ones(5, 4, 1, dtype=torch.float64), torch.zeros(5, 4, 4, 0, dtype=torch.float64)
    tokens = Tokens(scalars=one, positions=x, velocities=v, pairs=no_pairs, targets=y)
    rotations = random_rotations(15, generator=drawn(1)).view(3, 5, 3, 3)
    names = [name for name, _ in model.named_parameters()]
    shapes = [weight.shape for weight in model.parameters()]
    sizes = [weight.numel() for weight in model.parameters()]
    point = torch.cat([weight.detach().flatten() for weight in model.parameters()])

    def of_vector(vector: Tensor, part: str) -> Tensor:
        split = [each.view(shape) for each, shape in zip(vector.split(sizes), shapes, strict=True)]
        at = dict(zip(names, split, strict=True))
        return conditioning.parts_of_loss(lambda t: functional_call(model, at, (t,)), tokens, rotations)[part]

    exact = conditioning.parts_of_loss(lambda t: 0.7 * t.positions, tokens, rotations)
    assert exact["twirled"].item() == pytest.approx((0.7 * x - y).square().mean().item())
    assert exact["spread"].item() < 1e-20

    row = conditioning.measured(
        lambda name: conditioning.parts_of_loss(model, tokens, rotations)[name], model, n_lanczos=50, n_traces=100
    )
    gradients = []
    for part in ("twirled", "spread"):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            hessian = torch.autograd.functional.hessian(lambda w, part=part: of_vector(w, part), point, vectorize=True)
            slope = torch.autograd.functional.jacobian(lambda w, part=part: of_vector(w, part), point)
        values, found = torch.linalg.eigvalsh(hessian), row[part]
        assert found["value"] == pytest.approx(of_vector(point, part).item())
        assert found["gradient_norm"] == pytest.approx(slope.norm().item())
        assert found["largest"] == pytest.approx(values[-1].item(), rel=1e-5)
        assert found["smallest"] == pytest.approx(values[0].item(), rel=1e-3, abs=1e-6)
        assert abs(found["trace"] - values.sum().item()) < 4 * found["trace_error"]
        gradients.append(slope)
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0).item()
    assert row["gradient_cosine"] == pytest.approx(cosine)
    squared = torch.stack([row[part]["value"] * torch.ones(()) for part in ("twirled", "spread")])
    assert row["percent"] == pytest.approx(100 * (squared[1] / squared.sum()).item())


@pytest.mark.slow
def test_seeds_are_added_and_other_options_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    small = ["--json", str(file), "--steps=3", "--systems=4", "--draws=2", "--lanczos=2", "--traces=2"]
    conditioning.main([*small, "--seeds", "3"])
    (first,) = json.loads(file.read_text())["runs"]
    assert [row["step"] for row in first["rows"]] == [0, 1, 3]
    conditioning.main([*small, "--seeds", "1", "3"])
    content = json.loads(file.read_text())
    other, kept = content["runs"]
    assert (other["seed"], kept) == (1, first)
    assert other["rows"][0]["twirled"] != first["rows"][0]["twirled"]
    assert content["command"].endswith("--seeds 1 3")
    cell = conditioning.table(content).splitlines()[-1].split(" | ")[5]
    last = [run["rows"][-1]["twirled"]["largest"] for run in (other, kept)]
    mean, half = sum(last) / 2, abs(last[0] - last[1])
    assert cell == f"{mean:.3g} ± {half / 2**0.5:.2g}"
    with pytest.raises(SystemExit):
        conditioning.main([*small[:-1], "--traces=5"])
    assert "'traces': 2" in capsys.readouterr().err
    assert json.loads(file.read_text()) == content
