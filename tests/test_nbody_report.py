"""The table and the plots say what the file of results says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from typer.testing import CliRunner

from remul_md.cli.app import app
from remul_md.errors import InputError
from remul_md.outputs import GENERATOR
from remul_md.studies.nbody.plots import write_plots
from remul_md.studies.nbody.report import markdown_table, summaries
from remul_md.studies.summary import lowest, step_of_percent

ROOT = Path(__file__).parents[1]


def a_run(method: str, seed: int, *, inside: float, outside: float, percents: dict[int, float]) -> dict[str, Any]:
    return {
        "method": method,
        "seed": seed,
        "train_mse": 0.5 * inside,
        "id_mse": inside,
        "ood_mse": outside,
        "equivariance_norm": 0.2 * outside**0.5,
        "percent": percents[max(percents)],
        "twirled_mse": 0.9 * inside,
        "best_step": 10,
        "train_seconds": 40.0,
        "baselines": {"copy": 16e-3, "straight_line": 5.8e-3},
        "history": [{"step": float(step), "percent": value} for step, value in percents.items()],
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    runs = [
        a_run("plain", 0, inside=8e-3, outside=20e-3, percents={1: 60.0, 10: 70.0, 100: 80.0}),
        a_run("plain", 1, inside=10e-3, outside=34e-3, percents={1: 61.0, 10: 71.0, 100: 81.0}),
        a_run("remul-0.1", 0, inside=3e-3, outside=6e-3, percents={1: 60.0, 10: 1.0, 100: 1.5}),
        a_run("remul-one-forward", 0, inside=3.3e-3, outside=6e-3, percents={1: 60.0, 10: 30.0, 100: 1.7}),
        a_run("remul-10", 0, inside=2e-3, outside=2.9e-3, percents={1: 1.9, 10: 3.0, 100: 0.5}),
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"study": "nbody", "runs": runs}))
    return path


def test_the_table_holds_means_spreads_and_what_was_published(results: Path) -> None:
    lines = markdown_table(results).splitlines()
    plain = next(line for line in lines if line.startswith("| plain"))
    cells = [cell.strip() for cell in plain.strip("|").split("|")]
    assert cells[1] == "2"
    assert cells[3] == "9 ± 1.4"
    assert cells[4] == "27 ± 9.9"
    assert cells[5] == "3.00"
    assert cells[6] == "8.99 / 27.06"
    assert cells[9:12] == ["never, never", "60 (1), 61 (1)", "10, 10"]
    remul = next(line for line in lines if line.startswith("| REMUL, beta = 0.1"))
    assert "1.94 / 1.83" in remul
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "- plain: outside is 3.00 x in distribution, NOT within 1.5 x." in lines
    assert "- REMUL, beta = 10: outside is 1.45 x in distribution, within 1.5 x." in lines


def test_the_documented_table_is_that_of_the_committed_results() -> None:
    assert markdown_table(ROOT / "results" / "nbody_quick.json") in (ROOT / "docs" / "nbody.md").read_text()


def test_the_committed_results_name_nothing_private() -> None:
    content = json.loads((ROOT / "results" / "nbody_quick.json").read_text())
    assert content["command"] == "remul-md study nbody --quick --run-dir runs/nbody-quick --jobs 2"
    assert set(content["machine"]) == {"system", "architecture", "cores", "jobs", "cuda"}
    assert len(content["versions"]["commit"]) == 40


def test_a_percent_that_rises_again_has_not_been_reached(results: Path) -> None:
    methods = {method.name: method for method in summaries(results)}
    steps = {
        name: [step_of_percent(run["history"], key="percent") for run in method.runs]
        for name, method in methods.items()
    }
    assert steps["plain"] == [None, None]
    assert steps["remul-0.1"] == [10]
    assert steps["remul-10"] == [100]  # 1.9 at step 1 was an accident
    assert lowest(methods["remul-0.1"].runs[0]["history"], key="percent") == (1.0, 10)
    assert methods["remul-0.1"].beta == 0.1
    assert methods["plain"].beta is None
    assert methods["remul-one-forward"].beta is None  # not a point of the sweep


@pytest.mark.slow
def test_the_plots_show_every_method(results: Path, tmp_path: Path) -> None:
    paths = write_plots(results, tmp_path / "plots")
    assert [path.name for path in paths] == [
        "nbody_error_against_beta.png",
        "nbody_percent_against_step.png",
        "nbody_error_against_symmetry.png",
    ]
    for path in paths:
        pixels = matplotlib.image.imread(path)
        colours = {tuple((pixel * 255).astype(int)) for pixel in pixels[::3, ::3, :3].reshape(-1, 3)}
        assert (35, 40, 45) in colours  # the first colour is drawn
        assert (184, 67, 31) in colours


def test_the_command_makes_table_and_plots(results: Path, tmp_path: Path) -> None:
    table, plots = tmp_path / "new" / "table.md", tmp_path / "plots"
    done = CliRunner().invoke(
        app, ["study", "nbody-report", str(results), "--markdown", str(table), "--plots", str(plots)]
    )
    assert done.exit_code == 0, done.output
    assert table.read_text() == f"<!-- generator: {GENERATOR} -->\n{markdown_table(results)}\n"
    assert markdown_table(results) in done.output
    assert len(list(plots.glob("*.png"))) == 3


def test_what_is_no_result_is_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read as JSON"):
        markdown_table(tmp_path / "none.json")
    other = tmp_path / "other.json"
    other.write_text('{"study": "force-field", "runs": []}')
    with pytest.raises(InputError, match="holds no results of the N-body study"):
        markdown_table(other)
    other.write_text("[1, 2]")
    with pytest.raises(InputError, match="holds a list, expected a JSON object; make it with `remul-md study`"):
        markdown_table(other)
    other.write_text(results.read_text().replace("remul-10", "remul-11"))
    with pytest.raises(InputError, match="methods remul-11 are unknown to this version"):
        markdown_table(other)
    with pytest.raises(InputError, match="cannot be written"):
        write_plots(results, results / "plots")


def test_quick_and_paper_exclude_each_other(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["study", "nbody", "--run-dir", str(tmp_path / "run"), "--quick", "--paper"])
    assert isinstance(done.exception, InputError)
    assert "--quick and --paper exclude each other" in str(done.exception)
    assert not (tmp_path / "run").exists()
