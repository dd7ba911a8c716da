"""How steep and how curved a loss is at given weights: gradients, and the Hessian by its products with vectors alone.

The Hessian of P weights has P^2 entries and is never formed; H v is the gradient of (gradient . v). Letters: P weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from remul_md.errors import InputError

Product = Callable[[Tensor], Tensor]
SMALL = 1e-10  # of the largest: a residual below it has no direction of its own


def gradient_and_product(loss: Callable[[], Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, Product]:
    """Gradient [P] of a loss at the weights as they are, and the function v [P] -> H v [P].

    The graph of the gradient is kept by the function. A weight that the loss does not feel has a gradient of 0.

    Args:
        loss: a scalar with a graph to the weights.
        weights: leaves that need gradients.
    """
    # The fast kernels of attention have no second derivative.
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        given = torch.autograd.grad(loss(), weights, create_graph=True, materialize_grads=True)
        gradient = torch.cat([each.flatten() for each in given])

    def product(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:
            return torch.zeros_like(vector)
        parts = torch.autograd.grad(gradient @ vector, weights, retain_graph=True, materialize_grads=True)
        return torch.cat([each.flatten() for each in parts])

    return gradient.detach(), product


@dataclass(frozen=True)
class Spectrum:
    """What is known of the eigenvalues of a symmetric matrix.

    Args:
        largest, smallest: by sign; both approach the ends of the spectrum from within.
        trace: sum of all, estimated.
        trace_error: standard error of it.
    """

    largest: float
    smallest: float
    trace: float
    trace_error: float


def spectrum(product: Product, like: Tensor, *, n_lanczos: int, n_traces: int, generator: torch.Generator) -> Spectrum:
    """Ends of the spectrum by Lanczos, with all vectors kept orthogonal, and the trace by Hutchinson.

    Args:
        product: v [P] -> H v [P].
        like: a vector [P] of the same dtype and device.
        n_lanczos: products of the first, >= 1.
        n_traces: products of the second, random signs, >= 2.
        generator: of the vectors, on the CPU.
    Raises:
        InputError: too few products.
    Source: Golub and Van Loan, Matrix Computations (2013), 10.1; Hutchinson, Commun. Stat. Simul. Comput. 18 (1989),
        1059.
    """
    if n_lanczos < 1 or n_traces < 2:
        raise InputError(
            f"a spectrum needs at least 1 product for its ends and 2 for its trace, got {n_lanczos} and {n_traces}"
        )
    ends = lanczos(product, torch.randn(len(like), generator=generator).to(like), n=n_lanczos)
    signs = 2.0 * torch.randint(2, (n_traces, len(like)), generator=generator).to(like) - 1.0
    traces = torch.stack([sign @ product(sign) for sign in signs])
    error = traces.std().item() / n_traces**0.5
    return Spectrum(largest=ends[-1], smallest=ends[0], trace=traces.mean().item(), trace_error=error)


def lanczos(product: Product, start: Tensor, *, n: int) -> list[float]:
    """Ritz values in rising order, at most `n`: fewer where the vectors end in a space that the matrix keeps."""
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        found = product(basis[-1])
        diagonal.append((basis[-1] @ found).item())
        if len(diagonal) == min(n, len(start)):
            break
        known = torch.stack(basis)
        for _ in range(2):  # once leaves rounding errors that grow
            found = found - known.mT @ (known @ found)
        size = found.norm().item()
        if size <= SMALL * max(map(abs, [*diagonal, *beside])):
            break
        beside.append(size)
        basis.append(found / size)
    off = torch.tensor(beside, dtype=torch.float64)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
    values: list[float] = torch.linalg.eigvalsh(matrix).tolist()
    return values
