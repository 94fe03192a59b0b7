"""Hashes of every shipped entry's predictions for its own molecule, to find unintended changes.

For each entry, engine and dtype, the hash covers all results for the molecule on its card, with atoms slightly
displaced. Two versions of the package that print the same lines compute the same numbers, to the last bit.

    python benchmarks/fingerprint.py > after.txt && diff before.txt after.txt
"""

from __future__ import annotations

import hashlib
from itertools import product

import click
import numpy as np
from _report import exit_on_error

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, list_models


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@exit_on_error
def main() -> None:
    for card, engine, dtype in product(list_models(), ("compiled", "autograd"), ("float32", "float64")):
        atoms = card.structure.atoms()
        atoms.rattle(0.03, seed=1)
        calculator = SchNetEnsembleCalculator if len(card.members) > 1 else SchNetCalculator
        atoms.calc = calculator(card.path, engine=engine, dtype=dtype, device="cpu", threads=1)
        atoms.get_forces()
        digest = hashlib.sha256()
        for name, value in sorted(atoms.calc.results.items()):
            digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
        print(card.name, engine, dtype, digest.hexdigest()[:16], flush=True)


if __name__ == "__main__":
    main()
