"""Models for metatomic: TorchScript that the simulation engines with an interface to metatomic run."""

from schnet_ase.export.metatomic.write import write_metatomic

__all__ = ["write_metatomic"]
