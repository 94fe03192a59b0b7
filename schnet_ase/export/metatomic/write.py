"""Write a model for metatomic."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from metatomic.torch import AtomisticModel, ModelCapabilities, ModelMetadata, ModelOutput

from schnet_ase.errors import ExportError
from schnet_ase.export.metatomic.module import Potential
from schnet_ase.export.metatomic.network import Members
from schnet_ase.export.metatomic.repulsion import Repulsion
from schnet_ase.networks import SchNet

DTYPES = {"float32": torch.float32, "float64": torch.float64}
REFERENCE = "Schütt et al., NeurIPS 30 (2017), https://arxiv.org/abs/1706.08566"


def write_metatomic(
    file: str | os.PathLike[str], models: Sequence[SchNet], *, name: str, dtype: str = "float64"
) -> None:
    """Write models as one TorchScript file that metatomic's interfaces load.

    Parameters
    ----------
    file
        File to write.
    models
        M models of one config. The outputs are ``energy`` (eV), of several models the mean, and ``feature``, the
        features of each atom before the readout, of all members side by side. Several models have also
        ``energy_ensemble`` (M values) and ``energy_uncertainty``, their standard deviation (``ddof=1``).
    name
        Name of the model, for the file's metadata.
    dtype
        In which the networks compute. Positions and results are float64.

    Raises
    ------
    ExportError
        The models have different configs, dispersion beside the network, or no list of elements.
    """
    config, elements = models[0].config, models[0].elements
    if any(model.config != config for model in models):
        raise ExportError(f"{name}: the members have different configs; metatomic needs one for all")
    if config.dispersion is not None:
        raise ExportError(
            f"{name} has D3(BJ) dispersion, which metatomic cannot call in our library; export a model without it, "
            "and add metatomic's own DFTD3"
        )
    if elements is None:
        elements = tuple(range(1, config.max_z))
    cutoff = config.pair_cutoff
    repulsion = Repulsion(config.max_z, cutoff) if config.prior == "zbl" else None
    potential = Potential(Members(list(models), DTYPES[dtype]), repulsion, cutoff).eval()
    outputs = {
        "energy": ModelOutput(unit="eV", sample_kind="atom"),
        "feature": ModelOutput(sample_kind="atom"),
    }
    if len(models) > 1:
        outputs["energy_ensemble"] = ModelOutput(unit="eV", sample_kind="atom")
        outputs["energy_uncertainty"] = ModelOutput(unit="eV", sample_kind="system")
    capabilities = ModelCapabilities(
        outputs=outputs,
        atomic_types=list(elements),
        interaction_range=float("inf") if cutoff is None else cutoff * config.n_interactions,
        length_unit="angstrom",
        supported_devices=["cpu", "cuda"],
        dtype="float64",
    )
    metadata = ModelMetadata(name=name, references={"architecture": [REFERENCE]})
    target = Path(file)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # another place of the same disk, then a rename
        made = Path(folder, target.name)
        AtomisticModel(potential, metadata, capabilities).save(made)
        made.replace(target)
