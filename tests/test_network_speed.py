"""The benchmark of the networks at small sizes: operations against torch's own count, and what is written."""

from __future__ import annotations

import json
import re
import time
import types
from pathlib import Path

import network_speed
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from remul_md.studies.lab import study_options
from remul_md.studies.particles import Tokens
from remul_md.studies.tasks import find_task

SMALL = ["width=24", "n_layers=2", "n_heads=4", "gatr_channels=4", "gatr_scalars=12", "gatr_layers=2", "egnn_width=10"]
SMALL += ["egnn_layers=3", "se3_channels=5", "se3_layers=2"]


@pytest.mark.parametrize("name", ["transformer", "gatr", "egnn", "se3"])
def test_operations_are_those_that_torch_counts(name: str) -> None:
    options = study_options(find_task("mocap"), overrides=SMALL)
    tokens = Tokens(
        scalars=torch.rand(3, 7, 5),
        positions=torch.randn(3, 7, 3),
        velocities=torch.randn(3, 7, 3),
        pairs=torch.rand(3, 7, 7, 2),
        targets=torch.randn(3, 7, 3),
    )
    model = options.model(name, tokens, seed=0)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(tokens)
    assert network_speed.forward_flops(model, tokens) == pytest.approx(counter.get_total_flops(), rel=1e-9)


def test_a_small_run_writes_a_row_for_each_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "speed.json"
    path.write_text(json.dumps({"rows": [{"task": "nbody"}, {"task": "charged", "network": "kept"}]}))
    line = ["network_speed", "--tasks", "nbody", "--networks", "transformer", "gatr", "--set", *SMALL, "batch_size=6"]
    monkeypatch.setattr("sys.argv", [*line, "--rounds", "1", "--no-compile", "--json", str(path)])
    network_speed.main()
    content = json.loads(path.read_text())
    rows = content["rows"]
    assert [row["network"] for row in rows] == ["kept", "transformer", "gatr", "transformer, REMUL"]
    assert all(str(tmp_path) not in row["command"] for row in rows[1:])
    for row in rows[1:]:
        assert row["batch"] == [6, 4]
        assert 0 < row["eager"]["forward_ms"] < row["eager"]["step_ms"]
        assert row["step_MiB"] > 0
        assert row["compiled"] == {}
    assert rows[1]["parameters"] == rows[3]["parameters"]
    cells = [cell.strip() for cell in network_speed.network_rows(rows[1:]).splitlines()[2].strip("|").split("|")]
    ratio = rows[2]["eager"]["forward_ms"] / rows[1]["eager"]["forward_ms"]
    assert re.search(r"\((.*)\)", cells[4])[1] == f"{ratio:.1f}"  # type: ignore[index]


def test_a_compilation_that_takes_too_long_is_given_up_and_told() -> None:
    """Nothing of torch: what is called never returns, and swallows every `Exception`."""

    class Endless:
        def forward(self) -> None:
            while True:
                try:
                    time.sleep(0.01)
                except Exception:
                    continue

    began = time.monotonic()
    assert network_speed.compile_seconds(Endless(), limit_s=0.2) is None
    assert time.monotonic() - began < 5.0
    quick = types.SimpleNamespace(forward=lambda: None, step=lambda: None)
    assert set(network_speed.compile_seconds(quick, limit_s=5.0)) == {"forward", "step"}
    row = {"task": "nbody", "network": "gatr", "parameters": 7, "forward_mflops": 5.0, "step_MiB": 3.0}
    row |= {"eager": {"forward_ms": 11.0, "step_ms": 13.0}, "compiled": {}, "compile_s": None, "compile_limit_s": 600.0}
    assert network_speed.network_rows([row]).count("not in 600 s") == 2
