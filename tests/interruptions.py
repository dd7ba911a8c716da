"""Trainings that are stopped from outside at a chosen step."""

from __future__ import annotations

from typing import Any

import pytest

from remul_md.training import fit as trainer


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = trainer.train_step

    def interrupted(state: Any, *arguments: Any, **options: Any) -> Any:
        if state.step == step:
            raise KeyboardInterrupt
        return original(state, *arguments, **options)

    monkeypatch.setattr(trainer, "train_step", interrupted)
