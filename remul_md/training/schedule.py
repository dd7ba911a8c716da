"""What a step of training is, as functions of its number alone: its frames, its rate, whether it is watched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from remul_md.training.config import TrainConfig

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)
Batches = Callable[[int], B]  # the batch of a step as a function of its number, counted from 0
ORDER_SEED = 7_919
MONITOR_DRAWS = 8  # independent rotations of each watched frame, besides the orientation it stands in
MIN_FRAMES, MAX_FRAMES = 4, 32  # that are watched


class Source(Protocol[B_co]):
    """Training data: `len` systems, and any of them as one batch."""

    def __len__(self) -> int: ...

    def select(self, indices: NDArray[np.int64], /) -> B_co:
        """The systems with these indices as one batch."""
        ...


def frame_order(step: int, *, n_frames: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Indices of the frames of a step: an endless run of seeded permutations, cut into batches.

    Without state, so a resumed run needs none. A batch may reach into the next permutation.
    """
    wanted = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = wanted // n_frames
    orders = {int(epoch): np.random.default_rng([seed, int(epoch)]).permutation(n_frames) for epoch in set(epochs)}
    return np.array([orders[int(e)][w % n_frames] for e, w in zip(epochs, wanted, strict=True)], dtype=np.int64)


def shuffled(source: Source[B], config: TrainConfig, *, batch_size: int | None = None, beside: int = 0) -> Batches[B]:
    """Batches of systems in `frame_order`.

    Args:
        source: the systems.
        config: its seed and `batch_size`.
        batch_size: another size.
        beside: which of several sources of one run this is, from 0: each has an order of its own. Sets of equal size
            would else be shuffled alike, and the same rows always meet.
    """
    n, size = len(source), config.batch_size if batch_size is None else batch_size
    seed = config.seed + beside * ORDER_SEED
    return lambda step: source.select(frame_order(step, n_frames=n, batch_size=size, seed=seed))


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine from the peak to 0 at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / (config.n_steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def equivariance_step(config: TrainConfig) -> int:
    """The first step, counted from 0, with the losses of `beta` and `torque_weight`."""
    return round(config.equivariance_from * config.n_steps)


def orientations_trained_on(config: TrainConfig) -> int:
    """Orientations that all steps of a run send through the model."""
    early = equivariance_step(config)
    paired = int(config.alpha > 0) + (config.n_rotated if config.beta > 0 else 0)
    frames = config.batch_size + config.unlabelled_batch_size
    late = (config.n_steps - early) * frames * (1 if config.estimator == "one-forward" else paired)
    return early * config.batch_size + late


def monitored_steps(config: TrainConfig) -> frozenset[int]:
    """Steps after which symmetry is measured: about `monitor_per_decade` in each decade, and the last one.

    Where even MIN_FRAMES frames at these steps would cost more than `monitor_share` of the orientations of training,
    there are fewer steps in a decade; the last one is always measured.
    """
    if config.monitor_per_decade == 0:
        return frozenset()
    affordable = config.monitor_share * orientations_trained_on(config) / (MIN_FRAMES * (MONITOR_DRAWS + 1))
    for per_decade in range(config.monitor_per_decade, 0, -1):
        steps = log_spaced(config.n_steps, per_decade=per_decade)
        if len(steps) <= affordable:
            return steps
    return frozenset([config.n_steps])


def monitored_frames(config: TrainConfig, *, n_held_out: int) -> int:
    """Frames that are measured at each of these steps: as many as the share allows, at most MAX_FRAMES."""
    n_points = max(1, len(monitored_steps(config)))
    affordable = int(config.monitor_share * orientations_trained_on(config) / (n_points * (MONITOR_DRAWS + 1)))
    return min(n_held_out, MAX_FRAMES, max(MIN_FRAMES, affordable))


def log_spaced(last: int, *, per_decade: int) -> frozenset[int]:
    """Whole numbers nearest to 10^(k / per_decade) from 1 on, and `last`."""
    powers = np.arange(int(np.floor(np.log10(last) * per_decade + 1e-9)) + 1) / per_decade
    return frozenset([*(min(last, round(float(10.0**power))) for power in powers), last])
