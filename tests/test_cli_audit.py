"""`remul-md audit` as a user types it: exit codes, verdicts, files, and mistakes in one line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
import pytest
from planted_faults import copper_lj

from remul_md.analysis.audit.limits import NAMES
from remul_md.cli.app import main

MODULE = """
from ase.calculators.lj import LennardJones
from ase.calculators.emt import EMT

class Weak(EMT):
    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.results["forces"] = 0.98 * self.results["forces"]

def lennard_jones():
    return LennardJones(sigma=2.338, epsilon=0.409, rc=9.0, ro=7.0, smooth=True)

def needs_a_file(path):
    return path

def nothing():
    return None
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command in a folder with a module of calculators and a structure: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "audited_calculators", raising=False)
    Path("audited_calculators.py").write_text(MODULE)
    ase.io.write("cluster.xyz", copper_lj(), format="extxyz")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["remul-md", "audit", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


def test_an_honest_calculator_passes_with_exit_code_0(run: Run) -> None:
    out_files = ["--report", "new/audit.html", "--json", "new/audit.json"]
    code, out, err = run("audited_calculators:lennard_jones", "--structure", "cluster.xyz", *out_files)
    assert code == 0, err
    assert "all checks passed" in out
    assert "NOT" not in out
    for name in NAMES:
        assert f"  {name:13}  yes " in out
    assert "calls=" in err  # the progress bar
    written = json.loads(Path("new/audit.json").read_text())
    assert written["passed"] is True
    assert [check["name"] for check in written["checks"]] == list(NAMES)
    page = Path("new/audit.html").read_text()
    assert "audited_calculators:lennard_jones" in page
    assert "remul-md audit audited_calculators:lennard_jones --structure cluster.xyz" in page


def test_a_fault_ends_with_exit_code_1_and_the_files_are_written(run: Run) -> None:
    options = ["--structure", "cluster.xyz", "--only", "gradient", "--only", "rotation", "--json", "audit.json"]
    code, out, _ = run("audited_calculators:Weak", *options)
    assert code == 1
    assert "NOT all checks passed" in out
    assert "  gradient       NO " in out
    (line,) = (line for line in out.splitlines() if line.startswith("  gradient "))
    assert re.search(r" [\d.]+ meV/Å \(limit ≤ [\d.]+ meV/Å\) ", line)
    assert "  rotation       yes " in out
    written = json.loads(Path("audit.json").read_text())
    assert written["passed"] is False
    assert {check["name"]: check["passed"] for check in written["checks"]} == {"gradient": False, "rotation": True}


def test_shipped_potentials_by_name(run: Run) -> None:
    quick = ["--only", "rotation", "--only", "net_torque", "--only", "repeatability"]
    code, out, err = run("ethanol", "--structure", "ethanol", "--dtype", "float64", "--forces", "conservative", *quick)
    assert code == 0, err
    assert out.count(" yes ") == 3
    assert "C2H6O" in out


def test_a_reference_is_told_beside_the_checks(run: Run) -> None:
    few = ["--structure", "cluster.xyz", "--only", "net_force", "--reference", "ase.calculators.emt:EMT"]
    code, out, err = run("audited_calculators:lennard_jones", *few, "--report", "audit.html")
    assert code == 0, err
    assert re.search(r"  bond Cu\d-Cu\d pulled from [\d.]+ to [\d.]+ Å: force [\d.]+ eV/Å \(RMS\) from ase", out)
    assert "Bonds pulled, beside the reference" in Path("audit.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audited_calculators:missing", "--structure", "cluster.xyz"], "has no attribute 'missing'"),
        (["no_such_module:make", "--structure", "cluster.xyz"], "No module named 'no_such_module'"),
        (["audited_calculators:needs_a_file", "--structure", "cluster.xyz"], "called without arguments"),
        (["audited_calculators:nothing", "--structure", "cluster.xyz"], "made a NoneType"),
        (["audited_calculators:Weak", "--structure", "cluster.xyz", "--dtype", "float64"], "--dtype is an option of"),
        (["audited_calculators:Weak", "--structure", "none.xyz"], "'none.xyz' is no file"),
        (
            ["audited_calculators:Weak", "--structure", "cluster.xyz", "--only", "loops"],
            "choose among rotation",
        ),
        (["ethanol", "--structure", "aspirin"], "the calculator raised InputError"),
        (["no-such-potential", "--structure", "ethanol"], "no-such-potential"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2, err
    assert message in " ".join(err.split())
    assert "Traceback" not in out + err


def test_an_output_that_cannot_be_written_is_explained(run: Run) -> None:
    Path("file").touch()
    short = ["--structure", "cluster.xyz", "--only", "net_force"]
    for option in (["--json", "file/audit.json"], ["--report", "file/audit.html"]):
        code, out, err = run("audited_calculators:Weak", *short, *option)
        assert code == 2
        assert "cannot" in err
        assert "net_force      yes" in out  # the figures are not lost
