"""Sections of a config, from a file, a shipped preset and `SECTION.KEY=VALUE`; what they hold is not checked here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from remul_md.errors import InputError
from remul_md.files import read_text


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for path in _preset_folder().glob("*.yaml"))


def _preset_folder() -> Path:
    from remul_md.data import presets

    return Path(presets.__path__[0])


def config_path(path: str | Path) -> Path:
    """A file, or the shipped preset of that name.

    Raises:
        InputError: neither.
    """
    file = Path(path)
    if file.is_file():
        return file
    shipped = _preset_folder() / f"{path}.yaml"
    if shipped.is_file():
        return shipped
    raise InputError(f"config {str(path)!r} is no file and no preset; presets: {', '.join(preset_names())}")


def read_yaml(path: Path, *, sections: Sequence[str] = ("data", "model", "pretrain", "train")) -> dict[str, Any]:
    """The sections of a config file.

    Raises:
        InputError: a file that cannot be read or holds no sections.
    """
    try:
        values = yaml.safe_load(read_text(path))
    except OSError as error:
        raise InputError(f"config {str(path)!r} cannot be read ({error.strerror}); give a YAML file") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold sections ({', '.join(sections)}), found a {type(values).__name__}")
    return values


def apply_override(values: dict[str, Any], override: str, *, example: str = "train.beta=0.5") -> None:
    """Put the value of `section.key=value` (YAML) into the sections of a config.

    Raises:
        InputError: another form, a section that is none, or a value that is not YAML.
    """
    key, sign, text = override.partition("=")
    parts = key.split(".")
    if not sign or len(parts) != 2 or not all(parts):
        raise InputError(f"--set takes SECTION.KEY=VALUE such as {example}, got {override!r}")
    section = values.setdefault(parts[0], {})
    if not isinstance(section, dict):
        raise InputError(f"section {parts[0]!r} of the config holds {section!r}, expected keys and values")
    try:
        section[parts[1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override!r}: the value is not valid YAML") from error


def check_learning_rate_named(overrides: Sequence[str], *, fine_tuning: bool) -> None:
    """Refuse the learning rate of the other kind of training, which would be ignored.

    Args:
        overrides: such as `train.learning_rate=1e-3`.
        fine_tuning: all weights come trained, so that `train.fine_tuning_learning_rate` counts.
    Raises:
        InputError: an override sets the rate that does not count.
    """
    ignored, counts = "train.learning_rate", "train.fine_tuning_learning_rate"
    if not fine_tuning:
        ignored, counts = counts, ignored
    for override in overrides:
        key, _, value = override.partition("=")
        if key.strip() == ignored:
            start = "trained weights (--init-from)" if fine_tuning else "fresh weights"
            raise InputError(f"{override}: this training starts from {start}; set {counts}={value} instead")
