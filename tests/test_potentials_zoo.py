"""The zoo: every potential in the package with the figures that belong to its very file."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import pytest
import torch
from potentials import molecule_frames, read_test_frames, untrained_potential

import remul_md.potentials.zoo as shipped
from remul_md.datasets import list_datasets
from remul_md.errors import InputError
from remul_md.potentials.potential import load_potential, shipped_potentials
from remul_md.potentials.zoo import describe_shipped, measured_latency_ms
from remul_md.training.config import load_config


def test_every_shipped_potential_has_the_log_of_its_training() -> None:
    for name, path in shipped_potentials().items():
        with path.with_suffix(".metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        metrics = load_potential(name).provenance.runs[0]["metrics"]  # later runs were short ones
        assert [row["step"] for row in rows] == [str(step) for step in range(50, metrics["last_step"] + 1, 50)]
        best = next(row for row in rows if row["step"] == str(metrics["best_step"]))
        assert float(best["validation_force_mae"]) == metrics["validation_force_mae_meV_per_A"]


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo with one untrained potential."""
    untrained_potential(molecule_frames(), trained_forces="direct").save(tmp_path / "own.pt")
    monkeypatch.setattr(shipped, "shipped_potentials", lambda: {"own": tmp_path / "own.pt"})
    return tmp_path


def test_every_shipped_potential_has_its_figures() -> None:
    rows = describe_shipped(measure_latency=False)
    assert [row.name for row in rows] == list(shipped_potentials())
    assert "ethanol" in [row.name for row in rows]
    for row in rows:
        if row.field_V_per_A is None:
            assert row.tested_on == f"rmd17/{row.name}/test-01"
            assert row.data == f"rmd17/{row.name}/train-01"
            assert row.group == "O3"
            assert row.heads == "both"
        else:  # rotated about the field, whose labels the test frames beside it have
            assert read_test_frames(row.name).distinct_fields == [row.field_V_per_A]
            assert row.group.startswith("SO3 about (")
            assert load_potential(row.name).provenance.axis is not None
        assert row.force_mae_original is not None
        assert row.force_mae_rotated is not None
        assert row.rotational_spread is not None
        assert 0 < row.rotational_spread < row.force_mae_original
        assert row.training_minutes > 1
        assert row.megabytes < 5
        assert row.latency_ms is None
        assert not {"/", "\\"} & set(json.loads(file_of(row.name).read_text())["potential"]), "a path of one machine"
    assert next(row for row in rows if row.name == "ethanol").molecule == "C2H6O"
    assert [row.name for row in rows if row.field_V_per_A is not None] == ["ethanol-field"]


def file_of(name: str) -> Path:
    return shipped_potentials()[name].with_suffix(".json")


def test_figures_of_another_file_are_not_shown(zoo: Path, caplog: pytest.LogCaptureFixture) -> None:
    figures = {"force_mae_original": 4.5, "force_mae_rotated": 5.5, "rotational_spread": 0.25, "data": "own/test"}
    with caplog.at_level(logging.WARNING):
        (bare,) = describe_shipped(measure_latency=False)
    assert "own.pt: no test figures beside it; `remul-md evaluate own TEST --json own.json` makes them" in caplog.text
    own = {**figures, "potential_sha256": load_potential(zoo / "own.pt").sha256}
    (zoo / "own.json").write_text(json.dumps(own))
    (known,) = describe_shipped(measure_latency=False)
    (zoo / "own.json").write_text(json.dumps({**figures, "potential_sha256": "0" * 64}))
    with caplog.at_level(logging.WARNING):
        (stale,) = describe_shipped(measure_latency=False)
    assert "own.json: are figures of another file than own.pt and not shown" in caplog.text
    assert (known.force_mae_original, known.force_mae_rotated, known.rotational_spread) == (4.5, 5.5, 0.25)
    assert known.tested_on == "own/test"
    assert bare.force_mae_original is stale.force_mae_original is None
    assert known.heads == "direct"
    assert known.molecule == "C2H3O2, CH3O"
    (zoo / "own.json").write_text("[1, 2")
    with pytest.raises(InputError, match=r"own\.json: .* `remul-md evaluate own TEST"):
        describe_shipped(measure_latency=False)


def test_both_heads_of_a_potential_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of the direct head stand in a file of their own and are never taken for the others."""
    untrained_potential(molecule_frames(), trained_forces="both").save(tmp_path / "own.pt")
    monkeypatch.setattr(shipped, "shipped_potentials", lambda: {"own": tmp_path / "own.pt"})
    sha256 = load_potential(tmp_path / "own.pt").sha256
    figures = {"force_mae_original": 4.5, "force_mae_rotated": 5.5, "data": "own/test", "potential_sha256": sha256}
    direct = {**figures, "force_mae_original": 7.5, "force_mae_rotated": 8.5, "forces": "direct"}
    (tmp_path / "own.json").write_text(json.dumps({**figures, "forces": "conservative"}))
    with caplog.at_level(logging.WARNING):
        (bare,) = describe_shipped(measure_latency=False)
    assert bare.force_mae_direct is bare.latency_direct_ms is None
    hint = "`remul-md evaluate own TEST --forces direct --json own.direct.json` makes them"
    assert f"own.pt: no test figures of its direct forces beside it; {hint}" in caplog.text
    (tmp_path / "own.direct.json").write_text(json.dumps(direct))
    (row,) = describe_shipped()
    assert (row.force_mae_rotated, row.force_mae_direct) == (5.5, 8.5)
    assert row.latency_ms is not None
    assert row.latency_direct_ms is not None
    # So small a network is all overhead: which of the two is faster is for a test of real ones to say.
    assert row.latency_ms > 0
    assert row.latency_direct_ms > 0
    (tmp_path / "own.json").write_text(json.dumps(direct))
    with caplog.at_level(logging.WARNING):
        (mixed,) = describe_shipped(measure_latency=False)
    assert mixed.force_mae_rotated is None
    assert "own.json: are figures of direct forces and not shown" in caplog.text


def test_every_packaged_molecule_can_be_retrained() -> None:
    """`make potentials` names the molecules whose frames are in the package, and each has a preset of its own."""
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    listed = next(line for line in makefile.splitlines() if line.startswith("MOLECULE ?= ")).split()[2:]
    packaged = {entry.entry.name.split("/")[1] for entry in list_datasets() if entry.where == "packaged"}
    assert len(packaged) == 7
    assert set(listed) == packaged
    for name in listed:
        assert load_config(name).data.resolved_source == f"rmd17/{name}/train-01"


def test_latency_is_measured(zoo: Path) -> None:
    """A wider and deeper model takes longer, and the figure is of the size of one call."""
    (row,) = describe_shipped()
    assert row.latency_ms is not None
    assert 0.05 < row.latency_ms < 5_000
    torch.set_num_threads(1)
    small = untrained_potential(molecule_frames(), width=8, n_layers=1)
    large = untrained_potential(molecule_frames(), width=64, n_layers=12)
    assert measured_latency_ms(large) > 2.0 * measured_latency_ms(small)
