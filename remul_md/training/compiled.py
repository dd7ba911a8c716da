"""The losses of a step and their gradients as one compiled function.

Training on conservative forces differentiates twice, which `torch.compile` alone does not see through. Here forward,
forces, losses and gradient are written down as one plain graph of tensor operations (`make_fx`), in which nothing is
left to be differentiated, and that graph is compiled. The uncompiled step stays the reference.

A graph holds for one shape of the batch. On one CPU thread the same run gives the same bits, resumed or not; with
more threads sums over systems and over embedding rows become atomic, and their order is left to chance.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from remul_md.errors import InputError
from remul_md.potentials.compilation import plain_graph, require_compiler
from remul_md.training.schedule import Batches

logger = logging.getLogger(__name__)

LOSSES = ("task", "equivariance", "torque")
N_LOOKED_AT = 8  # first batches of a run, whose shapes are the ones that are compiled
MAX_SHAPES = 3  # each costs minutes
Shape = tuple[tuple[str, tuple[int, ...]], ...]


@runtime_checkable
class PureObjective(Protocol):
    """An objective whose randomness stands apart, so that the rest is a pure function of tensors."""

    def draw(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, ...]:
        """All that is random in a step."""

    def losses(self, model: Any, batch: Any, drawn: Sequence[Tensor]) -> dict[str, Tensor]:
        """The losses by name."""


class CompiledLosses:
    """Losses and gradients of a batch, compiled at the first batch of each shape; sets `.grad` of the parameters.

    State lives here because compiled functions are kept.

    Args:
        model: whose parameters are trained; they are read anew at each call.
        objective: see `PureObjective`.
        shapes: the shapes that are compiled; see `shape_of`.
        say: told in a line when compilation starts and how long it took.
    Raises:
        InputError: an objective that is not split into what is random and what is not, or no compiler.
    """

    def __init__(
        self, model: nn.Module, objective: object, *, shapes: Iterable[Shape], say: Callable[[str], None] = logger.info
    ) -> None:
        if not isinstance(objective, PureObjective):
            name = type(objective).__name__
            raise InputError(f"train.compile=true needs an objective with draw and losses, not {name}; leave it off")
        self._model, self._objective, self._shapes, self._say = model, objective, frozenset(shapes), say
        self._trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._device = next(iter(self._trained.values())).device
        self._compiled: dict[Shape, tuple[Callable[..., Any], list[str]]] = {}
        require_compiler(self._device, option="train.compile=true")

    @property
    def n_compiled(self) -> int:
        """Shapes that were compiled so far."""
        return len(self._compiled)

    def knows(self, batch: Any) -> bool:
        """Whether a batch has one of these shapes."""
        return shape_of(batch) in self._shapes

    def __call__(
        self, batch: Any, generator: torch.Generator, weights: Mapping[str, float | Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the losses, and the losses, all without a graph, of a batch that `knows` accepts.

        Raises:
            InputError: the graph cannot be compiled on this machine.
        """
        shape, tensors = shape_of(batch), {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        weighting = torch.tensor([float(weights[name]) for name in LOSSES]).to(self._device, non_blocking=True)
        drawn = list(self._objective.draw(batch, generator))
        inputs = (list(tensors.values()), list(_tensors_of(batch).values()), drawn, weighting)
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(batch, inputs, list(tensors))
        function, names = self._compiled[shape]
        with torch.no_grad():
            total, losses, gradients = function(*inputs)
        for parameter, gradient in zip(self._trained.values(), gradients, strict=True):
            parameter.grad = gradient  # each a tensor of its own: clipping scales in place
        return total, dict(zip(names, losses, strict=True))

    def _compile(
        self, batch: Any, inputs: tuple[Any, ...], names_of_model: list[str]
    ) -> tuple[Callable[..., Any], list[str]]:
        pure, names = _Losses(self._model, self._objective), list[str]()

        def step(of_model: list[Tensor], of_batch: list[Tensor], drawn: list[Tensor], weighting: Tensor) -> Any:
            tensors = dict(zip(names_of_model, of_model, strict=True))
            traced = _with_tensors(batch, iter(of_batch))
            of_pure = {f"model.{name}": tensor for name, tensor in tensors.items()}
            losses = torch.func.functional_call(pure, of_pure, (traced, drawn))
            names[:] = losses
            total = torch.stack([weighting[LOSSES.index(name)] * loss for name, loss in losses.items()]).sum()
            wanted = [tensors[name] for name in self._trained]
            # None for a head that is not trained: the optimiser leaves it alone, as in the uncompiled step.
            gradients = torch.autograd.grad(total, wanted, allow_unused=True)
            return total.detach(), [loss.detach() for loss in losses.values()], list(gradients)

        self._say("compiling the training step (two to five minutes, much less from the second start on) ...")
        started = time.perf_counter()
        compiled = torch.compile(plain_graph(step, inputs), fullgraph=True, dynamic=False)
        try:
            with torch.no_grad():
                compiled(*inputs)
        except Exception as error:  # torch raises many types; what the machine lacks stands in the first line
            raise InputError(
                f"the training step could not be compiled ({type(error).__name__}: {str(error).strip()[:300]}); "
                "leave train.compile off"
            ) from error
        self._say(f"compiled in {time.perf_counter() - started:.0f} s")
        return compiled, names


class _Losses(nn.Module):
    """The losses as a module, so that `functional_call` can hand the parameters to it as arguments."""

    def __init__(self, model: nn.Module, objective: PureObjective) -> None:
        super().__init__()
        self.model, self._objective = model, objective

    def forward(self, batch: Any, drawn: Sequence[Tensor]) -> dict[str, Tensor]:
        return self._objective.losses(self.model, batch, drawn)


def compile_losses(model: nn.Module, batch_of: Batches[Any], objective: object, *, progress: bool) -> CompiledLosses:
    """`CompiledLosses` for the shapes of a run's first batches, the most frequent MAX_SHAPES of them.

    The first of the run, not of the process: a resumed run compiles the same ones, hence ends with the same bits.
    """
    counts = Counter(shape_of(batch_of(step)) for step in range(N_LOOKED_AT))
    shapes = [shape for shape, _ in counts.most_common(MAX_SHAPES)]
    if len(counts) > 1:
        logger.warning(
            "train.compile: systems of different sizes make batches of different shapes; the %d most frequent of the "
            "first %d batches are compiled, the others run uncompiled", len(shapes), N_LOOKED_AT,
        )  # fmt: skip
    say: Callable[[str], None] = (lambda text: tqdm.write(text, file=sys.stderr)) if progress else logger.info
    return CompiledLosses(model, objective, shapes=shapes, say=say)


def shape_of(batch: object) -> Shape:
    """Names and shapes of the tensors of a batch: a dataclass of tensors, None, and other such dataclasses."""
    return tuple((name, tuple(value.shape)) for name, value in _tensors_of(batch).items())


def _tensors_of(batch: object) -> dict[str, Tensor]:
    if not is_dataclass(batch):
        raise InputError(
            f"train.compile=true needs batches that are dataclasses, got {type(batch).__name__}; leave it off"
        )
    found: dict[str, Tensor] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        inner = {"": value} if isinstance(value, Tensor) else {} if value is None else _tensors_of(value)
        found |= {f"{field.name}.{name}".strip("."): tensor for name, tensor in inner.items()}
    return found


def _with_tensors(batch: Any, tensors: Iterator[Tensor]) -> Any:
    """The batch with other tensors, in the order of `_tensors_of`."""
    values = {field.name: value for field in fields(batch) if (value := getattr(batch, field.name)) is not None}
    new = {name: next(tensors) if isinstance(v, Tensor) else _with_tensors(v, tensors) for name, v in values.items()}
    return replace(batch, **new)
