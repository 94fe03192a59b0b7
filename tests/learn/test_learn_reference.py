"""References for learning: charges, spins and cores of PySCF molecules, one calculation a label, ignored arguments."""

import io
import logging
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator, FileIOCalculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.io import read, write

from schnet_ase.errors import LearnError
from schnet_ase.learn.arguments import ignored_arguments
from schnet_ase.learn.charges import restore_whole_charge
from schnet_ase.learn.config import ReferenceConfig
from schnet_ase.learn.reference import check_reference, find_reference, label, pyscf
from schnet_ase.learn.start import check_start, given_label

HI = Atoms("HI", [(0.0, 0.0, 0.0), (0.0, 0.0, 1.61)])
OH = Atoms("OH", [(0.0, 0.0, 0.0), (0.0, 0.0, 0.97)])
HARTREE = 27.211386


def charged(atoms, charges=None, moments=None) -> Atoms:
    atoms = atoms.copy()
    if charges is not None:
        atoms.set_initial_charges(charges)
    if moments is not None:
        atoms.set_initial_magnetic_moments(moments)
    return atoms


@pytest.fixture
def scf():
    pytest.importorskip("pyscf")


@pytest.mark.usefixtures("scf")
@pytest.mark.parametrize("basis", ["def2-svp", "lanl2dz", {"H": "6-31g", "I": "def2-svp"}])
def test_elements_with_an_effective_core_are_calculated_with_it(basis):
    """HI at its bond length: without the core its forces would be 100 eV/Å. Hydrogen is calculated without one."""
    calculator = pyscf(HI, method="RHF", basis=basis)
    n_core = 28 if "lanl2dz" not in basis else 46
    assert calculator.mol.nelectron == 54 - n_core
    atoms = HI.copy()
    atoms.calc = calculator
    forces = atoms.get_forces()
    assert np.abs(forces).max() < 2.0
    energies = []
    for by in (-1e-3, 1e-3):
        moved = HI.copy()
        moved.positions[1, 2] += by
        energies.append(label(moved, lambda frame: pyscf(frame, method="RHF", basis=basis)).energy)
    assert forces[1, 2] == pytest.approx(-(energies[1] - energies[0]) / 2e-3, abs=1e-3)


@pytest.mark.usefixtures("scf")
@pytest.mark.parametrize("basis", ["sto-3g", "ano-rcc"])
def test_bases_for_all_electrons_are_taken_as_they_are(basis):
    assert pyscf(HI, basis=basis).mol.nelectron == 54


@pytest.mark.usefixtures("scf")
@pytest.mark.parametrize(
    ("atoms", "arguments", "message"),
    [
        (HI, {"basis": "ccecp-cc-pvdz"}, "'ccecp-cc-pvdz' leaves out the core of I"),
        (molecule("CH4"), {"basis": "gth-szv"}, "'gth-szv' leaves out the core of C"),
        (HI, {"basis": "def3-svp"}, "no basis 'def3-svp' for H"),
        (HI, {"method": "B3LYP"}, "method is 'B3LYP'; expected RHF, UHF, RKS or UKS"),
        (Atoms("H2", [(0, 0, 0), (0, 0, 0.7)], cell=[5, 5, 5], pbc=(0, 0, 1)), {}, r"\[False, False, True\]"),
        (charged(OH, [-1.0, 0.0]), {"charge": 1}, r"charge = 1, but the initial charges of the frame sum to -1"),
        (charged(OH, [-1.0, 0.0]), {"charge": 0}, r"charge = 0, but the initial charges"),
        (charged(OH, [-0.4, 0.1]), {}, r"initial charges of the frame sum to -0\.3; expected a whole number"),
        (charged(OH, moments=[1.0, 0.0]), {"spin": 3}, r"spin = 3, but the initial magnetic moments"),
        (charged(OH, moments=[1.0, -1.0]), {}, "cancel each other"),
        (OH, {}, "OH of charge 0 has 9 electrons, of which 0 cannot be unpaired"),
    ],
)
def test_contradictions_are_refused_before_anything_is_labelled(atoms, arguments, message):
    reference = ReferenceConfig("schnet_ase.learn.reference.pyscf", arguments)
    make = find_reference(reference)
    with pytest.raises(LearnError, match=message) as caught:
        check_reference(reference, make, atoms)
    assert "\n" not in str(caught.value)
    with pytest.raises(LearnError, match=message):
        label(atoms, make)


