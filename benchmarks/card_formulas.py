"""Write the chemical formulas of the training data on the card of an entry that was made before cards had them.

    python benchmarks/card_formulas.py models/rmd17-ethanol data/rmd17/rmd17_ethanol_train_01.npz

The data must be those of the card, by their SHA-256. Then `schnet-ase models index models` makes the index anew.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from schnet_ase.data import read_dataset
from schnet_ase.data.frames import formulas
from schnet_ase.errors import DataError
from schnet_ase.registry.card import read_card, write_card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("entry", type=Path)
    parser.add_argument("data", help="whatever read_dataset reads")
    arguments = parser.parse_args()
    card, dataset = read_card(arguments.entry), read_dataset(arguments.data)
    if dataset.sha256 != card.data.sha256:
        raise DataError(f"{arguments.data}: not the training data of {card.name}, whose SHA-256 is {card.data.sha256}")
    found = formulas(dataset.frames)
    write_card(replace(card, data=replace(card.data, formulas=found)), card.path)
    print(f"{card.name}: {', '.join(found)}")


if __name__ == "__main__":
    main()
