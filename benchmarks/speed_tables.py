"""Tables of what networks and potentials cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from measured import measured


def network_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `network_speed.py`; behind each time, that of GATr over it."""
    lines = [
        "| task | network | weights | forward, MFLOP | forward, ms | compiled, ms | step, ms | compiled, ms | MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    gatr = {row["task"]: row for row in rows if row["network"] == "gatr"}

    def cell(row: Mapping[str, Any], kind: str, what: str) -> str:
        if kind == "compiled" and "compile_s" in row and row["compile_s"] is None:
            return f"not in {row['compile_limit_s']:g} s"
        if f"{what}_ms" not in row[kind]:
            return ""
        ms, of_gatr = row[kind][f"{what}_ms"], gatr.get(row["task"])
        return (f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}") + (
            f" ({of_gatr[kind][f'{what}_ms'] / ms:.1f})" if of_gatr else ""
        )

    for row in rows:
        times = [cell(row, kind, what) for what in ("forward", "step") for kind in ("eager", "compiled")]
        name = {"gatr": "GATr", "egnn": "EGNN", "se3": "SE(3)-Transformer"}.get(row["network"], row["network"])
        sizes = [f"{row['parameters']:,}", f"{row['forward_mflops']:.0f}"]
        lines.append("| " + " | ".join([row["task"], name, *sizes, *times, f"{row['step_MiB']:.0f}"]) + " |")
    return "\n".join(lines)


def network_table() -> str:
    """What the networks of the particle tasks cost at the published sizes."""
    return network_rows(measured("network_speed")["rows"])


def on_front(points: Mapping[Any, tuple[float, float]]) -> set[Any]:
    """Which (ms, error) no other is below in both."""
    return {
        key
        for key, (ms, error) in points.items()
        if not any(a <= ms and b <= error and (a, b) != (ms, error) for a, b in points.values())
    }


def potential_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `potential_speed.py`, fastest first; the front in bold."""
    front = on_front({(row["name"], kind): (ms, row["force_mae"]) for row in rows for kind, ms in row["ms"].items()})
    lines = [
        "| potential | forces | trained | force MAE, meV/Å | uncompiled, ms | compiled, ms |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["ms"]["eager"]):
        times = []
        for kind in ("eager", "compiled"):
            text = f"{row['ms'][kind]:.1f}" if kind in row["ms"] else ""
            times.append(f"**{text}**" if (row["name"], kind) in front else text)
        cells = [row["name"], row["forces"], row["trained"], f"{row['force_mae']:.1f}", *times]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def potential_table() -> str:
    """Force error beside milliseconds."""
    return potential_rows(measured("potential_speed")["rows"])


def ensemble_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `ensemble_call.py`."""
    lines = ["| copies | stacked, one call | members in turn | compiled |", "|---|---|---|---|"]
    for row in rows:
        times = [f"{row['median_ms'][way]:.1f}" for way in ("together", "in_turn", "compiled")]
        lines.append("| " + " | ".join([str(row["copies"]), *times]) + " |")
    return "\n".join(lines)


def ensemble_table() -> str:
    """What a call of an ensemble costs."""
    return ensemble_rows(measured("ensemble_call")["rows"])
