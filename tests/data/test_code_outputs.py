"""Outputs of electronic-structure codes, in the layout of each code: what ASE reads of them arrives in eV and Å."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from schnet_ase.data import Dataset, read_dataset
from schnet_ase.data.readers.formats import FORMATS
from schnet_ase.errors import DataError

HARTREE, BOHR = 27.21138602, 0.52917721067  # CODATA 2014, as in ASE
EV_PER_A3 = 160.21766208  # GPa


def read(file: Path, text: str) -> Dataset:
    file.write_text(text)
    return read_dataset(file)


VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator><i name="program" type="string">vasp </i><i name="version" type="string">6.3.0  </i></generator>
 <kpoints>
  <generation param="Gamma"><v type="int" name="divisions"> 1 1 1 </v></generation>
  <varray name="kpointlist"><v> 0.0 0.0 0.0 </v></varray>
  <varray name="weights"><v> 1.0 </v></varray>
 </kpoints>
 <parameters><separator name="electronic"><i name="SIGMA"> 0.20 </i></separator></parameters>
 <atominfo>
  <atoms> 2 </atoms>
  <array name="atoms"><field type="string">element</field><field type="int">atomtype</field>
   <set><rc><c>Al</c><c> 1</c></rc><rc><c>Al</c><c> 1</c></rc></set>
  </array>
 </atominfo>
 <structure name="initialpos">
  <crystal><varray name="basis"><v> 4.0 0.0 0.0 </v><v> 0.0 4.0 0.0 </v><v> 0.0 0.0 4.0 </v></varray></crystal>
  <varray name="positions"><v> 0.0 0.0 0.0 </v><v> 0.5 0.5 0.55 </v></varray>
 </structure>
 <calculation>
  <scstep><energy>
   <i name="e_fr_energy"> -7.50 </i><i name="e_wo_entrp"> -7.30 </i><i name="e_0_energy"> -7.40 </i>
  </energy></scstep>
  <structure>
   <crystal><varray name="basis"><v> 4.0 0.0 0.0 </v><v> 0.0 4.0 0.0 </v><v> 0.0 0.0 4.0 </v></varray></crystal>
   <varray name="positions"><v> 0.0 0.0 0.0 </v><v> 0.5 0.5 0.55 </v></varray>
  </structure>
  <varray name="forces"><v> 0.0 0.0 0.75 </v><v> 0.0 0.0 -0.75 </v></varray>
  <varray name="stress"><v> 10.0 1.0 2.0 </v><v> 1.0 20.0 3.0 </v><v> 2.0 3.0 30.0 </v></varray>
  <energy>
   <i name="e_fr_energy"> -7.50 </i><i name="e_wo_entrp"> -7.30 </i><i name="e_0_energy"> -7.40 </i>
  </energy>
 </calculation>
</modeling>
"""


def test_vasp(tmp_path: Path) -> None:
    """The free energy, -7.5, and not E0, extrapolated to no smearing; pressure in kbar becomes ASE's stress."""
    dataset = read(tmp_path / "vasprun.xml", VASPRUN)
    (frame,) = dataset.frames
    assert frame.energy == pytest.approx(-7.5)
    assert "differs from energy in 1 frame, by up to 0.1 eV" in dataset.notes[0]
    np.testing.assert_allclose(frame.forces, [[0, 0, 0.75], [0, 0, -0.75]])
    np.testing.assert_allclose(frame.stress, -np.array([10, 20, 30, 3, 2, 1]) * 0.1 / EV_PER_A3, rtol=1e-6)
    np.testing.assert_allclose(frame.geometry.positions, [[0, 0, 0], [2, 2, 2.2]])
    np.testing.assert_array_equal(frame.geometry.cell, 4.0 * np.eye(3))
    assert read_dataset(tmp_path / "vasprun.xml", energy_key="energy").frames[0].energy == pytest.approx(-7.4)


OUTCAR = """ vasp.6.3.0 20Jan22 (build Mar 10 2022) complex
 POTCAR:    PAW_PBE Al 04Jan2001
 POTCAR:    PAW_PBE Al 04Jan2001
   ISPIN  =      1    spin polarized calculation?
   ions per type =               2
--------------------------------------- Iteration      1(   1)  ---------------------------------------
  in kB       10.00000    20.00000    30.00000     1.00000     3.00000     2.00000
      direct lattice vectors                 reciprocal lattice vectors
     4.000000000  0.000000000  0.000000000     0.250000000  0.000000000  0.000000000
     0.000000000  4.000000000  0.000000000     0.000000000  0.250000000  0.000000000
     0.000000000  0.000000000  4.000000000     0.000000000  0.000000000  0.250000000

 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.00000      0.00000      0.00000         0.000000      0.000000      0.750000
      2.00000      2.00000      2.20000         0.000000      0.000000     -0.750000
 -----------------------------------------------------------------------------------
    total drift:                                0.000000      0.000000      0.000000

  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =        -7.50000000 eV

  energy  without entropy=       -7.30000000  energy(sigma->0) =       -7.40000000
"""


