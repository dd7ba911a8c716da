"""When a run ends before its time: the force error bar is too large, the structure leaves the training data, a bond
breaks.

The first two are what the calculator says of its last call, in `calc.diagnostics` (`RemulCalculator`, or any calculator
that has such a mapping): `forces_std`, the standard deviation over the members of an ensemble, [N, 3], eV/Angstrom, and
`in_domain`, with the reasons in `outside_training`. Dynamics knows of no potential.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from remul_md.errors import InputError

EXAMPLE = "uncertainty=0.2,domain,bond"
FORCES_STD, IN_DOMAIN, OUTSIDE = "forces_std", "in_domain", "outside_training"


@dataclass(frozen=True, kw_only=True)
class StopWhen:
    """What `MDOptions.stop_when` names.

    Args:
        max_uncertainty: of the least certain atom, eV/Angstrom; None: not looked at. See `largest_uncertainty`.
        domain: stop where the calculator says that the structure is outside its training data.
        bond: stop at a broken bond (`MDOptions.max_bond_stretch`).
    """

    max_uncertainty: float | None = None
    domain: bool = False
    bond: bool = False

    @classmethod
    def parse(cls, text: str) -> StopWhen:
        """From `uncertainty=0.2,domain,bond`: any of the three, in any order.

        Raises:
            InputError: another word, one that is said twice, an uncertainty that is no number > 0.
        """
        found: dict[str, Any] = {}
        for part in str(text).split(","):
            name, equals, value = part.strip().partition("=")
            key = "max_uncertainty" if name == "uncertainty" else name
            if key not in cls.__dataclass_fields__ or (name == "uncertainty") != bool(equals) or key in found:
                raise InputError(
                    f"stop_when {text!r}: {part.strip()!r} is not understood; give uncertainty=NUMBER "
                    f"(eV/Angstrom), domain or bond, each once, as in {EXAMPLE}"
                )
            found[key] = _limit(value, text=text) if equals else True
        return cls(**found)

    def require(self, diagnostics: Any) -> None:
        """Refuse a calculator that does not say what is to be watched, before a run begins.

        Args:
            diagnostics: what it said after a call, or None.
        Raises:
            InputError: it names what is missing.
        """
        told = diagnostics if isinstance(diagnostics, Mapping) else {}
        if self.max_uncertainty is not None and told.get(FORCES_STD) is None:
            raise InputError(
                "stop_when uncertainty needs a calculator that tells its error bar (diagnostics['forces_std']), as an "
                "ensemble does (`remul-md ensemble`); this one tells none: leave uncertainty out, or give an ensemble"
            )
        if self.domain and told.get(IN_DOMAIN) is None:
            raise InputError(
                "stop_when domain needs a calculator that tells whether a structure is inside its training data "
                "(diagnostics['in_domain']), as potentials do for isolated molecules; this one does not for this "
                "structure: leave domain out"
            )

    def why(self, diagnostics: Mapping[str, Any]) -> tuple[str, str]:
        """The criterion that is met ("uncertainty" or "domain") and what is told of it; "" twice if none is."""
        if self.domain and not diagnostics[IN_DOMAIN]:
            return "domain", f"the structure left the training data: {'; '.join(diagnostics.get(OUTSIDE, ()))}"
        if self.max_uncertainty is not None:
            atom, value = largest_uncertainty(diagnostics[FORCES_STD])
            if not value <= self.max_uncertainty:
                limit = f"more than {self.max_uncertainty:g}"
                return "uncertainty", f"the members disagree by {value:.3g} eV/Angstrom on atom {atom}, {limit}"
        return "", ""


def largest_uncertainty(forces_std: Any) -> tuple[int, float]:
    """The least certain atom and its error bar: root mean square over its three components, eV/Angstrom.

    Args:
        forces_std: [N, 3].
    """
    of_atoms = np.sqrt(np.square(np.asarray(forces_std, dtype=np.float64)).mean(axis=-1))
    atom = int(np.argmax(of_atoms))  # a NaN is the largest
    return atom, float(of_atoms[atom])


def _limit(value: str, *, text: str) -> float:
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not (math.isfinite(limit) and limit > 0.0):
        raise InputError(f"stop_when {text!r}: uncertainty must be a number > 0 (eV/Angstrom), got {value!r}")
    return limit
