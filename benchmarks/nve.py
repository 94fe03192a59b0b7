"""Energy conservation and constant speed in a long run of velocity Verlet at constant energy.

    python benchmarks/nve.py rmd17-ethanol --picoseconds 1000

Prints the slope of the total energy, its scatter, and the processor time per step and the memory in the first and the
last tenth of the run.
"""

import resource
import time

import click
import numpy as np
from _report import exit_on_error
from ase import units
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNetCalculator
from schnet_ase.output.progress import Progress
from schnet_ase.registry.lookup import get_card

TENTHS = 10
SAMPLES = 200  # of the energy, in each tenth


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.option("--picoseconds", default=1000.0, show_default=True)
@click.option("--timestep", default=0.5, show_default=True, help="fs.")
@click.option("--temperature", default=300.0, show_default=True, help="K, of the run.")
@click.option("--dtype", default="float32", show_default=True)
@exit_on_error
def main(entry: str, picoseconds: float, timestep: float, temperature: float, dtype: str) -> None:
    atoms = get_card(entry).structure.atoms()
    atoms.calc = SchNetCalculator(entry, dtype=dtype)
    # From the relaxed structure half of the kinetic energy goes into the bonds.
    thermalize_momenta(atoms, temperature_K=2.0 * temperature, rng=np.random.default_rng(0))
    Stationary(atoms)
    ZeroRotation(atoms)
    dynamics = VelocityVerlet(atoms, timestep * units.fs)
    dynamics.run(2000)
    steps = round(1000.0 * picoseconds / timestep / TENTHS / SAMPLES)
    times, energies, temperatures, seconds, memory = [], [], [], [], []
    with Progress(TENTHS * SAMPLES * steps, "nve") as progress:
        for _ in range(TENTHS):
            started = time.process_time()
            for _ in range(SAMPLES):
                dynamics.run(steps)
                times.append(dynamics.get_time() / units.fs / 1000.0)
                energies.append(1000.0 * atoms.get_total_energy() / len(atoms))
                temperatures.append(atoms.get_temperature())
                progress.update(steps)
            seconds.append(time.process_time() - started)
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    slope = np.polyfit(times, energies, 1)[0]
    print(f"{entry}, {dtype}, {timestep:g} fs, {np.mean(temperatures):.0f} K on average")
    print(f"{times[-1] - times[0]:.0f} ps, {TENTHS * SAMPLES * steps} steps")
    print(f"slope {slope:+.6f} meV/atom/ps, scatter {np.std(energies):.4f} meV/atom")
    for name, tenth in (("first", 0), ("last", -1)):
        milliseconds = 1000.0 * seconds[tenth] / (SAMPLES * steps)
        print(f"{name} tenth: {milliseconds:.3f} ms/step, {memory[tenth]:.0f} MB at most so far")


if __name__ == "__main__":
    main()
