"""Tables of the potentials that ship: errors, dynamics, what lies beyond their data."""

from __future__ import annotations

import bond_curves
import difference_labels
import torsion_profiles
from measured import described, figures_of, measured


def in_a_field() -> list[str]:
    """Rows of the potentials that ship and were taught in an electric field."""
    lines = []
    for row in (row for row in described() if row.field_V_per_A is not None):
        figures = figures_of(row)
        lines.append(
            f"| {row.name} | {' '.join(f'{part:g}' for part in row.field_V_per_A or ())} | {row.group} "
            f"| {figures['force_mae_original']:.1f} / {figures['force_mae_rotated']:.1f} "
            f"| {figures['force_rmse_rotated']:.0f} | {figures['force_mae_exact']:.0f} "
            f"| {figures['direction_load']:.1f} | {figures['energy_mae_rotated']:.1f} "
            f"| {row.rotational_spread:.2f} | {row.training_minutes:.0f} | {row.megabytes:.1f} |"
        )
    return lines


def zoo() -> list[str]:
    """Rows of the other potentials that ship, from the files and the figures beside them."""
    lines = []
    for row in (row for row in described() if row.field_V_per_A is None):
        figures = figures_of(row)
        far = figures.get("far_from_training")
        direct = "none yet" if row.force_mae_direct is None else format(row.force_mae_direct, ".2g")
        lines.append(
            f"| {row.name} | {row.force_mae_original:.2g} / {row.force_mae_rotated:.2g} "
            f"| {'not told' if far is None else format(far['force_mae_original'], '.2g')} "
            f"| {figures['force_rmse_rotated']:.2g} | {figures['force_error_p99']:.0f} "
            f"| {figures['force_error_max']:.0f} | {figures['force_mae_exact']:.2g} | {figures['direction_load']:.3f} "
            f"| {figures['energy_mae_rotated']:.2f} | {row.rotational_spread:.2f} "
            f"| {figures['equivariance_percent_median']:.2g} | {direct} | {row.training_minutes:.0f} "
            f"| {row.megabytes:.1f} |"
        )
    return lines


def readme_table() -> str:
    """All that README has of the potentials that ship."""
    run, demo = measured("ethanol_nve"), measured("demo_evaluation")
    speed, gradient, machine = measured("calculator_overhead"), measured("gradient_check"), measured("machine")
    drift_low, drift_high = run["drift_ci95"]
    long_run, long_aspirin = measured("ethanol_nve_100ps"), measured("aspirin_nve_100ps")
    long_low, long_high = long_run["drift_ci95"]
    aspirin_low, aspirin_high = long_aspirin["drift_ci95"]
    rows = [
        ("drift, steps of 0.5 fs", f"[{drift_low:+.4f}, {drift_high:+.4f}] meV/atom/ps", "nve"),
        (
            "drift, 100 ps NVE at 300 K, 0.5 fs",
            f"[{long_low:+.4f}, {long_high:+.4f}] meV/atom/ps (twice that is judged: slow noise is not resolved), at "
            f"{long_run['temperature_K']:.0f} K; angular momentum changes by {long_run['angular_momentum_change']:.1%}",
            "long",
        ),
        (
            "... of aspirin, before its stretched bonds",
            f"[{aspirin_low:+.5f}, {aspirin_high:+.5f}] meV/atom/ps, at {long_aspirin['temperature_K']:.0f} K; "
            f"angular momentum changes by {long_aspirin['angular_momentum_change']:.1%}",
            "aspirin",
        ),
        ("mean temperature, 300 K asked", "{temperature_K:.0f} K", "nve"),
        ("rotational error along the run", "{rotational_error:.2f} meV/Å", "nve"),
        ("angular momentum, largest change", "{angular_momentum_change:.1%}", "nve"),
        ("... in exact mode: rotational error", "{rotational_error:.4f} meV/Å", "exact"),
        ("... angular momentum, largest change", "{angular_momentum_change:.1e}", "exact"),
        (
            "... drift",
            "[{drift_ci95[0]:+.4f}, {drift_ci95[1]:+.4f}] meV/atom/ps",
            "exact",
        ),
        (
            "true force MAE along its own dynamics, 300 / 500 K",
            "{cool:.1f} / {hot:.1f} meV/Å (PBE, 100 frames)",
            "truth",
        ),
        ("harmonic wavenumbers, mean difference from PBE", "{modes:.1f} 1/cm", "truth"),
        ("forces against central differences, float64", "{ratio:.0e} of the RMS force", "gradient"),
        ("calculator call, 1 thread, float32", "{median_ms[calculator]:.1f} ms", "overhead"),
        ("... compiled (`compile=True`)", "{median_ms[compiled]:.1f} ms", "overhead"),
        ("... not compiled, over bare model + neighbour list", "{ratio:.2f} x", "overhead"),
        (
            "another potential, that of `make demo`: force MAE, original / rotated",
            "{force_mae_original:.1f} / {force_mae_rotated:.1f} meV/Å",
            "demo",
        ),
    ]
    truth = measured("independent_truth")
    truth_values = {
        "cool": truth["potential"]["300 K"]["force_mae"],
        "hot": truth["potential"]["500 K"]["force_mae"],
        "modes": truth["vibrations"]["mean_absolute_difference_per_cm"],
    }
    values = {
        "truth": truth_values,
        "nve": run,
        "exact": measured("ethanol_nve_exact"),
        "long": {},
        "aspirin": {},
        "gradient": gradient,
        "overhead": speed,
        "demo": demo,
    }
    commands = {
        "truth": "`python benchmarks/independent_truth.py`: [docs/independent-truth.md](docs/independent-truth.md)",
        "long": "the same with `--length-ps 100 --frame-interval-fs 20 --compile` (9 minutes, 350 steps/s)",
        "aspirin": "the same for `aspirin` (53 steps/s beside three other jobs)",
        "nve": "`remul-md md ethanol --structure ethanol --output run.traj`, "
        "`remul-md analyze run.traj --potential ethanol`",
        "exact": "the same with `md ... --symmetry exact`",
        "gradient": "`python benchmarks/gradient_check.py`",
        "overhead": "`python benchmarks/calculator_overhead.py`",
        "demo": f"`make demo` ({machine['demo']})",
    }
    lines = [
        "Seven potentials of isolated molecules, each trained on 950 + 50 frames of rMD17 (split 01), on the 1,000 of",
        f"test split 01. Machine: {machine['machine']}, torch {machine['torch']}. `remul-md potentials` lists them,",
        "`remul-md evaluate NAME rmd17/NAME/test-01` measures them, `make potentials MOLECULE=NAME` trains one",
        "by today's recipe; how these were made: [data/potentials](data/potentials/README.md).",
        "",
        "| potential | force MAE, original / rotated, meV/Å | ... original, without near copies of training frames "
        "| RMSE, rotated | error vector of an atom, 99th percentile | ... the worst | MAE in exact mode "
        "| direction load | energy MAE, meV | rotational spread, meV/Å | equivariance percent, median frame "
        "| direct forces: MAE, rotated | training, min | MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *zoo(),
        "",
        "In an electric field, on test frames that are packaged with the potential; errors are taken about the field.",
        "",
        "| potential | field, V/Å | trained rotations | force MAE, as it stands / rotated, meV/Å | RMSE, rotated "
        "| MAE with raw directions cut | direction load | energy MAE, meV | rotational spread, meV/Å | training, min "
        "| MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *in_a_field(),
        "",
        "Dynamics and speed of the shipped ethanol potential, 5 ps of NVE at 300 K where no other length is given.",
        "Runs of 100 ps, PBE labels and differences are from before its raw directions were trained on by",
        "consistency; all other weights are the same.",
        "",
        "| what | measured | command |",
        "|---|---|---|",
        *(f"| {what} | {text.format(**values[by])} | {commands[by]} |" for what, text, by in rows),
    ]
    return "\n".join(lines)


