"""Tables of what the checks find: drifts and audits."""

from __future__ import annotations

from measured import measured

from remul_md.analysis.audit.limits import NAMES


def drift_noise_table() -> str:
    """Coverage and wrong verdicts on simulated noise."""
    found = measured("drift_coverage")
    looks = {row["noise"]: row for row in found["sequential"]}
    lines = [
        "| noise | interval covers | *conserves*, drift just beyond the bound / twice it | *drifts*, just within / "
        "none | mean of 2 / 5 runs covers | four looks: *conserves* / *drifts*, corrected |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["simulated"]:
        look = looks[row["noise"]]
        lines.append(
            f"| {row['noise']} | {100 * row['coverage']:.1f} % "
            f"| {100 * row['false_conserves_at_bound']:.1f} / {100 * row['false_conserves_at_twice']:.1f} % "
            f"| {100 * row['false_drifts_at_bound']:.1f} / {100 * row['false_drifts_without']:.1f} % "
            f"| {100 * row['coverage_mean_of_2']:.0f} / {100 * row['coverage_mean_of_5']:.0f} % "
            f"| {100 * look['conserves_corrected']:.1f} / {100 * look['drifts_corrected']:.1f} % |"
        )
    return "\n".join(lines)


def drift_real_table() -> str:
    """Verdicts on windows of real runs."""
    lines = [
        "| run | judged | windows | RMS slope | median half width | *conserves* / *drifts* / undecided | "
        "... with twice the bound added |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured("drift_coverage")["real"]:
        n = row["n_windows"]
        plain, planted = (
            f"{row[f'{kind}conserves']} / {row[f'{kind}drifts']} / {n - row[f'{kind}conserves'] - row[f'{kind}drifts']}"
            for kind in ("", "planted_")
        )
        lines.append(
            f"| {row['system']}, {row['length_ps']:.2g} ps | {row['judged']} | {n} | {row['rms_slope']:.1g} "
            f"| {row['median_half_width']:.1g} | {plain} | {planted} |"
        )
    return "\n".join(lines)


def audit_faults_table() -> str:
    """From what size on each check of an audit finds each planted fault."""
    found = measured("audit_faults")
    lines = ["| fault | at | sizes tried | found by | not found by any check |", "|---|---|---|---|---|"]
    for row in found["rows"]:
        sizes = list(row["found_by"])
        checks: dict[str, str] = {}
        for name in NAMES:
            n_found = 0  # from the largest size downwards
            while n_found < len(sizes) and name in row["found_by"][sizes[-1 - n_found]]:
                n_found += 1
            if n_found:
                checks[name] = sizes[-n_found]
        by_size = sorted(checks.items(), key=lambda entry: float(entry[1]))
        missed = [size for size in sizes if not row["found_by"][size]]
        lines.append(
            f"| {row['fault']} | {row['where']} | {', '.join(sizes)} {row['unit']} | "
            + ("; ".join(f"`{name}` from {size}" for name, size in by_size) or "none")
            + f" | {', '.join(missed) or 'none'} |"
        )
    return "\n".join(lines)


def audit_honest_table() -> str:
    """Audits of calculators that plant nothing."""
    found = measured("audit_honest")
    lines = [
        "| calculator | audits | failed | may rightly fail | false alarms |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        failed = ", ".join(f"`{name}` {n}" for name, n in row["failed"].items()) or "none"
        rightly = ", ".join(f"`{name}`" for name in row["rightly"])
        reason = f"{rightly}: {row['reason']}" if rightly else "nothing"
        lines.append(f"| {row['kind']} | {row['runs']} | {failed} | {reason} | {len(row['false_alarms'])} |")
    lines += [f"| {name} | 0 | not run: {reason} | | |" for name, reason in found["not_run"].items()]
    n_runs = sum(row["runs"] for row in found["rows"])
    n_alarms = sum(len(row["false_alarms"]) for row in found["rows"])
    lines.append(f"| **all** | {n_runs} | | | **{n_alarms}** |")
    return "\n".join(lines)
