"""The tables and the pictures say what the file of results says."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from typer.testing import CliRunner

from remul_md.cli.app import app
from remul_md.errors import InputError
from remul_md.outputs import GENERATOR
from remul_md.studies.figures import write_panels
from remul_md.studies.plots import (
    _best_beta,
    _error_against_beta,
    _error_against_step,
    _learning_by_time,
    _percent_against_step,
    write_plots,
)
from remul_md.studies.report import (
    learned,
    markdown_report,
    mean_and_deviation,
    read_results,
    step_of_percent,
    tables_of,
)
from remul_md.studies.tasks import TASKS

ROOT = Path(__file__).parents[1]
ZERO_ERROR = 16e-3
Course = dict[int, tuple[float, float]]  # step -> percent and error


def a_run(
    method: str, seed: int, *, inside: float, outside: float, course: Course, model: str = "transformer"
) -> dict[str, Any]:
    return {
        "case": "limited",
        "model": model,
        "method": method,
        "seed": seed,
        "n_steps": 100,
        "budgets": ["steps"],
        "best_step": 10,
        "train_seconds": 40.0,
        "figures": {
            "train": 0.5 * inside,
            "in": inside,
            "out": outside,
            "rotated": 0.9 * outside,
            "equivariance_norm": 0.2 * outside**0.5,
            "percent": course[max(course)][0],
        },
        "baselines": {"no motion": ZERO_ERROR, "straight line x + 0.1 v": 5.8e-3},
        "zero_error": ZERO_ERROR,
        "history": [
            {"step": float(step), "percent": percent, "error": error, "equivariance_norm": 0.1}
            for step, (percent, error) in course.items()
        ],
        "learning": [{"step": 5.0, "error": 2 * inside}, {"step": 10.0, "error": inside}],
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    runs = [
        a_run("plain", 0, inside=8e-3, outside=20e-3, course={1: (60, 3e-3), 10: (70, 3e-3), 100: (80, 3e-3)}),
        a_run("plain", 1, inside=10e-3, outside=34e-3, course={1: (61, 3e-3), 10: (71, 3e-3), 100: (81, 3e-3)}),
        # the first row is that of an output near 0, whose percent says nothing
        a_run("remul-0.1", 0, inside=3e-3, outside=6e-3, course={1: (0.1, 16e-3), 10: (1.0, 3e-3), 100: (1.5, 1e-3)}),
        a_run("remul-one-forward", 0, inside=3.3e-3, outside=6e-3, course={1: (60, 3e-3), 100: (1.7, 3e-3)}),
        a_run("remul-10", 0, inside=2e-3, outside=2.9e-3, course={1: (1.9, 3e-3), 10: (3.0, 3e-3), 100: (0.5, 3e-3)}),
        a_run("plain", 0, inside=2e-3, outside=2e-3, course={1: (0.0, 16e-3), 100: (1e-9, 15e-3)}, model="egnn"),
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"study": "nbody", "runs": runs}))
    return path


def cells_of(text: str, begin: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {begin}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_holds_means_deviations_and_what_was_published(results: Path) -> None:
    text = markdown_report(results)
    plain = cells_of(text, "transformer, plain")
    assert plain[1:3] == ["2", "100"]
    assert plain[4:6] == ["9 ± 1.4", "27 ± 9.9"]
    assert plain[9] == "3.00"
    assert plain[10] == "8.99 / 27.06"
    assert plain[11:14] == ["never, never", "60 (1), 61 (1)", "10, 10"]
    assert cells_of(text, "transformer, REMUL, beta = 0.1")[10:13] == ["1.94 / 1.83", "10", "1 (10)"]
    assert cells_of(text, "EGNN, plain")[10:13] == ["", "never", "nothing learned"]
    assert cells_of(text, "no motion")[4:6] == ["16", "16"]
    assert cells_of(text, "GATr (not run)")[10] == "1.49 / 1.41"
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    missing = text.splitlines()[-1]
    assert missing.startswith("Not run: cases haar; models se3, gatr, gnn; methods augmentation,")
    assert "remul-10," not in missing


def test_the_committed_results_name_nothing_private() -> None:
    found = [json.loads(path.read_text()) for path in (ROOT / "results").glob("*.json")]
    studies = [content for content in found if content.get("study") in TASKS]
    assert len(studies) >= 7
    for content in studies:
        assert " /" not in content["command"]
        assert content["command"].startswith(f"remul-md study {content['study']} ")
        assert set(content["machine"]) == {"system", "architecture", "cores", "jobs", "cuda"}
        assert len(content["versions"]["commit"]) == 40


def test_large_numbers_are_written_out() -> None:
    assert mean_and_deviation([1370.4]) == "1370"
    assert mean_and_deviation([1000.0, 4000.0]) == "2500 ± 2121"
    assert mean_and_deviation([0.01234]) == "0.0123"


def test_a_percent_that_rises_again_has_not_been_reached(results: Path) -> None:
    task, content = read_results(results)
    ((_, _, found),) = tables_of(task, content)
    steps = {(group.model, group.method): [step_of_percent(run) for run in group.runs] for group in found}
    assert steps["transformer", "plain"] == [None, None]
    assert steps["transformer", "remul-0.1"] == [10]  # at step 1 nothing was learned
    assert steps["transformer", "remul-10"] == [100]  # 1.9 at step 1 was an accident
    assert steps["egnn", "plain"] == [None]
    betas = {(group.model, group.method): group.beta for group in found}
    assert betas["transformer", "remul-0.1"] == 0.1
    assert betas["transformer", "remul-one-forward"] is None  # not a point of the sweep
    assert [row["step"] for row in learned(found[1].runs[0])] == [10, 100]
    errors = {row["step"]: row["error"] for row in found[1].runs[0]["history"]}
    known = {**found[1].runs[0], "baselines": {"a cloud": errors[100]}}
    assert errors[100] < errors[10]
    assert [row["step"] for row in learned(known, below="a cloud")] == [100]
    assert step_of_percent({**known, "baselines": {"a cloud": 0.0}}, below="a cloud") is None


def test_the_best_beta_is_where_a_curve_is_1(results: Path) -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    task, content = read_results(results)
    _best_beta(axes, [found for _, _, found in tables_of(task, content)])
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == [0.1, 10.0]
    assert list(line.get_ydata()) == pytest.approx([1.5, 1.0])


def test_a_curve_of_betas_compares_the_same_seeds(results: Path) -> None:
    """A seed may decide the data: one that only some methods have would bend the curve."""
    from matplotlib.figure import Figure

    task, content = read_results(results)
    more = a_run("remul-10", 7, inside=1e-5, outside=1e-5, course={10: (50.0, 4e-3)})
    drawn = []
    for runs in (content["runs"], [*content["runs"], more]):
        axes, other = (Figure().add_subplot() for _ in range(2))
        found = [found for _, _, found in tables_of(task, {**content, "runs": runs})]
        _best_beta(axes, found)
        _error_against_beta(other, found[0])
        lines = [line.get_ydata() for line in (*axes.get_lines(), *other.get_lines())]
        drawn.append([[float(value) for value in line] for line in lines])
        assert other.get_title(loc="left").endswith("; seed 0")
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) > 5


def test_curves_without_a_percent_are_named_for_the_panel_of_errors(results: Path) -> None:
    """An exact network, one that learned nothing, and a method whose first seed learned nothing."""
    from matplotlib.figure import Figure

    task, content = read_results(results)
    never, at_last = {1: (9.0, 16e-3), 10: (9.0, 15e-3)}, {1: (9.0, 16e-3), 10: (8.0, 3e-3)}
    more = [a_run("remul-100", 0, inside=1e-2, outside=2e-2, course=never)]
    more += [
        a_run("augmentation", seed, inside=1e-2, outside=2e-2, course=course)
        for seed, course in enumerate((never, at_last))
    ]
    _, _, found = tables_of(task, {**content, "runs": [*content["runs"], *more]})[0]
    axes, errors = (Figure().add_subplot() for _ in range(2))
    _percent_against_step(axes, found)
    _error_against_step(errors, found)
    handles, names = axes.get_legend_handles_labels()
    assert sorted(names) == sorted([*(group.label for group in found), "2 %"])
    colours = {line.get_color() for line in errors.get_lines()[: sum(len(group.runs) for group in found)]}
    assert colours <= {handle.get_color() for handle in handles}
    assert any(len(handle.get_xdata()) == 0 for handle in handles)


def test_learning_curves_stand_against_computing_time_where_it_was_measured(results: Path) -> None:
    from matplotlib.figure import Figure

    costs = {"transformer, one orientation": 0.5, "transformer, two orientations": 0.8, "egnn, one orientation": 3.0}
    task, content = read_results(results)
    _, _, found = tables_of(task, {**content, "seconds_a_step": {"limited": costs}})[0]
    axes = Figure().add_subplot()
    _learning_by_time(axes, found)
    drawn = {tuple(line.get_xdata()) for line in axes.get_lines()}
    assert drawn == {(2.5, 5.0), (4.0, 8.0), (15.0, 30.0)}


def test_names_that_crowd_several_panels_stand_once_below_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("remul_md.studies.figures.save_picture", lambda figure, path, dpi: drawn.append(figure))

    def lines(axes: Any, *, n: int) -> None:
        for number in range(n):
            axes.plot([1, 2], [number, 1], label=f"name {number}")

    write_panels(tmp_path, {"few": partial(lines, n=8), "many": [partial(lines, n=n) for n in (9, 11, 3)]})
    few, many = drawn
    assert [len(each.get_texts()) for each in few.legends] == []
    assert len(few.axes[0].get_legend().get_texts()) == 8
    assert [len(each.get_texts()) for each in many.legends] == [11]
    assert [axes.get_legend() is None for axes in many.axes] == [True, True, False]
    assert many.get_figheight() > few.get_figheight()


@pytest.mark.slow
def test_the_command_makes_table_and_plots(results: Path, tmp_path: Path) -> None:
    table, plots = tmp_path / "new" / "table.md", tmp_path / "plots"
    done = CliRunner().invoke(app, ["study", "report", str(results), "--markdown", str(table), "--plots", str(plots)])
    assert done.exit_code == 0, done.output
    assert table.read_text() == f"<!-- generator: {GENERATOR} -->\n{markdown_report(results)}\n"
    assert markdown_report(results) in done.output
    assert {path.stem.removeprefix("nbody_limited_") for path in plots.glob("*.png")} == {
        *("error_against_beta", "percent_against_step", "error_against_symmetry", "learning")
    }
    for path in plots.glob("*.png"):
        pixels = (matplotlib.image.imread(path)[..., :3] * 255).round()
        assert (pixels == (35, 40, 45)).all(-1).any()  # the first colour is drawn


@pytest.mark.slow
def test_several_studies_give_one_figure_of_their_betas(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remul_md.studies.figures.DPI", 40)  # nobody looks at them
    other = tmp_path / "other.json"
    other.write_text(results.read_text().replace('"case": "limited"', '"case": "haar"'))
    done = CliRunner().invoke(app, ["study", "report", str(results), str(other), "--plots", str(tmp_path / "plots")])
    assert done.exit_code == 0, done.output
    assert "trained within 10 degrees" in done.output
    assert "trained in all orientations" in done.output
    written = {path.name for path in (tmp_path / "plots").glob("*.png")}
    assert "error_against_beta_by_task.png" in written
    assert len(written) == 9


def test_the_commands_list_and_refuse(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["study", "list"])
    assert done.exit_code == 0, done.output
    assert "nbody: four bodies under gravity" in done.output
    for arguments, message in (
        (["nbdy"], "task 'nbdy' is unknown; did you mean nbody"),
        (["nbody", "--methods", "plan"], "did you mean plain"),
        (["nbody", "--models", "egn"], "did you mean egnn"),
        (["nbody", "--size", "papr"], "did you mean paper"),
        (["nbody", "--seeds", "0,one"], "--seeds takes whole numbers"),
    ):
        done = CliRunner().invoke(app, ["study", *arguments, "--run-dir", str(tmp_path / "run")])
        assert isinstance(done.exception, InputError), done.output
        assert message in str(done.exception)
    assert not (tmp_path / "run").exists()


def test_what_is_no_result_is_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read as JSON"):
        markdown_report(tmp_path / "none.json")
    other = tmp_path / "other.json"
    other.write_text('{"study": "bodies", "runs": []}')
    with pytest.raises(InputError, match="holds no results of a study"):
        markdown_report(other)
    other.write_text('{"study": "nbody", "runs": [{"method": "plain", "id_mse": 0.1}]}')
    with pytest.raises(InputError, match="holds no finished runs of this version"):
        markdown_report(other)
    other.write_text("[1, 2]")
    with pytest.raises(InputError, match="holds a list, expected a JSON object; make it with `remul-md study`"):
        markdown_report(other)
    other.write_text(results.read_text().replace("remul-10", "remul-11"))
    with pytest.raises(InputError, match="methods remul-11 are unknown to this version"):
        markdown_report(other)
    with pytest.raises(InputError, match="cannot be written"):
        write_plots(results, results / "plots")
