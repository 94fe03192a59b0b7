"""What metatomic calls: systems to energies, members' energies, uncertainty and features.

metatomic compares the annotations of `forward` with types of `typing`, so that they cannot be strings.
"""

from typing import Dict, List, Optional

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, NeighborListOptions, System
from torch import Tensor, nn

from schnet_ase.export.metatomic.network import Members
from schnet_ase.export.metatomic.repulsion import Repulsion


class Potential(nn.Module):
    """M members, their mean, and the repulsion beside them, as metatomic's `ModelInterface`.

    Parameters
    ----------
    members
        The networks.
    repulsion
        Energy beside the networks; None: there is none.
    cutoff
        Å; None: all pairs of a molecule interact.
    """

    def __init__(self, members: Members, repulsion: Optional[Repulsion], cutoff: Optional[float]) -> None:
        super().__init__()
        self.members = members
        self.repulsion = repulsion
        self.all_pairs = cutoff is None
        self.neighbors = NeighborListOptions(cutoff=cutoff or 1.0, full_list=False, strict=False)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        """Return what metatomic's engines have to find; nothing, if all pairs interact."""
        return torch.jit.annotate(List[NeighborListOptions], []) if self.all_pairs else [self.neighbors]

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels]
    ) -> Dict[str, TensorMap]:
        """Compute the requested outputs; see metatomic's `ModelInterface`."""
        results: Dict[str, TensorMap] = {}
        if len(outputs) == 0:
            return results
        device = systems[0].positions.device
        numbers = torch.cat([system.types.to(torch.int64) for system in systems])
        samples: List[Tensor] = []
        vectors: List[Tensor] = []
        firsts: List[Tensor] = []
        seconds: List[Tensor] = []
        begin = 0
        begins: List[int] = []
        for s, system in enumerate(systems):
            first, second, vector = self._pairs(system)
            firsts.append(first + begin)
            seconds.append(second + begin)
            vectors.append(vector)
            atoms = torch.arange(len(system), device=device)
            samples.append(torch.stack([torch.full_like(atoms, s), atoms], dim=1))
            begins.append(begin)
            begin += len(system)
        first, second, vector = torch.cat(firsts), torch.cat(seconds), torch.cat(vectors)
        labels = torch.cat(samples)
        chosen = torch.arange(begin, device=device)
        if selected_atoms is not None:
            labels = selected_atoms.values.to(torch.int64)
            chosen = torch.tensor(begins, device=device)[labels[:, 0]] + labels[:, 1]
        x = self.members.features(numbers, vector, first, second)
        energies = self.members(x, numbers)
        repulsion = self.repulsion
        if repulsion is not None:
            energies = energies + repulsion(numbers, vector, first, second)
        energies = energies[:, chosen].transpose(0, 1)
        for name, output in outputs.items():
            values = energies
            if name == "feature" or name == "features":
                values = x[:, chosen].permute(1, 0, 2).flatten(1).to(torch.float64)
            per_atom = output.sample_kind == "atom"
            if not per_atom:
                total = torch.zeros(len(systems), values.shape[1], dtype=values.dtype, device=device)
                values = total.index_add(0, labels[:, 0], values)
            if name == "energy":
                values = values.mean(dim=1, keepdim=True)
            elif name == "energy_uncertainty":
                values = values.std(dim=1, keepdim=True)
            results[name] = self._map(name, values, labels, per_atom)
        return results

    def _pairs(self, system: System) -> tuple[Tensor, Tensor, Tensor]:
        """Return both atoms of each pair (P,), and the vectors between them (P, 3), Å."""
        if self.all_pairs:
            if bool(system.pbc.any()):
                raise ValueError("the system is periodic, but all pairs of the model's atoms interact; take a molecule")
            positions = system.positions
            pairs = torch.combinations(torch.arange(len(system), device=positions.device))
            first, second = pairs[:, 0], pairs[:, 1]
            return first, second, positions[second] - positions[first]
        found = system.get_neighbor_list(self.neighbors)
        atoms = found.samples.values[:, :2].to(torch.int64)
        return atoms[:, 0], atoms[:, 1], found.values.squeeze(-1)

    def _map(self, name: str, values: Tensor, labels: Tensor, per_atom: bool) -> TensorMap:
        device = values.device
        if per_atom:
            samples = Labels(["system", "atom"], labels.to(torch.int32), assume_unique=True)
        else:
            samples = Labels(["system"], torch.arange(len(values), device=device, dtype=torch.int32)[:, None])
        columns = torch.arange(values.shape[1], device=device, dtype=torch.int32)[:, None]
        key = "feature" if name.startswith("feature") else "energy"
        properties = Labels([key], columns)
        block = TensorBlock(values, samples, torch.jit.annotate(List[Labels], []), properties)
        return TensorMap(Labels(["_"], torch.zeros(1, 1, dtype=torch.int32, device=device)), [block])
