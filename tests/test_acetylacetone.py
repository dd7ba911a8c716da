"""The benchmark of acetylacetone: its options are those of `train`, its frames those of the publication, its errors
root mean squares."""

from __future__ import annotations

import acetylacetone
import numpy as np
import pytest

from remul_md.datasets import read_frames
from remul_md.training.config import load_config


@pytest.mark.parametrize("method", acetylacetone.METHODS)
def test_methods_are_options_of_a_training(method: str) -> None:
    config = load_config(None, overrides=[*acetylacetone.METHODS[method], "train.forces=conservative"])
    assert (config.model.symmetry == "exact") is (method != "relaxed")  # type: ignore[attr-defined]
    assert (config.pretrain.method == "xtb") is ("pretrained" in method)
    full = config.train.fine_tuning_learning_rate == config.train.learning_rate
    assert full is method.endswith("full-rate")


def test_frames_are_those_of_the_publication_and_apart() -> None:
    """Twice the temperature is twice the spread of potential energy of a nearly harmonic molecule."""
    train = read_frames(acetylacetone.DATA / "train_300K.npz")
    cold, hot = (read_frames(acetylacetone.DATA / f"test_{each}K.npz") for each in acetylacetone.TEMPERATURES_K)
    assert [len(frames) for frames in (train, cold, hot)] == [500, 650, 650]
    assert all(set(frames.n_atoms.tolist()) == {15} for frames in (train, cold, hot))
    assert train.energy is not None
    assert cold.energy is not None
    assert hot.energy is not None
    assert np.std(cold.energy) == pytest.approx(np.std(train.energy), rel=0.1)
    assert np.std(hot.energy) == pytest.approx(2.0 * np.std(train.energy), rel=0.2)
    known = set(train.energy.tolist())
    assert not known & set(cold.energy.tolist())
    assert not known & set(hot.energy.tolist())


def test_root_mean_squares_of_electronvolts_are_told_in_thousandths() -> None:
    assert acetylacetone.rms_thousandths(np.array([[3e-3, -4e-3], [0.0, 0.0]])) == pytest.approx(2.5)