def test_vasp_outcar(tmp_path: Path) -> None:
    """The same calculation: in this file the order of the pressures is xx, yy, zz, xy, yz, zx."""
    dataset = read(tmp_path / "OUTCAR", OUTCAR)
    (frame,) = dataset.frames
    assert frame.energy == pytest.approx(-7.5)
    assert "free_energy" in dataset.notes[0]
    np.testing.assert_allclose(frame.forces, [[0, 0, 0.75], [0, 0, -0.75]])
    np.testing.assert_allclose(frame.stress, -np.array([10, 20, 30, 3, 2, 1]) * 0.1 / EV_PER_A3, rtol=1e-6)
    np.testing.assert_allclose(frame.geometry.positions, [[0, 0, 0], [2, 2, 2.2]])


ORCA = """
                                 *****************
                                 * O   R   C   A *
                                 *****************
---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  O      0.000000    0.000000    0.119262
  H      0.000000    0.763239   -0.477047
  H      0.000000   -0.763239   -0.477047

Number of atoms                             ...      3
-------------------------   --------------------
FINAL SINGLE POINT ENERGY       -76.321000000000
-------------------------   --------------------
------------------
CARTESIAN GRADIENT
------------------

   1   O   :   -0.000000000    0.000000000    0.010000000
   2   H   :    0.000000000   -0.004000000   -0.005000000
   3   H   :    0.000000000    0.004000000   -0.005000000

                             ****ORCA TERMINATED NORMALLY****
"""


def test_orca(tmp_path: Path) -> None:
    """Hartree, and a gradient in Hartree/Bohr, minus which is the force."""
    dataset = read(tmp_path / "water.out", ORCA)
    (frame,) = dataset.frames
    assert frame.energy == pytest.approx(-76.321 * HARTREE, rel=1e-8)
    gradient = np.array([[0, 0, 0.01], [0, -0.004, -0.005], [0, 0.004, -0.005]])
    np.testing.assert_allclose(frame.forces, -gradient * HARTREE / BOHR, atol=1e-9)
    assert frame.geometry.numbers.tolist() == [8, 1, 1]
    assert not dataset.notes


ESPRESSO = """
     Program PWSCF v.7.1 starts on 12Jan2023 at 10:11:12

     bravais-lattice index     =            0
     lattice parameter (alat)  =       7.6534  a.u.
     unit-cell volume          =     448.2935 (a.u.)^3
     number of atoms/cell      =            2
     number of atomic types    =            1

     celldm(1)=   7.653400  celldm(2)=   0.000000  celldm(3)=   0.000000

     crystal axes: (cart. coord. in units of alat)
               a(1) = (   1.000000   0.000000   0.000000 )
               a(2) = (   0.000000   1.000000   0.000000 )
               a(3) = (   0.000000   0.000000   1.000000 )

     site n.     atom                  positions (alat units)
         1           Al  tau(   1) = (   0.0000000   0.0000000   0.0000000  )
         2           Al  tau(   2) = (   0.5000000   0.5000000   0.5500000  )

     number of k points=     1  Methfessel-Paxton smearing, width (Ry)=  0.0500
                       cart. coord. in units 2pi/alat
        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000

     End of self-consistent calculation

          k = 0.0000 0.0000 0.0000 (   531 PWs)   bands (ev):

    -3.1000   1.2000   7.9000

     the Fermi energy is     7.5000 ev

!    total energy              =     -79.00000000 Ry
     smearing contrib. (-TS)   =      -0.00500000 Ry
     internal energy E=F+TS    =     -78.99500000 Ry

     Forces acting on atoms (cartesian axes, Ry/au):

     atom    1 type  1   force =     0.00000000    0.00000000    0.02000000
     atom    2 type  1   force =     0.00000000    0.00000000   -0.02000000

     Total force =     0.028284     Total SCF correction =     0.000010

     Computing stress (Cartesian axis) and pressure

          total   stress  (Ry/bohr**3)                   (kbar)     P=       29.42
   0.00010000   0.00001000   0.00002000           14.71        1.47        2.94
   0.00001000   0.00020000   0.00003000            1.47       29.42        4.41
   0.00002000   0.00003000   0.00030000            2.94        4.41       44.13

   JOB DONE.
"""


