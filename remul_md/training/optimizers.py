"""What turns gradients into updates: Muon by default, AdamW on request.

Muon's update of a matrix is its averaged gradient with all singular values made about equal, so directions that the
loss hardly asks for are learned as fast as the others. Vectors, embeddings and small matrices take Adam's step.

At equal steps this halves the force error of AdamW on small molecules (`docs/ablations.md`). torch has an optimiser of
that name from 2.9 on: it holds one matrix at a time, whole, in bfloat16, and none but matrices. Here a matrix is cut
into blocks of rows and all blocks of one shape are orthogonalised in one batched call, which costs a third as much and
loses no accuracy.

Source: Jordan et al. (2024), "Muon: An optimizer for hidden layers in neural networks" (the iteration and its
coefficients); Liu et al. (2025), arXiv:2502.16982, eq. (4): the scale with which a matrix moves as far as under Adam,
so that one learning rate serves all parameters. Difference: blocks of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from remul_md.training.config import TrainConfig

BLOCK_ROWS = 32
N_ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
RMS_OF_ADAM = 0.2  # RMS of Adam's updates over the learning rate, as found in practice
MIN_SIDE = 16  # a narrower matrix has too few singular values to be worth it


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser that a config asks for, over all parameters of a model that are not frozen."""
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "betas": (0.9, 0.99)}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(_trained(model), fused=True, **options)
    return Muon(model, **options)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class Muon(torch.optim.Optimizer):
    """Muon for the weights of linear layers, AdamW for all other parameters of a model.

    Args:
        model: its parameters are updated unless they are frozen (`requires_grad` off); only `nn.Linear` weights with
            both sides >= 16 are matrices here, since a row of an embedding is a vector of its own.
        lr: learning rate of both.
        weight_decay: decoupled, of all parameters.
        momentum: memory of the averaged gradient of the matrices (Nesterov's form).
        betas: memories of Adam's averages.
        eps: of Adam's denominator.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        matrices = {
            id(module.weight): module.weight
            for module in model.modules()
            if isinstance(module, nn.Linear) and module.weight.requires_grad and min(module.weight.shape) >= MIN_SIDE
        }
        others = [parameter for parameter in _trained(model) if id(parameter) not in matrices]
        common = {"lr": lr, "weight_decay": weight_decay, "step": 0}
        groups: list[dict[str, Any]] = []
        if matrices:
            groups.append({"params": list(matrices.values()), "momentum": momentum, **common})
        if others:
            groups.append({"params": others, "betas": betas, "eps": eps, **common})
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients; parameters without one stay as they are."""
        assert closure is None, "a loss that is evaluated anew is not supported"
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            group["step"] += 1
            torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
            update = self._orthogonal_step if "momentum" in group else self._adam_step
            update(parameters, [parameter.grad for parameter in parameters], group)

    def _orthogonal_step(self, matrices: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        averages = self._states(matrices, "average")
        torch._foreach_lerp_(averages, gradients, 1.0 - group["momentum"])
        updates = torch._foreach_lerp(gradients, averages, group["momentum"])
        for matrix, update in zip(matrices, orthogonalized(updates), strict=True):
            matrix.add_(update, alpha=-group["lr"])

    def _adam_step(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        means, squares = self._states(parameters, "mean"), self._states(parameters, "square")
        memory, memory_of_squares = group["betas"]
        torch._foreach_lerp_(means, gradients, 1.0 - memory)
        torch._foreach_mul_(squares, memory_of_squares)
        torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - memory_of_squares)
        lengths = torch._foreach_sqrt(squares)
        torch._foreach_div_(lengths, math.sqrt(1.0 - memory_of_squares ** group["step"]))
        torch._foreach_add_(lengths, group["eps"])
        torch._foreach_addcdiv_(parameters, means, lengths, -group["lr"] / (1.0 - memory ** group["step"]))

    def _states(self, parameters: Sequence[Tensor], name: str) -> list[Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


def orthogonalized(matrices: Sequence[Tensor], *, block_rows: int = BLOCK_ROWS) -> list[Tensor]:
    """Each matrix by blocks of rows, with singular values near 1 and scaled so that its RMS is about that of Adam.

    A block [m, n] comes out as 0.2 sqrt(max(m, n)) U V^T of its singular value decomposition U S V^T, each singular
    value within about 30 % (those below about 1e-3 of the block's norm stay smaller).

    Args:
        matrices: of any shapes; one whose number of rows `block_rows` does not divide is one block.
        block_rows: rows of a block.
    """
    blocks = [_as_blocks(matrix, block_rows) for matrix in matrices]
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, block in enumerate(blocks):
        by_shape.setdefault((block.shape[1], block.shape[2]), []).append(index)
    results: dict[int, Tensor] = {}
    for (n_rows, n_columns), indices in by_shape.items():
        found = RMS_OF_ADAM * math.sqrt(n_columns) * _equalized(torch.cat([blocks[index] for index in indices]))
        assert n_rows <= n_columns
        for index, block in zip(indices, found.split([len(blocks[index]) for index in indices]), strict=True):
            # A tall block was laid on its side.
            tall = block.shape[1:] != (matrices[index].shape[0] // len(block), matrices[index].shape[1])
            results[index] = (block.mT if tall else block).reshape(matrices[index].shape)
    return [results[index] for index in range(len(matrices))]


def _as_blocks(matrix: Tensor, block_rows: int) -> Tensor:
    """[number of blocks, rows, columns], never more rows than columns."""
    n_rows, n_columns = matrix.shape
    n_blocks = n_rows // block_rows if n_rows % block_rows == 0 else 1
    blocks = matrix.reshape(n_blocks, n_rows // n_blocks, n_columns)
    return blocks.mT if blocks.shape[1] > blocks.shape[2] else blocks


def _equalized(blocks: Tensor) -> Tensor:
    """Singular values of a batch of matrices brought near 1 by an odd polynomial, applied `N_ITERATIONS` times."""
    linear, cubic, quintic = COEFFICIENTS
    x = blocks / (blocks.norm(dim=(1, 2), keepdim=True) + torch.finfo(blocks.dtype).tiny)
    for _ in range(N_ITERATIONS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic)
        x = torch.baddbmm(x, polynomial, x, beta=linear)
    return x
