"""What a trained network knows of atoms: its features and per-atom energies by chemical environment.

For frames of DATA, the features of every atom before the readout of ENTRY's best member are projected on their two
principal components, and the per-atom energies of all members, less the reference energies of the elements, are sorted
by environment: an element and what it is bonded to, such as C(CH3).

\b
    cd benchmarks
    python -m report.embeddings rmd17-ethanol rmd17_ethanol_test_01.npz --output ../docs/report
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from _report import exit_on_error, publish
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula
from ase.neighborlist import natural_cutoffs, neighbor_list
from matplotlib import colormaps
from matplotlib.figure import Figure

from schnet_ase import SchNet, load_model
from schnet_ase.data import Frame, read_dataset
from schnet_ase.data.batches import collate, make_example
from schnet_ase.errors import SchNetError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.graph import pair_vectors
from schnet_ase.output.progress import Progress
from schnet_ase.registry.loading import locate_members
from schnet_ase.stability.bonds import STRETCH

BATCH = 32
RARE = 0.01
"""Of all atoms; fewer of an environment make no histogram."""
HEADER = (
    "environment",
    "atoms",
    "mean (eV)",
    "std over atoms (eV)",
    "std of the mean between members (eV)",
    "correlation of members",
)


class Seen(NamedTuple):
    """What M members make of the A atoms of some frames."""

    environments: list[str]
    """(A,)."""
    features: Floats
    """(A, F), of one member."""
    energies: Floats
    """(M, A) eV, less the reference energies."""


class Projection(NamedTuple):
    """Principal components."""

    coordinates: Floats
    """(A, F), by falling variance."""
    shares: Floats
    """(F,) of the variance."""


def environments(atoms: Atoms) -> list[str]:
    """The environment of each atom."""
    first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=STRETCH))
    symbols = np.array(atoms.get_chemical_symbols())
    return [_environment(symbol, symbols[second[first == i]]) for i, symbol in enumerate(symbols)]


def _environment(symbol: str, bonded: Sequence[str]) -> str:
    return f"{symbol}({Formula(''.join(bonded)).convert('hill')})" if len(bonded) else symbol


def look(best: SchNet, members: Sequence[SchNet], frames: Sequence[Frame]) -> Seen:
    """Features of the best member, energies of all."""
    features, energies, names = [], [], []
    with Progress(len(frames), "embeddings", "frame") as progress, torch.no_grad():
        for start in range(0, len(frames), BATCH):
            some = frames[start : start + BATCH]
            graph = collate([make_example(frame, best.config.pair_cutoff) for frame in some]).graph
            distances = torch.linalg.vector_norm(pair_vectors(graph), dim=-1)
            features.append(best.representation(graph.numbers, best.filters(distances), graph.pairs))
            each = [m.atom_energies(graph.numbers, m.filters(distances), graph.pairs) for m in members]
            references = torch.stack([m.reference[graph.numbers] for m in members])
            energies.append(torch.stack(each) - references)
            names += [name for frame in some for name in environments(frame.atoms())]
            progress.update(len(some))
    return Seen(names, torch.cat(features).double().numpy(), torch.cat(energies, dim=1).numpy())


def project(features: Floats) -> Projection:
    """Principal components of (A, F) features."""
    left, values, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    return Projection(left * values, values**2 / (values**2).sum())


def cells(seen: Seen) -> list[tuple[str, ...]]:
    """A line for each environment."""
    names = np.array(seen.environments)
    rows = []
    for name in sorted(set(seen.environments)):
        energies = seen.energies[:, names == name]
        mean = energies.mean(axis=0)
        between, agreement = "", ""
        if len(energies) > 1:
            between = f"{energies.mean(axis=1).std(ddof=1):.3f}"
            if energies.shape[1] > 2:
                correlations = np.corrcoef(energies)
                agreement = f"{correlations[np.triu_indices(len(energies), k=1)].mean():.2f}"
        rows.append((name, str(len(mean)), f"{mean.mean():.3f}", f"{mean.std():.3f}", between, agreement))
    return rows


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--frames", default=200, show_default=True, type=click.IntRange(1), help="First of DATA.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for embeddings-ENTRY.md, .csv and .png.")
@exit_on_error
def main(entry: str, data: Path, frames: int, output: Path | None) -> None:
    best = load_model(entry)
    dataset = read_dataset(data)
    if strange := set(dataset.elements) - set(best.elements or dataset.elements):
        symbols = ", ".join(chemical_symbols[z] for z in sorted(strange))
        raise SchNetError(f"{data}: {entry} was not trained on {symbols}; give frames of what it was trained on")
    seen = look(best, [loaded.model for loaded in locate_members(entry)], dataset.frames[:frames])
    projection = project(seen.features)
    rows = cells(seen)
    name = f"embeddings-{Path(entry).name}"
    note = (
        f"`{entry}` on the first {min(frames, len(dataset.frames)):,} frames of {data.name}. Per-atom energies are\n"
        "less the reference energies of the elements; mean and std are those of the members' mean. Only their sum\n"
        "over a molecule is fitted to anything: a per-atom energy cannot be observed, and each member shares the\n"
        "energy out in its own way. The std between members says how differently; the correlation, the mean over\n"
        "pairs of members, whether they agree at least on which atoms of an environment lie higher."
    )
    publish(name, "Per-atom energies and embeddings", HEADER, rows, draw(seen, projection), output, note)


def draw(seen: Seen, projection: Projection) -> Figure:
    """The first two components, and histograms of the members' mean energies."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = np.array(seen.environments)
    mean = seen.energies.mean(axis=0)
    bins = np.histogram_bin_edges(mean, 60)
    kinds = sorted(set(seen.environments))
    colors = colormaps["tab10" if len(kinds) <= 10 else "tab20"].colors
    for k, name in enumerate(kinds):
        some, color = names == name, colors[k % len(colors)]
        left.plot(*projection.coordinates[some, :2].T, ".", ms=3, alpha=0.5, color=color, label=name, rasterized=True)
        if some.mean() >= RARE:
            right.hist(mean[some], bins, density=True, histtype="step", color=color, lw=1.5)
    for axis, label, share in zip("xy", ("first", "second"), projection.shares, strict=False):
        left.set(**{f"{axis}label": f"{label} principal component ({share:.0%} of the variance)"})
    right.set(xlabel="per-atom energy less the element's reference (eV)", ylabel="share of atoms (1/eV)")
    figure.legend(loc="outside right upper", markerscale=4)
    return figure


if __name__ == "__main__":
    main()
