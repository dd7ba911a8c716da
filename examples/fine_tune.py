"""Fine-tune a shipped potential on your own frames, and see what that changed.

    python examples/fine_tune.py FRAMES.xyz RUN_DIR [--potential ethanol] [--n-steps 2000]

FRAMES.xyz: extended XYZ in eV and eV/Angstrom, with elements that the potential knows. Energies may have another zero:
a shift is fitted before the training. The learning rate is that of fine-tuning, a sixth of the usual.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from remul_md import InputError, evaluate_potential, load_config, load_potential, read_frames, train_potential


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frames", type=Path)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--potential", default="ethanol", help="a *.pt file or a shipped name")
    parser.add_argument("--n-train", type=int, default=200)
    parser.add_argument("--n-validation", type=int, default=20)
    parser.add_argument("--n-steps", type=int, default=2000)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    overrides = [f"data.source={options.frames}", f"data.n_train={options.n_train}", f"train.n_steps={options.n_steps}"]
    overrides += [f"data.n_validation={options.n_validation}", "train.warmup_steps=50", *options.set]
    try:
        config = load_config(None, overrides=overrides)
        before = load_potential(options.potential)
        after = train_potential(config, run_dir=options.run_dir, init_from=options.potential)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    held_out = read_frames(options.frames).select(after.provenance.data["split"]["validation"])
    for name, potential in (("before", before), ("after", after)):
        errors = evaluate_potential(potential, held_out)
        print(
            f"{name:6} force MAE {errors.force_mae_original:.1f} meV/A original, {errors.force_mae_rotated:.1f} rotated"
        )


if __name__ == "__main__":
    main()
