"""The network, which uses only `torch.nn`."""

from schnet_ase.networks.config import SchNetConfig
from schnet_ase.networks.schnet import SchNet
from schnet_ase.networks.stacked import StackedSchNet

__all__ = ["SchNet", "SchNetConfig", "StackedSchNet"]
