"""One word for one thing: words that were replaced stay out of names, messages and docs (docs/glossary.md)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What is not said, what is said instead, and where the word means something else.
BANNED = {
    r"stock": "original",
    r"(un)?turned(?! into\b| out\b| on\b| off\b| down\b)": "rotated, original",
    r"poses?": "orientation",
    r"committees?": "ensemble",
    r"arms?": "method",
    r"anchors?": "consistency target",
    r"shelf": "potentials, zoo",
    r"E_prime": "equivariance_norm",
}
ALLOWED = {
    "docs/conf.py": {"anchors"},  # the name of an option of MyST
    "CHANGELOG.md": {"turned", "pose", "committee", "anchor"},  # tells what was renamed
    "tests/test_words.py": None,
    "LICENSE": None,
}
RIDDLES = (
    "nobody wakes who has nothing to do", "near copies flatter", "a little dearer", "What made it", "To know besides",
    "whatever of them was asked for", "goes on behind its last whole walk",
)  # fmt: skip


def _texts() -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("no git here to list the files")
    names = [
        name for name in listed.stdout.splitlines() if name.endswith((".py", ".md", ".yaml", ".json", ".csv", ".toml"))
    ]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in [*names, "Makefile"] if (ROOT / name).is_file()}


def _found(text: str, banned: str) -> list[str]:
    """Whole words, and parts of names in snake_case or CamelCase."""
    spelt = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text)
    return [match.group() for match in re.finditer(rf"(?<![A-Za-z]){banned}(?![A-Za-z])", spelt, re.IGNORECASE)]


def test_words_that_were_replaced_stay_out() -> None:
    wrong = []
    for name, text in _texts().items():
        allowed = ALLOWED.get(name, set())
        if allowed is None:
            continue
        for banned, instead in BANNED.items():
            found = [word for word in _found(text, banned) if word.lower() not in allowed]
            if found:
                wrong.append(f"{name}: {found[0]!r}, {len(found)} times; say {instead}")
    assert not wrong, "\n".join(wrong)


def test_no_riddles() -> None:
    wrong = [
        (name, riddle)
        for name, text in _texts().items()
        for riddle in RIDDLES
        if riddle in text and name not in ALLOWED
    ]
    assert not wrong


@pytest.mark.parametrize(
    "text", ["a stock frame", "turned_back", "PoseErrors", "n_turned", "--arms", "committee_std", "ARMS"]
)
def test_a_planted_word_is_found(text: str) -> None:
    assert any(_found(text, banned) for banned in BANNED)


@pytest.mark.parametrize(
    "text", ["harmonic", "alarm", "transpose", "superposes", "stockholm", "turned into a list", "warm"]
)
def test_other_words_are_not(text: str) -> None:
    assert not any(_found(text, banned) for banned in BANNED)