@pytest.mark.usefixtures("scf")
@pytest.mark.parametrize(
    ("charges", "moments", "arguments", "expected"),
    [
        ([-1.0, 0.0], None, {}, (-1, 0, "RHF")),
        ([-0.6, -0.4], None, {"charge": -1}, (-1, 0, "RHF")),
        (None, [0.8, 0.2], {}, (0, 1, "UHF")),
        (None, [-1.0, 0.0], {}, (0, 1, "UHF")),
        ([1.0, 0.0], [2.0, 0.0], {}, (1, 2, "UHF")),
        (None, None, {"spin": 1}, (0, 1, "UHF")),
        (None, None, {"spin": 1, "method": "ROHF"}, (0, 1, "ROHF")),
        (None, None, {"charge": -1}, (-1, 0, "RHF")),
    ],
)
def test_charge_and_spin_are_those_of_the_atoms(charges, moments, arguments, expected):
    calculator = pyscf(charged(OH, charges, moments), **{"method": "RHF", "basis": "sto-3g", **arguments})
    found = calculator.method
    assert (found.mol.charge, found.mol.spin, type(found).__name__) == expected


@pytest.mark.usefixtures("scf")
def test_a_radical_with_the_moments_of_its_atoms_is_that_of_pyscf():
    from pyscf import gto
    from pyscf import scf as methods

    oxygen = molecule("O2")  # a triplet, as its moments say
    assert oxygen.get_initial_magnetic_moments().sum() == 2.0
    found = label(oxygen, lambda frame: pyscf(frame, method="RHF", basis="sto-3g"))
    by_hand = gto.M(atom=list(zip(oxygen.symbols, oxygen.positions, strict=True)), basis="sto-3g", spin=2, verbose=0)
    assert found.energy == pytest.approx(methods.UHF(by_hand).kernel() * HARTREE, abs=1e-4)


@pytest.mark.usefixtures("scf")
def test_a_label_is_one_calculation():
    runs = []

    def counted(atoms):
        calculator = pyscf(atoms, method="RHF", basis="sto-3g")
        solve = calculator.method_scan.kernel
        calculator.method_scan.kernel = lambda *args, **named: runs.append(1) or solve(*args, **named)
        return calculator

    label(molecule("H2O"), counted)
    assert len(runs) == 1


class Smeared(Calculator):
    """As a file program that finds the forces only when asked, with a free energy beside its energy."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces"]
    default_parameters: ClassVar[dict[str, float]] = {"entropy": 0.25}

    def __init__(self, **kwargs):
        self.runs = 0
        super().__init__(**kwargs)

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        self.runs += 1
        self.results = {"energy": -2.0, "free_energy": -2.0 - self.parameters.entropy}
        if "forces" in properties:
            self.results["forces"] = np.ones((len(atoms), 3))


@pytest.mark.parametrize(("entropy", "energy", "other"), [(0.25, -2.25, -2.0), (1e-9, -2.0, None)])
def test_with_smearing_the_label_has_the_free_energy(entropy, energy, other):
    calculator = Smeared(entropy=entropy)
    found = label(molecule("H2O"), lambda atoms: calculator)
    assert (found.energy, found.other_energy, calculator.runs) == (energy, other, 1)
    text = io.StringIO()
    atoms = molecule("H2O")
    atoms.calc = Smeared(entropy=entropy)
    atoms.get_forces()
    write(text, atoms, format="extxyz")
    text.seek(0)
    assert given_label(read(text, format="extxyz")).energy == energy


class Dispersion(Calculator):
    """Of a correction, which declares no free energy."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": -0.5, "forces": np.ones((len(atoms), 3))}


def test_a_sum_of_calculators_keeps_the_free_energy_of_one():
    found = label(molecule("H2O"), lambda atoms: SumCalculator([Smeared(), Dispersion()]))
    assert (found.energy, found.other_energy) == (-2.75, -2.5)
    np.testing.assert_array_equal(found.forces, 2.0)


