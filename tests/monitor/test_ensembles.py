"""An ensemble that looks from inside a sum, or beside the calculator."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import Calculator
from ase.calculators.mixing import LinearCombinationCalculator, SumCalculator
from ase.constraints import FixAtoms
from ase.io import read
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNetEnsembleCalculator, UncertaintyMonitor
from schnet_ase.errors import MonitorError
from tests.support.monitoring import rows


class Reused(Calculator):
    """A spring to the origin, whose arrays are those of the call before, as EMT's are."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - ASE's form

    def __init__(self):
        super().__init__()
        self.forces_array, self.stress_array = np.zeros((9, 3)), np.zeros(6)

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        Calculator.calculate(self, atoms, properties, system_changes)
        self.forces_array[:] = -0.1 * atoms.positions
        self.stress_array[:] = atoms.positions[0, 0]
        energy = 0.05 * float((atoms.positions**2).sum())
        self.results = {"energy": energy, "forces": self.forces_array, "stress": self.stress_array}


def driven_by(atoms, kind):
    """What moves the atoms, the weights of the ensemble and of `Reused` in it, and the monitor's `ensemble`."""
    ensemble, other = atoms.calc, Reused()
    if kind == "sum":
        return SumCalculator([ensemble, other]), 1.0, 1.0, None
    if kind == "combination":
        return LinearCombinationCalculator([other, ensemble], [0.25, 0.5]), 0.5, 0.25, None
    if kind == "sum in a sum":
        return SumCalculator([SumCalculator([ensemble, other]), other]), 1.0, 2.0, None
    return other, 0.0, 1.0, ensemble


@pytest.mark.parametrize("kind", ["sum", "combination", "sum in a sum", "another"])
def test_an_ensemble_inside_or_beside_the_calculator_looks(atoms, kind):
    ensemble = atoms.calc
    atoms.set_cell([20.0] * 3)
    atoms.set_constraint(FixAtoms([8]))
    atoms.calc, ours, others, given = driven_by(atoms, kind)
    monitor = UncertaintyMonitor(atoms, threshold=1e-6, ensemble=given, context=3, interval=2)
    assert monitor.threshold == 1e-6
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(monitor)
    dynamics.run(2)  # a first flag: without context
    monitor.threshold, monitor.cooldown = 1e6, 0
    dynamics.run(6)
    monitor.threshold, monitor._quiet_until = 1e-6, {"candidate": -1, "failed": -1}
    dynamics.run(2)
    written = read("flagged.extxyz", ":")
    assert [frame.info["step"] for frame in written] == [0, 6, 7, 8, 9, 10]
    by_step = {int(row["step"]): row for row in rows()}
    reused = Reused()
    for frame in written:
        bare = frame.copy()
        bare.set_constraint()
        names = ("energy", "forces", "stress")
        alone, apart = ({name: calc.get_property(name, bare) for name in names} for calc in (ensemble, reused))
        deviation = ensemble.get_property("forces_deviation", bare)
        np.testing.assert_allclose(frame.arrays["schnet_forces_deviation"], deviation, atol=1e-6)
        if frame.info["step"] != 7:  # of the context, between two looks
            largest = float(by_step[frame.info["step"]]["max_forces_deviation_eV_per_A"])
            assert largest == pytest.approx(deviation[:8].max(), abs=1e-5)
        assert frame.info["schnet_energy_std"] == pytest.approx(ensemble.results["energy_std"], rel=1e-3)
        expected = {name: ours * alone[name] + others * apart[name] for name in names}
        assert frame.get_potential_energy() == pytest.approx(expected["energy"], abs=1e-4)
        np.testing.assert_allclose(frame.get_forces(apply_constraint=False), expected["forces"], atol=1e-5)
        np.testing.assert_allclose(frame.get_stress(apply_constraint=False), expected["stress"], atol=1e-6)


def test_a_look_at_a_sum_computes_nothing_again(atoms, monkeypatch):
    ensemble, calls = atoms.calc, []
    calculate = ensemble.calculate
    monkeypatch.setattr(ensemble, "calculate", lambda *arguments: calls.append(1) or calculate(*arguments))
    atoms.calc = SumCalculator([ensemble, Reused()])
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(UncertaintyMonitor(atoms, threshold=1e6))
    dynamics.run(5)
    assert len(calls) == 6


def test_the_threshold_of_an_ensemble_inside_a_sum(atoms):
    atoms.calc.calibration = SimpleNamespace(threshold=lambda: 0.125)
    atoms.calc = SumCalculator([atoms.calc, Reused()])
    monitor = UncertaintyMonitor(atoms)
    assert (monitor.threshold, monitor.failed_above) == (0.125, 0.625)


def test_an_ensemble_that_refuses_a_frame_has_failed(atoms, make_model):
    models = [make_model(seed, envelope="none") for seed in range(2)]
    atoms.set_cell([20.0] * 3)
    atoms.pbc = True  # which a model without an envelope refuses
    atoms.calc = Reused()
    monitor = UncertaintyMonitor(atoms, threshold=1e6, ensemble=SchNetEnsembleCalculator(models))
    monitor()
    assert [flag.status for flag in monitor.flags] == ["failed"]


def test_calculators_of_which_it_is_not_clear_who_looks(atoms, make_model):
    first = atoms.calc
    second = SchNetEnsembleCalculator([make_model(seed) for seed in range(3, 6)])
    atoms.calc = SumCalculator([first, second])
    with pytest.raises(MonitorError, match=r"SumCalculator, which combines 2 ensembles; .* give one as ensemble=") as e:
        UncertaintyMonitor(atoms, threshold=0.1)
    assert "\n" not in str(e.value)
    monitor = UncertaintyMonitor(atoms, threshold=1e-6, ensemble=second)
    monitor()
    np.testing.assert_array_equal(monitor.flags[0].deviation, second.get_property("forces_deviation", atoms))
    atoms.calc = SumCalculator([Reused(), Reused()])
    with pytest.raises(MonitorError, match="SumCalculator, which has no forces_deviation"):
        UncertaintyMonitor(atoms, threshold=0.1)
    with pytest.raises(MonitorError, match="ensemble is Reused, which has no forces_deviation; give a SchNetEns"):
        UncertaintyMonitor(atoms, threshold=0.1, ensemble=Reused())
