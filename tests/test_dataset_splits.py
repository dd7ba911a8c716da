"""Splits are seeded, disjoint, hashed, and never separate copies of a geometry."""

import json
from dataclasses import replace

import numpy as np
import pytest

from remul_md import Frames, InputError
from remul_md.datasets import Split, make_split, read_frames
from remul_md.datasets.read import seen_in_training
from remul_md.datasets.splits import duplicate_labels, near_in_time


def frames_with_copies(copies: list[int], *, seed: int = 3) -> Frames:
    """Random frames of 5 atoms; `copies[k]` says how often geometry k stands, in shuffled order."""
    generator = np.random.default_rng(seed)
    geometry = generator.permutation(np.repeat(np.arange(len(copies)), copies))
    distinct = generator.normal(size=(len(copies), 5, 3))
    return Frames(
        positions=distinct[geometry].reshape(-1, 3),
        atomic_numbers=np.tile([6, 1, 1, 8, 7], len(geometry)),
        n_atoms=np.full(len(geometry), 5),
        pbc=np.zeros((len(geometry), 3), dtype=bool),
        energy=generator.normal(size=len(geometry)),
    )


def test_sizes_order_and_disjointness() -> None:
    frames = read_frames("rmd17/ethanol/train-01")
    split = make_split(frames, n_train=950, n_validation=50, seed=0)
    assert len(split.train) == 950
    assert len(split.validation) == 50
    assert sorted(split.train + split.validation) == list(range(1000))
    assert list(split.train) == sorted(split.train)
    assert split.data_hash == frames.content_hash()


def test_the_seed_decides_and_nothing_else() -> None:
    frames = frames_with_copies([1] * 40)
    first = make_split(frames, n_train=20, n_validation=7, seed=5)
    np.random.seed(99)  # noqa: NPY002  a global seed must not matter
    assert make_split(frames, n_train=20, n_validation=7, seed=5) == first
    others = [make_split(frames, n_train=20, n_validation=7, seed=seed) for seed in range(6, 16)]
    assert len({split.sha256 for split in [first, *others]}) == 11


def test_every_frame_is_equally_likely_to_validate() -> None:
    frames = frames_with_copies([1] * 20)
    n_draws, counts = 600, np.zeros(20)
    for seed in range(n_draws):
        counts[list(make_split(frames, n_train=6, n_validation=5, seed=seed).validation)] += 1
    expected = n_draws * 5 / 20
    chi_squared = ((counts - expected) ** 2 / (expected * (1 - 5 / 20))).sum() * 19 / 20
    assert chi_squared < 43.8  # 0.1 % of fair draws exceed it (19 degrees of freedom)


def test_learning_curves_share_validation_and_nest() -> None:
    frames = frames_with_copies([1] * 60)
    small, large = (make_split(frames, n_train=n, n_validation=9, seed=2) for n in (11, 37))
    assert small.validation == large.validation
    assert set(small.train) < set(large.train)


@pytest.mark.parametrize("seed", range(20))
def test_copies_stay_on_one_side(seed: int) -> None:
    frames = frames_with_copies([2] * 6 + [3] * 4 + [1] * 9, seed=seed)
    labels = duplicate_labels(frames)
    split = make_split(frames, n_train=17, n_validation=8, seed=seed)
    unused = set(range(len(frames))) - set(split.train) - set(split.validation)
    sides = [{int(labels[index]) for index in side} for side in (split.train, split.validation, unused)]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert (len(split.train), len(split.validation)) == (17, 8)


def test_copies_that_come_last_are_not_left_over() -> None:
    frames = frames_with_copies([1, 1, 1, 1, 4])
    for seed in range(30):  # where the four copies come last, two single frames have already been put into training
        split = make_split(frames, n_train=4, n_validation=2, seed=seed)
        assert (len(split.train), len(split.validation)) == (4, 2)


def test_copies_are_found_bit_for_bit() -> None:
    frames = frames_with_copies([1] * 6)
    repeated = frames.select([0, 1, 2, 0, 4, 2, 2])
    assert duplicate_labels(repeated).tolist() == [0, 1, 2, 0, 4, 2, 2]
    moved = repeated.positions.copy()
    moved[15] += 1e-9
    assert duplicate_labels(replace(repeated, positions=moved)).tolist() == [0, 1, 2, 3, 4, 2, 2]
    elements = repeated.atomic_numbers.copy()
    elements[15] = 14
    assert duplicate_labels(replace(repeated, atomic_numbers=elements)).tolist() == [0, 1, 2, 3, 4, 2, 2]
    cells = np.tile(np.eye(3) * 9.0, (7, 1, 1))
    cells[3] *= 1.5
    assert duplicate_labels(replace(repeated, cell=cells)).tolist() == [0, 1, 2, 3, 4, 2, 2]


