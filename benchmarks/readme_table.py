"""The tables of measured numbers in README and docs, from JSON files; with --write they are put there.

python benchmarks/readme_table.py [--write]

Each stands on its page between two marks that say which one it is: `<!-- measured: symmetry-potentials begin -->` and
the like with `end`. A mark of an unknown table, one without its other half and tables out of their order are refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from functools import partial

from check_tables import audit_faults_table, audit_honest_table, drift_noise_table, drift_real_table
from measured import ROOT
from potential_tables import (
    beyond_table,
    bonds_table,
    differences_table,
    readme_table,
    stability_table,
    torsions_table,
)
from speed_tables import ensemble_table, network_table, potential_table
from study_tables import (
    conditioning_table,
    curvature_table,
    md17_baseline_table,
    protocol_table,
    sizes_table,
    study_table,
)
from symmetry_tables import (
    before_after_table,
    few_orientations_table,
    field_table,
    plain_table,
    screening_table,
    symmetry_table,
)

MARK = re.compile(r"<!-- measured: (.*?) ?(begin|end) -->")


# By page, in the order in which they stand there.
TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"potentials": readme_table},
    "docs/audit.md": {"audit-faults": audit_faults_table, "audit-honest": audit_honest_table},
    "docs/beyond-the-data.md": {
        "difference-labels": differences_table,
        "beyond-ethanol": beyond_table,
        "bond-curves": bonds_table,
        "torsions": torsions_table,
        "stability": stability_table,
    },
    "docs/ensembles.md": {"ensemble-call": ensemble_table},
    "docs/forcefield.md": {
        "study-force-field": partial(study_table, "force_field_quick"),
        "study-force-field-default": partial(study_table, "force_field_default"),
    },
    "docs/nbody.md": {
        "study-nbody": partial(study_table, "nbody_quick"),
        "study-nbody-default": partial(study_table, "nbody_default"),
        "nbody-protocol": protocol_table,
    },
    "docs/papers/remul.md": {"loss-surfaces": curvature_table},
    "docs/papers/scale.md": {"study-rigid-bodies": partial(study_table, "rigid_bodies_quick")},
    "docs/papers/symmetry-learning.md": {
        "study-flow": partial(study_table, "flow_default"),
        "study-flow-molecules": partial(study_table, "flow_molecules"),
        "flow-sizes": sizes_table,
        "study-voxels": partial(study_table, "voxels_default"),
        "conditioning": conditioning_table,
    },
    "docs/speed.md": {"potential-speed": potential_table, "network-speed": network_table},
    "docs/statistics.md": {"drift-noise": drift_noise_table, "drift-real": drift_real_table},
    "docs/studies.md": {
        "study-mocap": partial(study_table, "mocap_quick"),
        "study-mocap-gatr": partial(study_table, "mocap_gatr"),
        "study-mocap-default": partial(study_table, "mocap_default"),
        "study-charged": partial(study_table, "charged_quick"),
        "study-charged-gatr": partial(study_table, "charged_gatr"),
        "md17-baselines": md17_baseline_table,
        "study-md17": partial(study_table, "md17_quick"),
        "study-md17-mixed": partial(study_table, "md17_mixed"),
        "study-field": partial(study_table, "field_quick"),
        "study-freedom": partial(study_table, "freedom_quick"),
    },
    "docs/symmetry.md": {
        "symmetry-potentials": symmetry_table,
        "symmetry-plain": plain_table,
        "symmetry-screening": screening_table,
        "symmetry-before-after": before_after_table,
        "symmetry-field": field_table,
        "symmetry-field-few": few_orientations_table,
    },
}


def with_tables(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The text of a page with each of its tables as the files have it now, in the marks of that table.

    Raises:
        ValueError: marks that are not those of `tables`, each once and in their order.
    """
    found = [match.groups() for match in MARK.finditer(text)]
    expected = [(name, edge) for name in tables for edge in ("begin", "end")]
    if found != expected:
        raise ValueError(f"the page has the marks {found}, and should have {expected}")
    for name, made in tables.items():
        begin, end = (f"<!-- measured: {name} {edge} -->" for edge in ("begin", "end"))
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{made()}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for page, tables in TABLES.items():
        if "--write" in sys.argv[1:]:
            path = ROOT / page
            path.write_text(with_tables(path.read_text(), tables))
        for name, made in tables.items():
            print(f"{page}: {name}\n\n{made()}\n")
