"""Seeded, hashed splits into training and validation frames, in which copies of a geometry stay on one side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.structures.frames import Frames


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which frames train and which validate; the rest is unused. It is recorded in every potential.

    Args:
        train: indices of the training frames, ascending.
        validation: indices of the validation frames, ascending, none of them in `train`.
        seed: of the draw.
        data_hash: `Frames.content_hash()` of the frames that were split.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    seed: int
    data_hash: str

    @property
    def sha256(self) -> str:
        """Hash of the indices and of the data: equal only for the same frames in the same roles."""
        content = json.dumps([list(self.train), list(self.validation), self.data_hash])
        return hashlib.sha256(content.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The split as what `json.dumps` takes, with its sha256."""
        return {
            "train": list(self.train),
            "validation": list(self.validation),
            "seed": self.seed,
            "data_hash": self.data_hash,
            "sha256": self.sha256,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Split:
        """The split that `to_json` wrote.

        Raises:
            InputError: keys missing, or indices that do not fit the recorded sha256.
        """
        missing = sorted({"train", "validation", "seed", "data_hash", "sha256"} - set(content))
        if missing:
            raise InputError(
                f"split record lacks {missing}, found {sorted(content)}; it was not written by Split.to_json"
            )
        split = cls(
            train=tuple(int(index) for index in content["train"]),
            validation=tuple(int(index) for index in content["validation"]),
            seed=int(content["seed"]),
            data_hash=str(content["data_hash"]),
        )
        if split.sha256 != content["sha256"]:
            raise InputError(
                f"split record says sha256 {content['sha256']}, its content gives {split.sha256}; it was changed"
            )
        return split

    def check_belongs_to(self, frames: Frames) -> None:
        """Raise InputError unless these are the frames that were split."""
        found = frames.content_hash()
        if found != self.data_hash:
            raise InputError(
                f"{frames.name}: content hash {found[:12]}, the split was made for {self.data_hash[:12]}; "
                "give the data that the split was made for"
            )


def make_split(frames: Frames, *, n_train: int, n_validation: int, seed: int) -> Split:
    """Draw training and validation frames; identical geometries never stand on two sides, nor on a side and unused.

    Validation is drawn first, so that with one seed the same frames validate whatever `n_train` is, and smaller
    training sets lie within larger ones: a learning curve changes one thing at a time. (Duplicates can shift this
    by a frame.)

    Args:
        frames: what is split.
        n_train: training frames, >= 1.
        n_validation: validation frames, >= 0.
        seed: of the draw, >= 0.
    Raises:
        InputError: more frames asked for than there are, or numbers out of range.
    """
    for option, value, lowest in (("n_train", n_train, 1), ("n_validation", n_validation, 0), ("seed", seed, 0)):
        if value < lowest:
            raise InputError(f"{option} must be >= {lowest}, got {value}")
    if n_train + n_validation > len(frames):
        raise InputError(
            f"{frames.name}: asked for {n_train} training + {n_validation} validation frames, there are {len(frames)}; "
            "lower n_train or n_validation"
        )
    labels = duplicate_labels(frames)
    members: dict[int, list[int]] = {}
    for index in np.random.default_rng(seed).permutation(len(frames)):
        members.setdefault(int(labels[index]), []).append(int(index))
    groups = list(members.values())
    # Small groups can fill what is left by large ones but not the reverse, so the second attempt puts large ones first.
    for order in (groups, sorted(groups, key=len, reverse=True)):
        validation, rest = _fill(order, n_validation)
        train, _ = _fill(rest, n_train)
        if len(train) == n_train and len(validation) == n_validation:
            return Split(
                train=tuple(sorted(train)),
                validation=tuple(sorted(validation)),
                seed=seed,
                data_hash=frames.content_hash(),
            )
    raise InputError(
        f"{frames.name}: {len(frames)} frames hold {len(groups)} distinct geometries, whose copies cannot be kept on "
        f"one side with exactly {n_train} + {n_validation} frames; lower n_train or n_validation"
    )


def duplicate_labels(frames: Frames) -> NDArray[np.int64]:
    """For each frame the index of the first frame with the same atoms, positions and cell, bit for bit, [B]."""
    first_seen: dict[bytes, int] = {}
    labels = np.empty(len(frames), dtype=np.int64)
    for index in range(len(frames)):
        content = frames.frame_numbers(index).tobytes() + frames.frame_positions(index).tobytes()
        content += frames.pbc[index].tobytes() + (b"" if frames.cell is None else frames.cell[index].tobytes())
        labels[index] = first_seen.setdefault(hashlib.sha256(content).digest(), index)
    return labels


def near_in_time(frames: Frames, others: Frames, *, max_steps: int) -> NDArray[np.bool_] | None:
    """Which frames were taken within `max_steps` of one of the others from the same trajectory, [B].

    None if either does not know its steps. That both are of one trajectory is for the caller to know.
    """
    if frames.trajectory_step is None or others.trajectory_step is None:
        return None
    gaps = np.abs(frames.trajectory_step[:, None] - others.trajectory_step[None, :])
    return np.asarray(gaps.min(axis=1) <= max_steps)


def _fill(groups: Sequence[list[int]], n_frames: int) -> tuple[list[int], list[list[int]]]:
    """The first groups that fit into `n_frames`, and the groups left over."""
    chosen: list[int] = []
    rest = []
    for group in groups:
        if len(chosen) + len(group) <= n_frames:
            chosen.extend(group)
        else:
            rest.append(group)
    return chosen, rest
