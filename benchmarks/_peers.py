"""Milliseconds per step of dynamics with untrained models of other packages; run by `pareto.py` in their environment.

    python benchmarks/_peers.py start.xyz

The packages are schnetpack, mace-torch, torchani and tblite. Printed is a line of JSON for each model. The sizes are

- those of SchNetPack's `configs/model/representation/schnet.yaml`, `painn.yaml` and `radial_basis/gaussian.yaml`, with
  the cutoff of its `configs/experiment/rmd17.yaml`;
- for MACE on rMD17, those of the README that came with arXiv:2206.07697, whose command has
  `--hidden_irreps='256x0e + 256x1o + 256x2e'`;
- for MACE-OFF small, those that DeePMD-GNN reads from the published file (`tests/test_mace_off.py`);
- for ANI-2x, those of `torchani.models.ANI2x`.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
import typing

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # SchNetPack 2.1.1 saves whole models

import numpy as np
import torch
import torch.utils.data.dataloader
from ase import units
from ase.io import read
from ase.md.verlet import VelocityVerlet

torch.utils.data.dataloader.T_co = typing.TypeVar("T_co")  # SchNetPack 2.1.1 imports it; later PyTorch has it no more
TURN_S, ROUNDS = 1.0, 5
OFF = [1, 6, 7, 8, 9, 15, 16, 17, 35, 53]  # elements of MACE-OFF


def schnetpack(kind, interactions):
    import schnetpack as spk
    from schnetpack.interfaces import AtomsConverter, SpkCalculator
    from schnetpack.transform import MatScipyNeighborList

    representation = getattr(spk.representation, kind)(
        n_atom_basis=128,
        n_interactions=interactions,
        radial_basis=spk.nn.GaussianRBF(20, 5.0),
        cutoff_fn=spk.nn.CosineCutoff(5.0),
    )
    model = spk.model.NeuralNetworkPotential(
        representation,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[spk.atomistic.Atomwise(n_in=128, output_key="energy"), spk.atomistic.Forces()],
    )
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model")
        torch.save(model, file)
        options = {"energy_unit": "eV", "position_unit": "Ang", "device": "cpu", "dtype": torch.float32}
        return SpkCalculator(file, converter=AtomsConverter, neighbor_list=MatScipyNeighborList(5.0), **options)


def mace(irreps, cutoff, elements):
    from e3nn import o3
    from mace import modules
    from mace.calculators import MACECalculator

    blocks = modules.interaction_classes
    model = modules.ScaleShiftMACE(
        r_max=cutoff,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=blocks["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=blocks["RealAgnosticResidualInteractionBlock"],
        num_interactions=2,
        num_elements=len(elements),
        hidden_irreps=o3.Irreps(irreps),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(elements)),
        avg_num_neighbors=8.0,
        atomic_numbers=elements,
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    return MACECalculator(models=[model], device="cpu", default_dtype="float32")


def ani2x():
    from torchani.arch import Assembler
    from torchani.models import SYMBOLS_2X

    parts = Assembler()
    parts.set_symbols(SYMBOLS_2X)
    parts.set_global_cutoff_fn("cosine")
    parts.set_aev_computer(radial="ani2x", angular="ani2x")
    parts.set_atomic_networks(ctor="ani2x")
    parts.set_neighborlist("all_pairs")
    parts.set_gsaes_as_self_energies("wb97x-631gd")
    return parts.assemble(8).float().requires_grad_(False).ase()


def gfn2():
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", verbosity=0)


MODELS = {
    "SchNetPack SchNet, 6 × 128": lambda: schnetpack("SchNet", 6),
    "SchNetPack PaiNN, 3 × 128": lambda: schnetpack("PaiNN", 3),
    "MACE-OFF small's size, 96x0e": lambda: mace("96x0e", 4.5, OFF),
    "MACE, size of its rMD17 paper": lambda: mace("256x0e + 256x1o + 256x2e", 5.0, [1, 6, 8]),
    "ANI-2x architecture, 8 networks": ani2x,
    "GFN2-xTB (tblite)": gfn2,
}


def milliseconds(atoms, calculator):
    """Return the median over rounds of a step's processor time; steps are short, as untrained forces mean nothing."""
    atoms.calc = calculator
    dynamics = VelocityVerlet(atoms, 0.01 * units.fs)
    dynamics.run(5)  # TorchScript optimizes in the first calls
    began = time.process_time()
    dynamics.run(2)
    steps = max(2, int(TURN_S / ((time.process_time() - began) / 2)))
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        dynamics.run(steps)
        times.append(1000.0 * (time.process_time() - began) / steps)
    return float(np.median(times))


def main():
    torch.set_num_threads(1)
    for name, make in MODELS.items():
        with contextlib.redirect_stdout(sys.stderr):
            torch.manual_seed(0)
            time_of_step = milliseconds(read(sys.argv[1]), make())
        print(json.dumps([name, time_of_step]), flush=True)


if __name__ == "__main__":
    main()
