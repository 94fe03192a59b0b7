"""The checker of calculators finds every defect it promises to find."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from schnet_ase import SchNet, SchNetCalculator
from schnet_ase.testing import check_calculator
from tests.support.factories import ModelFactory


class Tampered(SchNetCalculator):
    """A calculator that breaks one promise."""

    def __init__(self, model: SchNet, tamper: Callable[[dict[str, Any], Atoms], None]) -> None:
        super().__init__(model, dtype="float64")
        self.tamper = tamper

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        assert self.atoms is not None
        self.tamper(self.results, self.atoms)


def add_energy(energy: Callable[[Atoms], float]) -> Callable[[dict[str, Any], Atoms], None]:
    def tamper(results: dict[str, Any], atoms: Atoms) -> None:
        extra = energy(atoms)
        results["energy"] += extra
        results["free_energy"] += extra
        results["energies"][0] += extra

    return tamper


def replace(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any], Atoms], None]:
    return lambda results, atoms: results.update({name: change(results[name])})


BUFFER = np.zeros((4, 3))


def fill_buffer(forces: np.ndarray) -> np.ndarray:
    BUFFER[:] = forces
    return BUFFER


def spread(atoms: Atoms) -> float:
    """Invariant under all but moves of single atoms by lattice vectors."""
    return float(np.var(atoms.positions, axis=0).sum())


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (replace("forces", lambda f: 1.00001 * f), "forces are not minus the gradient"),
        (replace("stress", lambda s: 1.00001 * s), "stress is not the strain derivative"),
        (replace("stress", lambda s: s[[0, 1, 2, 5, 4, 3]]), "stress is not the strain derivative"),
        (replace("forces", lambda f: f + 1e-6), "forces do not sum to zero"),
        (replace("energies", lambda e: e + 1e-6), "energies do not sum to the energy"),
        (replace("free_energy", lambda e: e + 1e-12), "free_energy is not the energy"),
        (replace("energies", lambda e: e[:-1]), "energies has shape"),
        (replace("forces", lambda f: f.astype(np.float32)), "forces has dtype float32"),
        (replace("forces", fill_buffer), "forces shares memory"),
        (replace("forces", lambda f: f * np.nan), "forces do not sum to zero: off by nan"),
        (lambda results, atoms: results.pop("free_energy"), "free_energy is missing"),
        (lambda results, atoms: results.pop("stress"), "stress is missing"),
        (lambda results, atoms: results.update(charges=np.zeros(4)), "charges is not among implemented_properties"),
        (add_energy(lambda a: 1e-9 * a.positions[0, 0]), "energy changes under translation"),
        (add_energy(lambda a: 1e-8 * (a.positions[1] - a.positions[0])[2]), "energy changes under rotation"),
        (add_energy(lambda a: 1e-8 * np.linalg.norm(a.positions[1] - a.positions[0])), "energy changes under permut"),
        (add_energy(lambda a: 1e-8 * spread(a)), "energy changes under moves by lattice vectors"),
    ],
)
def test_checker_finds(
    make_model: ModelFactory, crystal: Atoms, tamper: Callable[[dict[str, Any], Atoms], None], message: str
) -> None:
    with pytest.raises(AssertionError, match=message) as failure:
        check_calculator(Tampered(make_model(), tamper), crystal)
    assert "\n" not in str(failure.value)


def test_checker_says_by_how_much(make_model: ModelFactory, crystal: Atoms) -> None:
    broken = Tampered(make_model(), add_energy(lambda a: 1e-3 * float(a.positions[:, 0].sum())))
    with pytest.raises(AssertionError, match=r"off by \S+ eV, tolerance 1e-10 eV"):
        check_calculator(broken, crystal)


def test_checker_leaves_the_atoms_alone(make_model: ModelFactory, crystal: Atoms) -> None:
    crystal.set_constraint(FixAtoms([0]))
    before = crystal.copy()
    check_calculator(SchNetCalculator(make_model(), dtype="float64"), crystal)
    assert crystal == before
    assert crystal.calc is None
    assert crystal.constraints
