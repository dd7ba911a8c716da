"""The losses of a step and their gradients as one compiled function.

Conservative forces are a derivative, so training differentiates twice, which `torch.compile` alone does not see
through. Here forward, forces, losses and the gradient by the parameters are written down as one plain graph of tensor
operations (`make_fx`), in which nothing is left to be differentiated, and that graph is compiled. The uncompiled step
stays the reference.

A graph holds for one shape of the batch. On one CPU thread the same run gives the same bits, resumed or not; with
more threads sums over systems and over embedding rows become atomic, and their order is left to chance.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from remul_md.errors import InputError

logger = logging.getLogger(__name__)

B = TypeVar("B")
LOSSES = ("task", "equivariance")
N_LOOKED_AT = 8  # first batches of a run, whose shapes are the ones that are compiled
MAX_SHAPES = 3  # each costs a minute
Shape = tuple[tuple[str, tuple[int, ...]], ...]


@runtime_checkable
class PureObjective(Protocol):
    """An objective whose randomness stands apart, so that the rest is a pure function of tensors."""

    def draw(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, ...]:
        """All that is random in a step."""
        ...

    def losses(self, model: Any, batch: Any, drawn: Sequence[Tensor]) -> dict[str, Tensor]:
        """The losses by name; of the model, only its call is used."""
        ...


def require_compiler(device: torch.device) -> None:
    """See that what `torch.compile` needs on this device is there.

    Raises:
        InputError: no C++ compiler, or no Triton for a GPU.
    """
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # as torch looks for it
    if shutil.which(name) is None:
        raise InputError(
            f"train.compile=true needs a C++ compiler, and {name!r} was not found; install one (such as the package "
            "g++), name yours in the environment variable CXX, or leave train.compile off"
        )
    if device.type == "cuda" and find_spec("triton") is None:
        raise InputError("train.compile=true needs Triton on a GPU, and it is not installed; leave train.compile off")


class CompiledLosses(Generic[B]):
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
        self,
        model: nn.Module,
        objective: object,
        *,
        shapes: Iterable[Shape],
        say: Callable[[str], None] = logger.info,
    ) -> None:
        if not isinstance(objective, PureObjective):
            raise InputError(
                f"train.compile=true needs an objective with draw and losses, {type(objective).__name__} has not both; "
                "leave train.compile off"
            )
        self._model, self._objective, self._shapes, self._say = model, objective, frozenset(shapes), say
        self._trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._device = next(iter(self._trained.values())).device
        self._compiled: dict[Shape, tuple[Callable[..., Any], list[str]]] = {}
        require_compiler(self._device)

    def knows(self, batch: B) -> bool:
        """Whether a batch has one of the shapes that are compiled."""
        return shape_of(batch) in self._shapes

    def __call__(
        self, batch: B, generator: torch.Generator, weights: Mapping[str, float | Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the losses, and the losses, all without a graph.

        Args:
            batch: one that `knows` accepts.
            generator: what the objective draws from.
            weights: of the losses, numbers.
        Raises:
            InputError: the graph cannot be compiled on this machine.
        """
        shape, tensors = shape_of(batch), {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        weighting = torch.tensor([float(weights[name]) for name in LOSSES]).to(self._device, non_blocking=True)
        inputs = (
            list(tensors.values()),
            list(_tensors_of(batch).values()),
            list(self._objective.draw(batch, generator)),
            weighting,
        )
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(batch, inputs, list(tensors))
        function, names = self._compiled[shape]
        with torch.no_grad():
            total, losses, gradients = function(*inputs)
        for parameter, gradient in zip(self._trained.values(), gradients, strict=True):
            parameter.grad = gradient
        return total, dict(zip(names, losses, strict=True))

    def _compile(
        self, batch: B, inputs: tuple[Any, ...], names_of_model: list[str]
    ) -> tuple[Callable[..., Any], list[str]]:
        from torch.fx.experimental.proxy_tensor import make_fx

        names_of_batch, batch_type = list(_tensors_of(batch)), type(batch)
        names: list[str] = []

        def step(of_model: list[Tensor], of_batch: list[Tensor], drawn: list[Tensor], weighting: Tensor) -> Any:
            tensors = dict(zip(names_of_model, of_model, strict=True))

            def model(*args: Any, **options: Any) -> Any:
                return torch.func.functional_call(self._model, tensors, args, options)

            traced = batch_type(**dict(zip(names_of_batch, of_batch, strict=True)))
            losses = self._objective.losses(model, traced, drawn)
            names[:] = losses
            total = torch.stack([weighting[LOSSES.index(name)] * loss for name, loss in losses.items()]).sum()
            wanted = [tensors[name] for name in self._trained]
            # None for a head that is not trained: the optimiser leaves it alone, as in the uncompiled step.
            gradients = torch.autograd.grad(total, wanted, allow_unused=True)
            return total.detach(), [loss.detach() for loss in losses.values()], list(gradients)

        self._say("compiling the training step (about a minute) ...")
        started = time.perf_counter()
        compiled = torch.compile(make_fx(step)(*inputs), fullgraph=True, dynamic=False)
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


def compile_losses(
    model: nn.Module, batch_of: Callable[[int], Any], objective: object, *, progress: bool
) -> CompiledLosses[Any]:
    """`CompiledLosses` for the shapes of a run's first batches, the most frequent MAX_SHAPES of them.

    The first of the run, not of the process: a resumed run compiles the same ones, hence ends with the same bits.
    """
    counts: dict[Shape, int] = {}
    for step in range(N_LOOKED_AT):
        shape = shape_of(batch_of(step))
        counts[shape] = counts.get(shape, 0) + 1
    shapes = sorted(counts, key=lambda shape: -counts[shape])[:MAX_SHAPES]
    if len(counts) > 1:
        logger.warning(
            "train.compile: systems of different sizes make batches of different shapes; the %d most frequent shapes "
            "are compiled (%d of the first %d batches), the others run uncompiled",
            len(shapes),
            sum(counts[shape] for shape in shapes),
            N_LOOKED_AT,
        )
    say: Callable[[str], None] = (lambda text: tqdm.write(text, file=sys.stderr)) if progress else logger.info
    return CompiledLosses(model, objective, shapes=shapes, say=say)


def shape_of(batch: object) -> Shape:
    """Names and shapes of the tensors of a batch.

    Raises:
        InputError: the batch is no dataclass of tensors.
    """
    return tuple((name, tuple(value.shape)) for name, value in _tensors_of(batch).items())


def _tensors_of(batch: object) -> dict[str, Tensor]:
    if not is_dataclass(batch):
        raise InputError(
            f"train.compile=true needs batches that are dataclasses of tensors, got {type(batch).__name__}; "
            "leave train.compile off"
        )
    return {field.name: value for field in fields(batch) if (value := getattr(batch, field.name)) is not None}
