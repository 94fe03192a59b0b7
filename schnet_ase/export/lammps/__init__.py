"""LAMMPS: the pair style ``schnet`` (its sources, and how it is built), and the file with a model that it reads."""


from schnet_ase.export.lammps.model_file import write_model_file

__all__ = ["write_model_file"]
