"""What is said before a run of atoms that the model was not taught."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from schnet_ase.registry.applicability import (
    Taught,
    advice,
    connected_to_images,
    images,
    knows,
    shortest_repeat,
    strange,
    taught,
)
from schnet_ase.registry.card import Structure, write_card
from schnet_ase.registry.lookup import get_card
from tests.support.entries import make_entry

WATERS = [molecule("H2O") for _ in range(2)]


def entry(places, name, *formulas, periodic=False):
    card = make_entry(places["first"], name)
    structure = card.structure
    if periodic:
        structure = Structure.from_atoms(Atoms("H2O", molecule("H2O").positions, cell=[9, 9, 9], pbc=True))
    card = replace(card, data=replace(card.data, formulas=formulas or None), structure=structure)
    write_card(card, card.path)
    return taught(name)


UNKNOWN = Taught("runs/x", None, None, entry=False)


def test_formulas_of_molecules(places):
    several = entry(places, "several", "C2H6O", "CH4O", "H2O")
    one = entry(places, "one", "CH4O")
    unknown = entry(places, "unknown")
    assert strange(several, molecule("CH3OH")) is None
    assert knows(unknown, molecule("CH3OH")) is None
    assert strange(unknown, molecule("CH3OH")) is None
    assert strange(several, molecule("C6H6")) == (
        "C6H6 is none of the three molecules this entry knows (C2H6O, CH4O, H2O); its forces are a guess"
    )
    assert strange(one, molecule("CH3CH2OH")) == "C2H6O is not what this entry knows, CH4O; several knows it"
    assert "H4O2 is not what" in strange(entry(places, "water", "H2O"), WATERS[0] + WATERS[1])


def test_a_liquid_knows_any_number_of_its_molecules(places):
    liquid = entry(places, "liquid", "H128O64", periodic=True)
    assert knows(liquid, WATERS[0] + WATERS[1])
    assert not knows(liquid, molecule("H2O2"))


def test_what_helps(places):
    one = entry(places, "one", "CH4O")
    entry(places, "all", "CH4O", "C2H6O")
    assert advice(one, molecule("CH3OH"), "be gentle") == "be gentle"
    assert advice(one, molecule("CH3CH2OH"), "be gentle") == "give all, which knows C2H6O"
    assert "schnet-ase learn" in advice(one, molecule("C6H6"), "be gentle")
    assert "schnet-ase learn" in advice(UNKNOWN, molecule("C6H6"), "be gentle")


def test_an_entry_trained_here_says_its_formulas():
    assert get_card("rmd17-ethanol").data.formulas == ("C2H6O",)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("length", "near"), [(4.0, True), (7.0, True), (12.0, False)])
def test_a_molecule_in_a_box(places, length, near, wrapped):
    """Ethanol is 4 Å long; its cutoff here is 5 Å."""
    atoms = molecule("CH3CH2OH")
    atoms.set_cell([length] * 3)
    atoms.pbc = True
    if wrapped:
        atoms.positions += 0.49 * length
        atoms.wrap()
    assert connected_to_images(atoms, 5.0) is near
    said = images(entry(places, "one", "C2H6O"), atoms, 5.0, moving=False)
    assert (said is not None) is near
    if near:
        assert "trained on free molecules; set pbc to False" in said


def test_a_small_cell_moves_as_its_images(places):
    liquid = entry(places, "liquid", "Cu", periodic=True)
    copper = bulk("Cu")
    assert shortest_repeat(copper) == pytest.approx(3.61 / np.sqrt(2))
    assert "repeats after 2.55 Å" in images(liquid, copper, 5.0, moving=True)
    assert images(liquid, copper, 5.0, moving=False) is None
    assert images(liquid, copper * (3, 3, 3), 5.0, moving=True) is None
    assert images(UNKNOWN, molecule("H2O"), 5.0, moving=True) is None


def test_a_slab_repeats_in_its_plane_alone():
    slab = Atoms("Cu", cell=[[6.0, 0, 0], [1.0, 7.0, 0], [0, 0, 2.0]], pbc=[True, True, False])
    assert shortest_repeat(slab) == pytest.approx(6.0)


def test_the_commands_say_it_before_the_first_step(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    write("methanol.xyz", molecule("CH3OH"))
    for command in ("md", "relax"):
        options = ("--steps", 1, "--thermostat") if command == "md" else ("--fmax", 100)
        _, _, said = run(command, "rmd17-ethanol", "methanol.xyz", *options)
        # Only the engine's own announcement, where it is not compiled yet, may come before.
        first = next(line for line in said.splitlines() if not line.startswith("compiling the engine"))
        assert "CH4O is not what this entry knows, C2H6O; its forces are a guess" in first
