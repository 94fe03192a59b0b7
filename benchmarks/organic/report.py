"""What there is: counts in words and a picture, and one file of all frames."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from .blocks import blocks, shards
from .sampling import ORDINARY

SIZES = (10, 20, 30, 40, 50, 60)


def report(output: Path) -> None:
    """Print counts by kind, size, split and element, and draw them with the forces in ``report.png``."""
    tables: dict[str, Counter[str]] = defaultdict(Counter)
    together: dict[bool, set[str]] = {False: set(), True: set()}
    dropped = Counter[str]()
    forces: dict[str, list[np.ndarray]] = defaultdict(list)
    sizes = []
    for file in shards(output):
        dropped.update(json.loads(file.with_suffix(".json").read_text()))
        for block in blocks(file):
            info, n = block.info, len(block.symbols)
            tables["source"][file.stem.rpartition("-")[0]] += 1
            tables["kind"][info["config_type"]] += 1
            tables["atoms"][f"to {next(size for size in SIZES if n <= size)}"] += 1
            tables["split"][info["split"]] += 1
            tables["element (frames with it)"].update(set(block.symbols))
            together["." in info["smiles"]].add(info["smiles"])
            forces[info["config_type"]].append(np.linalg.norm(block.values[:, 3:], axis=1))
            sizes.append(n)
    single, several = len(together[False]), len(together[True])
    print(f"{len(sizes)} frames of {single} molecules and {several} clusters, {sum(sizes)} atoms")
    print(", ".join(f"{key}: {count}" for key, count in dropped.items()))
    for title, counts in tables.items():
        print(f"\n{title}")
        for key, count in sorted(counts.items()):
            print(f"  {key:20} {count:8} {100 * count / len(sizes):5.1f} %")
    print("\n|F| of an atom, eV/Å: mean, median, 99 %, largest")
    for kind, found in sorted(forces.items()):
        all_forces = np.concatenate(found)
        middle, high = np.quantile(all_forces, [0.5, 0.99])
        print(f"  {kind:20} {all_forces.mean():6.2f} {middle:6.2f} {high:6.2f} {all_forces.max():6.2f}")
    _draw(output / "report.png", tables, forces, sizes)
    print(f"\n{output / 'report.png'}")


def _draw(file: Path, tables: dict[str, Counter[str]], forces: dict[str, list[np.ndarray]], sizes: list[int]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    by_force, by_size, by_kind, by_element = figure.subplots(2, 2).ravel()
    edges = np.geomspace(1e-3, 30.0, 80)
    for kind, found in sorted(forces.items()):
        all_forces = np.concatenate(found)
        share = np.full(len(all_forces), 100 / len(all_forces))
        by_force.hist(all_forces, bins=edges, weights=share, histtype="step", label=kind)
    by_force.set(xscale="log", xlabel="|F| of an atom (eV/Å)", ylabel="% of the kind's atoms")
    by_force.legend(fontsize="small")
    by_size.hist(sizes, bins=np.arange(1.5, 61.5, 2))
    by_size.set(xlabel="atoms", ylabel="frames")
    for axes, title in ((by_kind, "kind"), (by_element, "element (frames with it)")):
        names = sorted(tables[title], key=tables[title].__getitem__)
        axes.barh(names, [tables[title][name] for name in names])
        axes.set(xlabel="frames", title=title)
    figure.savefig(file, dpi=120)


def collect(output: Path) -> None:
    """Write the frames of all shards to ``organic.extxyz``, whole or not at all; each states its subset.

    Of calibration molecules only ordinary frames are written: half-widths and the monitor's threshold are those of
    dynamics and relaxations, and no collision makes them wider.
    """
    target, building = output / "organic.extxyz", output / ".organic.extxyz.part"
    counts: Counter[str] = Counter()
    with open(building, "w", encoding="utf-8") as stream:
        for file in shards(output):
            for block in blocks(file):
                split = block.info["split"]
                if split != "calibration" or block.info["config_type"] in ORDINARY:
                    stream.write(block.text)
                    counts[split] += 1
    os.replace(building, target)
    print(f"{target}: " + ", ".join(f"{n} frames of {split}" for split, n in sorted(counts.items())))
