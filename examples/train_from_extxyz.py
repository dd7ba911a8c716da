"""Train a potential on your own frames from Python, and use it: what `remul-md train` does, in code.

    python examples/train_from_extxyz.py FRAMES.xyz RUN_DIR [--n-steps 12000]

FRAMES.xyz is an extended XYZ file with energies and forces in eV and eV/Angstrom; for other units
`--set data.energy_unit=kcal/mol`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from remul_md import (
    InputError,
    RemulCalculator,
    evaluate_potential,
    load_config,
    read_frames,
    read_structure,
    train_potential,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frames", type=Path)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--n-train", type=int, default=950)
    parser.add_argument("--n-validation", type=int, default=50)
    parser.add_argument("--n-steps", type=int, default=12000)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()

    overrides = [f"data.source={options.frames}", f"data.n_train={options.n_train}", f"train.n_steps={options.n_steps}"]
    overrides += [f"data.n_validation={options.n_validation}", *options.set]
    try:
        config = load_config(None, overrides=overrides)
        potential = train_potential(config, run_dir=options.run_dir)
    except InputError as error:  # everything a user can mend: what is wrong, which value, what to do
        raise SystemExit(f"error: {error}") from None
    held_out = read_frames(options.frames, energy_unit=config.data.energy_unit).select(
        potential.provenance.data["split"]["validation"]
    )
    errors = evaluate_potential(potential, held_out)
    print(
        f"validation force MAE {errors.force_mae_original:.1f} meV/A original, {errors.force_mae_rotated:.1f} rotated"
    )

    atoms = read_structure(options.frames)
    atoms.calc = RemulCalculator(options.run_dir / "potential.pt")
    print(f"energy of the last frame {atoms.get_potential_energy():.3f} eV")


if __name__ == "__main__":
    main()