@pytest.mark.parametrize("n", [3, 6, 7, 30])
@pytest.mark.parametrize("total", [1, -1, 2, 0])
def test_charges_that_lost_their_last_digits_sum_to_a_whole_number_again(n, total):
    atoms = Atoms(f"H{n}", positions=np.arange(3.0 * n).reshape(n, 3))
    charges = np.random.default_rng(n).normal(size=n)
    atoms.set_initial_charges(charges + (total - charges.sum()) / n)
    text = io.StringIO()
    write(text, atoms, format="extxyz", columns=["symbols", "positions", "initial_charges"])
    text.seek(0)
    rounded = read(text, format="extxyz")
    before = rounded.get_initial_charges()
    restore_whole_charge(rounded)
    assert rounded.get_initial_charges().sum() == total
    assert rounded.get_initial_charges()[::-1].sum() == total
    np.testing.assert_allclose(rounded.get_initial_charges(), before, atol=1e-6)


def test_charges_with_another_sum_stay_and_are_doubted(caplog):
    atoms = charged(molecule("H2O"), [0.5, -0.2, 0.1])
    with caplog.at_level(logging.WARNING, "schnet_ase"):
        check_start([molecule("H2O"), atoms, atoms], "start")
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "start: initial charges of frame 1 sum to 0.4"
    ]
    restore_whole_charge(atoms)
    assert atoms.get_initial_charges().tolist() == [0.5, -0.2, 0.1]


def test_a_radical_ion_whose_thirds_were_rounded_has_its_energy():
    """Which tblite finds several eV off where it is told of 0.99999999 electrons."""
    pytest.importorskip("tblite")
    ion = molecule("H2O")
    make = find_reference(ReferenceConfig("tblite.ase.TBLite", {"method": "GFN2-xTB", "verbosity": 0}))
    found = label(charged(ion, 3 * [0.33333333], [1.0, 0.0, 0.0]), make)
    expected = label(charged(ion, [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]), make)
    assert found.energy == pytest.approx(expected.energy, abs=1e-6)


class ToAFile(FileIOCalculator):
    default_parameters: ClassVar[dict[str, object]] = {"xc": "LDA"}


@pytest.mark.parametrize(
    ("calculator", "arguments", "ignored"),
    [
        (LennardJones, {"sigmaa": 1.0, "epsilon": 1.0, "rc": 3.0}, ["sigmaa"]),
        (LennardJones, {"directory": ".", "smooth": True}, []),
        (EMT, {"asap": True}, ["asap"]),
        (Calculator, {"anything": 1}, []),
        (ToAFile, {"spinn": 1, "command": "code"}, []),
    ],
)
def test_arguments_that_a_class_does_not_know(calculator, arguments, ignored):
    assert ignored_arguments(calculator(**arguments), arguments) == ignored


def test_names_that_the_source_of_a_class_reads_are_known(tmp_path, monkeypatch):
    (tmp_path / "own_keywords.py").write_text(
        "from ase.calculators.calculator import Calculator\n"
        "class Reads(Calculator):\n"
        "    default_parameters = {'method': 'x'}\n"
        "    def calculate(self, *_):\n"
        "        self.results['energy'] = self.parameters.get('unlisted', 1.0)\n"
    )
    handing = (tmp_path / "own_keywords.py").read_text().replace("get('unlisted', 1.0)", "items()")
    (tmp_path / "handing_on.py").write_text(handing)
    monkeypatch.syspath_prepend(tmp_path)
    for module, expected in (("own_keywords", ["unlistet"]), ("handing_on", [])):
        arguments = {"unlisted": 2.0, "unlistet": 2.0}
        calculator = find_reference(ReferenceConfig(f"{module}.Reads", arguments))(Atoms())
        assert ignored_arguments(calculator, arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "ignored"),
    [
        ({"uhf": 2, "verbosity": 0}, ["uhf"]),
        ({"charges": 1, "charge": 1}, ["charges"]),
        ({"alpb_solvation": "water", "multiplicity": 1, "electronic_temperature": 500.0}, []),
    ],
)
def test_arguments_that_tblite_ignores_are_said(arguments, ignored, caplog):
    pytest.importorskip("tblite")
    reference = ReferenceConfig("tblite.ase.TBLite", arguments)
    with caplog.at_level(logging.WARNING, "schnet_ase"):
        check_reference(reference, find_reference(reference), molecule("H2O"))
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(",")[0] for line in said] == [f"reference.arguments has {name}" for name in ignored]
