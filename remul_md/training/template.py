"""A config with every option and what it means, to be cut down to the few lines that one needs."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping

import yaml
from pydantic import BaseModel

from remul_md.models import MODELS, model_config_type
from remul_md.training.config import RunConfig

HEAD = """\
# All options of `remul-md train my.yaml --run-dir RUN` with their defaults. For your own frames six lines are enough:
#
# data:
#   source: frames.extxyz        # eV and Angstrom; else energy_unit, length_unit, force_unit
#   n_train: 950                 # out of the file, at random; the same seed, the same split
#   n_validation: 50
# train:
#   n_steps: 12000
"""
WIDTH = 118


def config_template() -> str:
    """The default config as YAML, each option with its description; read back it is the default config."""
    config = RunConfig()
    parts = [HEAD]
    for section in RunConfig.model_fields:
        options: BaseModel = getattr(config, section)
        of_option = {name: field.description or "" for name, field in type(options).model_fields.items()}
        if section == "model":
            kind = options.model_dump()["kind"]
            of_option |= _documented(inspect.getdoc(model_config_type(kind)) or "")
            of_option["kind"] = f"of network: {', '.join(MODELS)}; each has options of its own"
        parts.append(
            f"\n{section}:\n" + "".join(_option(options, name, of_option) for name in type(options).model_fields)
        )
    return "".join(parts)


def _option(options: BaseModel, name: str, of_option: Mapping[str, str]) -> str:
    value = yaml.safe_dump({name: options.model_dump(mode="json")[name]}, sort_keys=False).strip()
    return "".join(f"  # {line}\n" for line in textwrap.wrap(of_option[name], WIDTH - 4)) + f"  {value}\n"


def _documented(docstring: str) -> dict[str, str]:
    """What the Args of a docstring say of each option."""
    told = docstring.partition("Args:\n")[2].partition("\nRaises:")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", told, re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for name, text in found}
