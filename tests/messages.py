"""Messages in tests: what a user needs of them is pinned, a name, a value, a remedy; the words between may change."""

from __future__ import annotations

import re


def pattern(told: str) -> str:
    """The regular expression of a message of which only these parts are told; `...` stands for whatever is between."""
    return "(?s:.*)".join(re.escape(part) for part in re.split(r" ?\.\.\. ?", told))