def beyond_table() -> str:
    """Ethanol where no training frame is, from `benchmarks/beyond_the_data.py`."""
    result = measured("beyond_the_data")
    lines = [
        "| potential | O-H pulled off: largest error to 3 Å, eV | deepest fall on the way out, eV | RMSE to 6.6 Å, eV "
        "| mode 874, RMSE, eV | mode 3005, RMSE, eV |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["figures"].items():
        values = (
            row["H_removal_largest_error_to_3_A_eV"],
            row["H_removal_deepest_fall_to_3_A_eV"],
            row["H_removal_rmse_eV"],
            row["norm_mode_874_rmse_eV"],
            row["norm_mode_3005_rmse_eV"],
        )
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return "\n".join(lines)


def differences_table() -> str:
    """Cheap labels of stretched bonds beside PBE, from `benchmarks/difference_labels.py`."""
    return difference_labels.table(measured("difference_labels"))


def bonds_table() -> str:
    """Energies along all bonds, from `benchmarks/bond_curves.py`."""
    return bond_curves.table(measured("bond_curves"))


def torsions_table() -> str:
    """Energies round rotatable bonds, from `benchmarks/torsion_profiles.py`."""
    return torsion_profiles.table(measured("torsion_profiles")["molecules"])


def stability_table() -> str:
    """Breaks in hot runs, from `benchmarks/stability.py`."""
    lines = ["| potential | runs | breaks | per nanosecond, 95 % | gap of h(r), mean |", "|---|---|---|---|---|"]
    for name, row in measured("stability")["molecules"].items():
        copies = row["copies"]
        low, high = row["breaks_per_ns_ci95"]
        rate = f"under {high:.2g}" if row["n_breaks"] == 0 else f"{low:.0f} to {high:.0f}"
        gap = sum(copy["pair_distance_gap"] for copy in copies) / len(copies)
        watched = f"{len(copies)}, {1000 * row['nanoseconds']:.0f} ps in all"
        lines.append(f"| {name} | {watched} | {row['n_breaks']} | {rate} | {gap:.2f} |")
    return "\n".join(lines)
