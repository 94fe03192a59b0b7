"""One SchNet as an ASE calculator."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

from ase import Atoms
from ase.calculators.calculator import all_changes

from schnet_ase.calculators.fixed import FixedCalculator
from schnet_ase.calculators.members import name_of, shared
from schnet_ase.inference.evaluator import Evaluator
from schnet_ase.inference.networks import FixedNetworks
from schnet_ase.networks import SchNet
from schnet_ase.registry.card import STUDENT_FILE
from schnet_ase.registry.loading import find
from schnet_ase.registry.lookup import owning_card


class SchNetCalculator(FixedCalculator):
    """Calculator for one SchNet model: energy, conservative forces, and stress if the cell has a volume.

    Parameters
    ----------
    model
        Registry name, folder of an entry, path of a ``.safetensors`` file, or a `SchNet` module, which is copied. An
        entry such as ``"rmd17-ethanol"`` stands for its student or, if it has none, its best member;
        ``"rmd17-ethanol/student"`` and ``"rmd17-ethanol/fold-2"`` name one of its models.
    device
        ``"cpu"``, ``"cuda"``, ...; default: cuda if available, else cpu.
    dtype
        ``"float32"`` (default; force noise about 1e-5 eV/Å) or ``"float64"`` (for finite differences, vibrations,
        tight optimizations; about half as fast). Results are float64 arrays in both cases.
    engine
        ``"autograd"``: the PyTorch reference. ``"compiled"``: the fast engine for CPUs; the first call for each dtype
        and kind of system compiles it (up to a minute), and the machine code is kept on the machine. ``"auto"``: the
        compiled engine if it supports the model.
    skin
        Å added to the cutoff of the neighbour list, which is rebuilt when an atom has moved half of it. A larger skin
        means fewer rebuilds but more pairs. It does not change results.
    threads
        Number of threads of a call. Default: PyTorch's number of threads; for ``"compiled"``, one thread if the number
        of atoms (for an ensemble, times the number of members) is below 300. In a forked process (a worker of
        ``multiprocessing.Pool``), PyTorch and therefore ``"autograd"`` always use one thread.

    Attributes
    ----------
    calibration : Calibration or None
        For the student of an entry, the calibration that turns the spread of the entry's members into half-widths for
        the student's errors; a monitor saves these with its frames. Otherwise None.

    Raises
    ------
    RegistryError, CheckpointError
        The model cannot be found or read.
    ValueError
        An argument is not one of the above.

    Notes
    -----
    Results are in ASE's units: ``energy`` and ``free_energy`` (eV, the same number), ``energies`` (N,) eV, ``forces``
    (N, 3) eV/Å, ``stress`` (6,) eV/Å³ in Voigt order xx yy zz yz xz xy. ``stresses`` (N, 6) eV/Å³ are
    computed only where they are asked for: the virial of each atom, half of that of each of its pairs, over the volume
    of the cell, so that their sum is the stress. `parameters` holds JSON scalars, and
    ``SchNetCalculator(**calc.todict())`` is the same calculator, unless it was made from a module in memory. Only one
    Python thread at a time may use a calculator; give each thread its own.

    The stress is the derivative of the energy with respect to a strain of atoms and cell, over the volume of the cell,
    whichever directions are periodic. The volume of a slab's cell includes the vacuum; the stress times the cell's
    height does not depend on the vacuum and is the force per length in the plane, eV/Å².

    Examples
    --------
    >>> from ase.build import molecule
    >>> atoms = molecule("CH3CH2OH")
    >>> atoms.calc = SchNetCalculator("rmd17-ethanol")
    >>> atoms.get_forces().shape
    (9, 3)
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]  # noqa: RUF012 - ASE's form

    def __init__(
        self,
        model: str | os.PathLike[str] | SchNet,
        *,
        device: str | None = None,
        dtype: str = "float32",
        engine: str = "auto",
        skin: float = 1.0,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, (str, os.PathLike, SchNet)):
            raise ValueError(
                f"model is {model!r}; expected a registry name, a path of a .safetensors file, or a SchNet; "
                "for several take SchNetEnsembleCalculator"
            )
        if isinstance(model, SchNet):
            networks = FixedNetworks([copy.deepcopy(model)])
        else:
            found = find(model)
            networks, self._hashes = shared([found]), (found.sha256,)
            card = owning_card(model) if found.path.name == STUDENT_FILE else None
            if card is not None and card.student is not None:
                self.calibration = self._card_calibration = card.student.calibration
        self._evaluator = Evaluator(networks, device=device, dtype=dtype, engine=engine, skin=skin, threads=threads)
        where = None if device is None else str(device)
        self.parameters.update(
            model=name_of(model), device=where, dtype=dtype, engine=engine, skin=float(skin), threads=threads
        )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute all properties of `atoms` into `results`; called by ASE.

        Raises
        ------
        StructureError
            The model cannot be evaluated for these atoms.
        PropertyNotImplementedError
            Stress was requested, but the cell has no volume.
        """
        energy, energies, forces, stress = self._evaluate(atoms, properties, system_changes)
        self.results = {
            "energy": float(energy),
            "free_energy": float(energy),
            "energies": energies,
            "forces": forces,
        }
        if stress is not None:
            self.results["stress"] = stress
        self._add_asked(properties)
