"""Time per step of dynamics of every registry entry, written into their cards, beside that of a network of 3 × 128.

Velocity Verlet with each member of an entry, from its relaxed structure, and with an untrained network of three
interactions of 128 features and a cutoff of 5 Å, all in turns, on one thread; medians over rounds.

    python benchmarks/card_times.py models/*/
"""

from __future__ import annotations

from dataclasses import replace

import click
from _md_time import member_times
from _report import conditions, exit_on_error, processor, table

from schnet_ase.registry.card import read_card, write_card
from schnet_ase.registry.lookup import find_card, get_card


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entries", nargs=-1, required=True)
@exit_on_error
def main(entries: tuple[str, ...]) -> None:
    rows = []
    for entry in entries:
        card = find_card(entry) or get_card(entry)
        times = member_times(card)
        slowest = max(times.members)
        columns = (f"{min(times.members):.3f} to {slowest:.3f}", f"{times.yardstick:.3f}")
        rows.append((card.name, len(card.structure.numbers), *columns, f"{slowest / times.yardstick:.2f}"))
        if card.dynamics is not None:
            measured = replace(
                card.dynamics, milliseconds=times.members, yardstick=times.yardstick, processor=processor()
            )
            write_card(replace(read_card(card.path), dynamics=measured), card.path)
    print(table(("entry", "atoms", "ms/step, each member", "3 × 128", "slowest / that"), rows))
    print(f"\n{conditions()}")


if __name__ == "__main__":
    main()
