"""The page of an audit: every verdict with its number and reason, its scans as plots, drawn by a real browser."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from browser_session import PHONE, WIDE, needs_browser, opened
from planted_faults import cutoff_without_envelope, planted

from remul_md import InputError
from remul_md.analysis.audit import AuditResult, Limits, run_audit
from remul_md.analysis.audit.limits import NAMES
from remul_md.analysis.audit.report import GROUPS, TITLES, audit_figures, write_audit_report
from remul_md.analysis.audit.run import AMPLITUDE_A, N_FRAMES


@lru_cache(maxsize=1)
def audited() -> AuditResult:
    """An audit with jumps in it; made once."""
    return run_audit(planted(cutoff_without_envelope))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "new" / "audit.html"
    return write_audit_report(audited(), path, provenance={"audited": "mymodel:make <b>" * 30})


def test_every_check_has_a_title_and_a_place() -> None:
    assert sorted(TITLES) == sorted(NAMES)
    assert sorted(name for _, names in GROUPS for name in names) == sorted(NAMES)


def test_the_guide_lists_every_check_with_its_limit() -> None:
    guide = (Path(__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"| `{name}` |" in guide, name
    limits = Limits()
    for share in (limits.orientation_force_share, limits.exact_force_share, limits.gradient_share):
        assert f"| {100 * share:g} % of" in guide
    assert f"| {limits.drift_meV_per_atom_ps:.2g} meV/atom/ps |" in guide
    assert f"normal displacements of {AMPLITUDE_A:g} Å" in guide
    assert "three geometries" in " ".join(guide.split())
    assert N_FRAMES == 3


def test_the_page_says_every_verdict(page) -> None:
    html = page.read_text(encoding="utf-8")
    body = html[: html.index('id="figures"')].replace("&#x27;", "'")
    for check in audited().checks:
        assert TITLES[check.name] in body
        assert check.why.replace("<", "&lt;") in body
    assert "11 of 12 checks passed; failed: smoothness." in body
    assert body.count("✓ Yes") == 11
    assert body.count("✗ No") == 1
    assert "<b>" not in body
    assert "Cu₅" in body
    assert not re.findall(r'(?:src|href)="(?!data:)', body)


def test_the_plots_hold_scans_and_jumps() -> None:
    result = audited()
    figures = {figure.key: figure for figure in audit_figures(result)}
    assert len(figures) == 1 + len(result.scans)
    for index, scan in enumerate(result.scans):
        figure = figures[f"scan-{index}"]
        assert figure.traces[0].x.tolist() == scan.values.tolist()
        names = [trace.name for trace in figure.traces]
        assert ("jump" in names) == bool(scan.jump_at)
        assert scan.path.label[1:] in figure.title
    bond = next(scan for scan in result.scans if scan.path.kind == "bond")
    assert bond.jump_at  # the neighbours pass the cutoff one after the other
    json.dumps([figure.to_json() for figure in figures.values()], allow_nan=False)


def test_what_does_not_apply_is_no_yes(tmp_path) -> None:
    atom = Atoms("Cu")
    atom.calc = EMT()
    html = write_audit_report(run_audit(atom), tmp_path / "atom.html").read_text(encoding="utf-8")
    assert html.count("– Not applicable") == 5
    assert html.count("✓ Yes") == 7
    assert "7 of 7 checks passed. 5 do not apply to this structure." in html


def test_some_checks_only(tmp_path) -> None:
    atoms = planted(cutoff_without_envelope)
    path = write_audit_report(run_audit(atoms, only=["rotation"]), tmp_path / "one.html")
    html = path.read_text(encoding="utf-8")
    assert "1 of 1 checks passed." in html
    assert "<h2>Conservation</h2>" not in html


def test_a_folder_that_cannot_be_made_is_explained(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_audit_report(audited(), tmp_path / "file" / "audit.html")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("size", [WIDE, PHONE])
@needs_browser[1]
def test_a_browser_draws_it(browser, page, size) -> None:
    opened(browser, page, size=size)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    drawn = browser.execute_script(
        """return [...document.querySelectorAll(".plot")].map(plot => [plot.id, plot.data.length,
             plot.querySelectorAll(".scatterlayer .trace").length])"""
    )
    assert len(drawn) == len(audit_figures(audited()))
    assert all(expected == found >= 1 for _, expected, found in drawn)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
