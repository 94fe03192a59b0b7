"""LAMMPS: the pair style ``schnet`` (its sources, and how it is compiled), and the file with a model that it reads."""

from schnet_ase.export.lammps.build import Plugin, build_plugin
from schnet_ase.export.lammps.model_file import write_model_file

__all__ = ["Plugin", "build_plugin", "write_model_file"]
