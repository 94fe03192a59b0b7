"""Convert the weights of SchNetPack."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import ValidationError
from torch import Tensor

from schnet_ase.errors import CheckpointError
from schnet_ase.networks import SchNet, SchNetConfig

EXPECTED = "expected a SchNetPack 2.x SchNet with Gaussian basis, cosine cutoff and one Atomwise readout of two layers"
BASIS = ("representation.radial_basis.widths", "representation.radial_basis.offsets")
CUTOFF = "representation.cutoff_fn.cutoff"
EMBEDDING = "representation.embedding.weight"
FLOAT32_ROUNDING = 1e-6


def from_schnetpack(
    state_dict: Mapping[str, Tensor | ArrayLike],
    *,
    activation: str = "ssp",
    readout_activation: str = "silu",
    mean: float | None = None,
    atomref: ArrayLike | None = None,
    energy_unit: float = 1.0,
) -> SchNet:
    r"""Convert a SchNetPack 2.x potential to a `SchNet` with the same energy and forces, up to rounding.

    The potential is a ``NeuralNetworkPotential`` of a ``SchNet`` representation (``GaussianRBF``, ``CosineCutoff``) and
    an ``Atomwise`` readout that sums over atoms; positions in Å. SchNetPack's interaction block has no bias before the
    cfconv, and no activation after the second filter layer. ``AddOffsets`` adds ``mean`` and ``atomref[z]`` per atom:

    .. math:: E = \mathtt{energy\_unit} \sum_i (o(x_i) + \mathtt{mean} + \mathtt{atomref}_{z_i})

    Parameters
    ----------
    state_dict
        ``model.state_dict()`` of the potential, as tensors or arrays. It determines the numbers of features,
        interactions, basis functions and hidden readout features, the cutoff, and the width of the Gaussians.
    activation
        Activation of the representation, which a state dict does not contain. Default: SchNetPack's default, the
        shifted softplus.
    readout_activation
        Activation of the readout. Default: SchNetPack's default.
    mean
        ``mean`` of ``AddOffsets``, in the potential's unit of energy, per atom. None: no mean.
    atomref
        ``atomref`` of ``AddOffsets``, in the potential's unit of energy: (Z,) by atomic number, zero for elements
        beyond. None: no atomref.
    energy_unit
        The potential's unit of energy in eV: 1.0 for eV, ``ase.units.kcal / ase.units.mol`` for kcal/mol.

    Returns
    -------
    SchNet
        The model, with the dtype of the weights and without energy terms beside the network. The state dict does not
        contain the elements that it was trained on: the model accepts any element until `SchNet.elements` is set.

    Raises
    ------
    CheckpointError
        A tensor is missing, unknown (as those of a repulsion beside the network are), or of another shape; the radial
        basis is not evenly spaced from 0 to the cutoff; or the state dict has a nonzero mean or atomref that was not
        given, because it does not state whether SchNetPack adds it.
    """
    n_interactions = sum(bool(re.fullmatch(r"representation\.interactions\.\d+\.in2f\.weight", k)) for k in state_dict)
    readout = next((name.split(".outnet.")[0] for name in state_dict if ".outnet." in name), "output_modules.0")
    names = dict(_names(max(1, n_interactions), readout))
    _check_names(set(state_dict), {*names.values(), *BASIS, CUTOFF})
    tensors = {name: torch.as_tensor(value).detach() for name, value in state_dict.items()}
    _check_dtypes(tensors)
    _check_offsets(tensors, mean, atomref)
    widths, offsets = (tensors[name].double() for name in BASIS)
    if (
        tensors[EMBEDDING].ndim != 2
        or tensors[CUTOFF].numel() != 1
        or widths.ndim != 1
        or widths.shape != offsets.shape
    ):
        shapes = ", ".join(f"{name} {tuple(tensors[name].shape)}" for name in (EMBEDDING, CUTOFF, *BASIS))
        raise CheckpointError(f"shapes {shapes} do not fit together; {EXPECTED}")
    cutoff = float(tensors[CUTOFF])
    _check_basis(widths, offsets, cutoff)
    max_z, n_features = tensors[EMBEDDING].shape
    try:
        config = SchNetConfig(
            n_features=n_features,
            n_interactions=n_interactions,
            n_rbf=len(offsets),
            cutoff=cutoff,
            gamma=0.5 / float(widths[0]) ** 2,
            envelope="cosine",
            readout_features=tensors[names["readout1.bias"]].numel(),
            max_z=max_z,
            activation=activation,
            readout_activation=None if readout_activation == activation else readout_activation,
            filter_activation_last=False,
            interaction_bias=False,
        )
    except ValidationError as error:
        raise ValueError("; ".join(e["msg"] for e in error.errors())) from error
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn and discarded at once
        model = SchNet(config).to(tensors[EMBEDDING].dtype)
    ours = model.state_dict()
    for name, theirs in names.items():
        if tensors[theirs].shape != ours[name].shape:
            raise CheckpointError(
                f"{theirs} has shape {tuple(tensors[theirs].shape)}; expected {tuple(ours[name].shape)} "
                f"for {n_features} features and {config.n_rbf} basis functions: other widths are not supported"
            )
    if not 0.0 < energy_unit < math.inf:
        raise ValueError(f"energy_unit is {energy_unit}; expected a positive number of eV")
    reference = energy_unit * _reference(mean, atomref, max_z)
    scale = torch.tensor(energy_unit, dtype=torch.float64)
    model.load_state_dict(
        {name: tensors[theirs] for name, theirs in names.items()} | {"scale": scale, "reference": reference}
    )
    return model.eval()


def _names(n_interactions: int, readout: str) -> Iterator[tuple[str, str]]:
    """Yield pairs of the names of a parameter, here and in SchNetPack."""
    yield "embedding.weight", EMBEDDING
    layers = {"readout1": f"{readout}.outnet.0", "readout2": f"{readout}.outnet.1"}
    for k in range(n_interactions):
        ours, theirs = f"interactions.{k}", f"representation.interactions.{k}"
        yield f"{ours}.dense_in.weight", f"{theirs}.in2f.weight"
        layers[f"{ours}.filter_network.dense1"] = f"{theirs}.filter_network.0"
        layers[f"{ours}.filter_network.dense2"] = f"{theirs}.filter_network.1"
        layers[f"{ours}.dense1"] = f"{theirs}.f2out.0"
        layers[f"{ours}.dense2"] = f"{theirs}.f2out.1"
    for ours, theirs in layers.items():
        yield f"{ours}.weight", f"{theirs}.weight"
        yield f"{ours}.bias", f"{theirs}.bias"


def _check_names(given: set[str], expected: set[str]) -> None:
    missing = sorted(expected - given)
    foreign = sorted(name for name in given - expected if not _is_offset(name))
    if missing or foreign:
        faults = [f"{what} {names[0]}" for what, names in (("misses", missing), ("has also", foreign)) if names]
        raise CheckpointError(f"the state dict {' and '.join(faults)}; {EXPECTED}")


def _check_dtypes(tensors: Mapping[str, Tensor]) -> None:
    dtypes = {tensor.dtype for name, tensor in tensors.items() if not _is_offset(name)}
    if dtypes != {torch.float32} and dtypes != {torch.float64}:
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise CheckpointError(f"the weights are {found}; expected all float32 or all float64: convert the model first")


def _is_offset(name: str) -> bool:
    return re.fullmatch(r"postprocessors\.\d+\.(mean|atomref)", name) is not None


def _check_offsets(tensors: Mapping[str, Tensor], mean: float | None, atomref: ArrayLike | None) -> None:
    given = {"mean": mean, "atomref": atomref}
    for name, tensor in tensors.items():
        argument = name.rsplit(".", 1)[1]
        if _is_offset(name) and bool(tensor.any()) and given[argument] is None:
            raise CheckpointError(
                f"{name} is not zero, and a state dict does not tell whether it is added; give {argument}=..., or 0"
            )


def _check_basis(widths: Tensor, offsets: Tensor, cutoff: float) -> None:
    """Check that the basis is evenly spaced from zero to the cutoff, with Gaussians of one width."""
    if not (0.0 < cutoff < math.inf):
        raise CheckpointError(f"{CUTOFF} is {cutoff}; expected a positive distance in Å")
    even = torch.linspace(0.0, cutoff, len(offsets), dtype=torch.float64)
    rounding = FLOAT32_ROUNDING * cutoff
    if len(offsets) < 2 or not torch.allclose(offsets, even, rtol=0.0, atol=rounding):
        raise CheckpointError(
            f"the {len(offsets)} Gaussians are not evenly spaced from 0 to the cutoff of {cutoff:g} Å (another start, "
            "or trained centres); such a basis is not supported"
        )
    if not (widths[0] > 0.0 and torch.allclose(widths, widths[0].expand_as(widths), rtol=FLOAT32_ROUNDING, atol=0.0)):
        raise CheckpointError("the Gaussians have different widths (trained, or centred ones), which is not supported")


def _reference(mean: float | None, atomref: ArrayLike | None, max_z: int) -> Tensor:
    reference = np.full(max_z, 0.0 if mean is None else float(mean))
    if atomref is not None:
        energies = np.atleast_1d(np.asarray(atomref, dtype=np.float64))
        if energies.ndim != 1 or len(energies) > max_z:
            raise ValueError(f"atomref has shape {energies.shape}; expected at most ({max_z},), one energy an element")
        reference[: len(energies)] += energies
    if not np.isfinite(reference).all():
        raise ValueError("mean or atomref is not finite; expected energies")
    return torch.from_numpy(reference)
