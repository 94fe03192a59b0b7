"""The network: nothing but `torch.nn`."""

from schnet_ase.model.config import SchNetConfig
from schnet_ase.model.schnet import Pairs, SchNet
from schnet_ase.model.stacked import StackedSchNet

__all__ = ["Pairs", "SchNet", "SchNetConfig", "StackedSchNet"]
