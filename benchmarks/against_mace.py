"""What a call costs beside MACE of the size that was published for rMD17; energy and forces through ASE, one thread.

MACE is not trained here: time does not depend on what the weights are. Published errors of that size (meV/Å): ethanol
2.1, aspirin 6.6 (Batatia et al. 2022, arXiv:2206.07697).

In an environment of its own, since it pins an old e3nn:

    python3 -m venv mace && mace/bin/pip install torch==2.13.0 mace-torch==0.3.16 && mace/bin/pip install .
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 mace/bin/python benchmarks/against_mace.py [--molecules ethanol aspirin]
        [--calls 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from script import run_script

from remul_md import RemulCalculator
from remul_md.datasets.structure_source import read_structure

CHANNELS, N_LAYERS, CUTOFF = "256x0e + 256x1o + 256x2e", 2, 5.0
N_WARM = 3


def untrained_mace(numbers: list[int], *, channels: str = CHANNELS, dtype: str = "float32", seed: int = 0) -> Any:
    """MACE with two layers and correlation 3; by default the published size, 256 channels and messages of degree 2."""
    from e3nn import o3
    from mace import modules
    from mace.calculators import MACECalculator

    torch.manual_seed(seed)
    blocks = modules.interaction_classes
    model = modules.ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls_first=blocks["RealAgnosticInteractionBlock"],
        interaction_cls=blocks["RealAgnosticResidualInteractionBlock"],
        num_interactions=N_LAYERS,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps(channels),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=8.0,
        atomic_numbers=numbers,
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    ).to(getattr(torch, dtype))
    return MACECalculator(models=[model], device="cpu", default_dtype=dtype)


def cpu_ms(atoms: Atoms, calculators: dict[str, Any], *, n_calls: int) -> dict[str, float]:
    """Median computing time of a call at new positions, ms; the calculators take turns."""
    copies = {name: atoms.copy() for name in calculators}
    for name, copy in copies.items():
        copy.calc = calculators[name]
    generator, times = np.random.default_rng(0), {name: [] for name in calculators}
    for call in range(N_WARM + n_calls):
        positions = atoms.positions + generator.normal(scale=0.01, size=atoms.positions.shape)
        for name, copy in copies.items():
            copy.positions[:] = positions
            began = time.process_time()
            copy.get_forces()
            if call >= N_WARM:
                times[name].append(1000.0 * (time.process_time() - began))
    return {name: float(np.median(values)) for name, values in times.items()}


def run(options: argparse.Namespace, _: list[str]) -> None:
    """Time of a call for each molecule; a table."""
    rows = []
    print("| molecule | MACE, ms | ours, ms | ours compiled, ms | MACE / ours | MACE / compiled |")
    print("|---|---|---|---|---|---|")
    for molecule in options.molecules:
        atoms = read_structure(molecule)
        calculators = {
            "mace": untrained_mace(sorted({int(number) for number in atoms.numbers})),
            "ours": RemulCalculator(molecule, device="cpu"),
            "compiled": RemulCalculator(molecule, device="cpu", compile=True),
        }
        ms = cpu_ms(atoms, calculators, n_calls=options.calls)
        rows.append({"molecule": molecule, "cpu_ms": ms})
        ratios = [ms["mace"] / ms[name] for name in ("ours", "compiled")]
        print(
            f"| {molecule} | {ms['mace']:.0f} | {ms['ours']:.1f} | {ms['compiled']:.1f} "
            f"| {ratios[0]:.0f} | {ratios[1]:.0f} |",
            flush=True,
        )
    if options.json:
        molecules = " ".join(options.molecules)
        facts = {
            "command": f"python benchmarks/against_mace.py --molecules {molecules} --calls {options.calls}",
            "channels": CHANNELS,
            "dtype": "float32",
            "threads": 1,
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "mace-torch", "remul-md")},
        }
        options.json.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", nargs="+", default=["ethanol", "aspirin"])
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--json", type=Path)
    run_script(parser, run)


if __name__ == "__main__":
    main()