def test_json_round_trip() -> None:
    split = make_split(frames_with_copies([1] * 30), n_train=11, n_validation=5, seed=8)
    content = json.loads(json.dumps(split.to_json()))
    assert Split.from_json(content) == split
    assert content["sha256"] == split.sha256


def test_a_changed_record_is_refused() -> None:
    content = make_split(frames_with_copies([1] * 30), n_train=11, n_validation=5, seed=8).to_json()
    with pytest.raises(InputError, match=r"sha256 .* changed"):
        Split.from_json(content | {"train": content["train"][:-1]})
    del content["seed"]
    with pytest.raises(InputError, match=r"split record lacks \['seed'\], found"):
        Split.from_json(content)


def test_a_split_belongs_to_its_data() -> None:
    frames = frames_with_copies([1] * 30)
    split = make_split(frames, n_train=11, n_validation=5, seed=8)
    split.check_belongs_to(frames)
    assert frames.energy is not None
    with pytest.raises(InputError, match="content hash "):
        split.check_belongs_to(replace(frames, energy=frames.energy + 1e-6))


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        (
            {"n_train": 26, "n_validation": 5},
            r"26 training [+] 5 validation frames, .*30; lower n_train",
        ),
        ({"n_train": 0, "n_validation": 5}, "n_train must be >= 1, got 0"),
        ({"n_train": 7, "n_validation": -2}, "n_validation must be >= 0, got -2"),
        ({"n_train": 7, "n_validation": 2, "seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_sizes_out_of_range(sizes: dict[str, int], text: str) -> None:
    with pytest.raises(InputError, match=text):
        make_split(frames_with_copies([1] * 30), **({"seed": 0} | sizes))


def test_copies_that_cannot_be_divided() -> None:
    with pytest.raises(InputError, match="6 frames hold 2 distinct geometries"):
        make_split(frames_with_copies([3, 3]), n_train=4, n_validation=2, seed=0)


def test_frames_near_in_time_are_told() -> None:
    """By the steps that rMD17 files hold; the numbers stand in data/rmd17/README.md."""
    near = {}
    for molecule in ("aspirin", "ethanol"):
        train, test = (read_frames(f"rmd17/{molecule}/{part}-01") for part in ("train", "test"))
        found = near_in_time(test, train, max_steps=10)
        assert found is not None
        near[molecule] = int(found.sum())
        steps = test.select(np.flatnonzero(found)[:3]).trajectory_step
        assert steps is not None
        assert train.trajectory_step is not None
        assert np.abs(steps[:, None] - train.trajectory_step).min(axis=1).max() <= 10
    assert near == {"aspirin": 89, "ethanol": 27}
    assert near_in_time(replace(test, trajectory_step=None), train, max_steps=10) is None


def test_steps_of_the_trajectory_are_no_content() -> None:
    frames = read_frames("rmd17/ethanol/train-01").select(range(5))
    assert frames.trajectory_step is not None
    assert replace(frames, trajectory_step=None).content_hash() == frames.content_hash()
    with pytest.raises(InputError, match=r"trajectory_step has shape \(4,\), expected \(5,\)"):
        replace(frames, trajectory_step=frames.trajectory_step[:4])


def test_only_frames_of_one_trajectory_count_as_seen() -> None:
    train = read_frames("rmd17/ethanol/train-01")
    split = make_split(train, n_train=40, n_validation=7, seed=3)
    record = {"name": train.name, "split": split.to_json()}
    seen = seen_in_training(record, "rmd17/ethanol/test-01")
    assert seen is not None
    assert train.trajectory_step is not None
    assert seen.trajectory_step is not None
    assert seen.trajectory_step.tolist() == train.trajectory_step[[*split.train, *split.validation]].tolist()
    assert seen_in_training(record, "rmd17/aspirin/test-01") is None
    assert seen_in_training(record, "frames.extxyz") is None
    assert seen_in_training({"name": "mine.xyz", "split": split.to_json()}, "rmd17/ethanol/test-01") is None
    assert seen_in_training({"name": train.name}, "rmd17/ethanol/test-01") is None