def test_quantum_espresso(tmp_path: Path) -> None:
    """Rydberg, of CODATA 2006 in ASE's reader; the total energy has the smearing in it and is that of the forces."""
    (frame,) = read(tmp_path / "al.pwo", ESPRESSO).frames
    rydberg = 13.60569193
    assert frame.energy == pytest.approx(-79.0 * rydberg, rel=1e-9)
    np.testing.assert_allclose(frame.forces[:, 2], [0.02 * rydberg / BOHR, -0.02 * rydberg / BOHR], rtol=1e-6)
    pressures = np.array([1e-4, 2e-4, 3e-4, 3e-5, 2e-5, 1e-5])
    np.testing.assert_allclose(frame.stress, -pressures * rydberg / BOHR**3, rtol=1e-6)
    np.testing.assert_allclose(frame.geometry.cell, 7.6534 * BOHR * np.eye(3), rtol=1e-6)
    np.testing.assert_allclose(frame.geometry.positions[1], 7.6534 * BOHR * np.array([0.5, 0.5, 0.55]), rtol=1e-6)


AIMS = """------------------------------------------------------------
          Invoking FHI-aims ...
  | Number of atoms                   :        2
  | Number of spin channels           :        1
  Input geometry:
  | Unit cell:
  |        4.00000000        0.00000000        0.00000000
  |        0.00000000        4.00000000        0.00000000
  |        0.00000000        0.00000000        4.00000000
  | Atomic structure:
  |       Atom                x [A]            y [A]            z [A]
  |    1: Species Al            0.00000000        0.00000000        0.00000000
  |    2: Species Al            2.00000000        2.00000000        2.20000000
  Occupation type: Gaussian broadening, width =  0.100000E+00 eV.
  | Number of k-points                             :         1
  The structure contains        2 atoms,  and a total of         26.000 electrons.
  | Number of Kohn-Sham states (occupied + empty):       20
          Begin self-consistency loop: Initialization.
          Begin self-consistency iteration #    1
  material is metallic within the approximate finite broadening function (occupation_type)
  | Total energy uncorrected      :         -0.131600000000000E+05 eV
  | Total energy corrected        :         -0.131602000000000E+05 eV  <-- do not rely on this value for anything
  | Electronic free energy        :         -0.131604000000000E+05 eV
  | Number of self-consistency cycles          :           12
  Total atomic forces (unitary forces cleaned) [eV/Ang]:
  |    1          0.000000000000000E+00          0.000000000000000E+00          0.750000000000000E+00
  |    2          0.000000000000000E+00          0.000000000000000E+00         -0.750000000000000E+00
  | Chemical potential (Fermi level):    -3.50000000 eV
          Have a nice day.
------------------------------------------------------------
"""


# ASE announces that its reader will move to a package of its own.
@pytest.mark.filterwarnings("ignore:FHI-aims IO is moving:FutureWarning")
def test_fhi_aims(tmp_path: Path) -> None:
    """The free energy, of three that the code prints."""
    (frame,) = read(tmp_path / "aims.out", AIMS).frames
    assert frame.energy == pytest.approx(-13160.4)
    np.testing.assert_allclose(frame.forces, [[0, 0, 0.75], [0, 0, -0.75]])
    np.testing.assert_allclose(frame.geometry.positions, [[0, 0, 0], [2, 2, 2.2]])
    assert frame.geometry.pbc.all()


CP2K = """ DBCSR| CPU Multiplication driver                                           BLAS
  **** **** ******  **  PROGRAM STARTED AT               2023-01-12 10:11:12.131
 CP2K| version string:                                     CP2K version 2022.2
 ENERGY| Total FORCE_EVAL ( QS ) energy [a.u.]:              -17.155100000000001

 ATOMIC FORCES in [a.u.]

 # Atom   Kind   Element          X              Y              Z
      1      1      O          0.00000000     0.00000000     0.01000000
"""


def test_cp2k_is_not_read_by_ase(tmp_path: Path) -> None:
    """Whose suffix makes ASE take it for an output of Quantum ESPRESSO, with no frames in it."""
    for name in ("cp2k.out", "cp2k.log"):
        with pytest.raises(DataError, match=f"{name}: output of CP2K, which ase.io does not read; .*dpdata"):
            read(tmp_path / name, CP2K)


@pytest.mark.parametrize("name", ["labels.csv", "data.pkl", "model.pt", "frames.lmdb", "notes.txt", "x.parquet"])
def test_anything_else_is_told_what_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04some, other\nfile, it is\n")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path / name)
    assert FORMATS in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
