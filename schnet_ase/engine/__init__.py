"""The fast path on a CPU: filters tabulated, energy and gradient in one compiled function."""

from schnet_ase.engine.compiled import Closest, CompiledSchNet, SystemPrediction, why_not_compiled
from schnet_ase.engine.jit import announced
from schnet_ase.engine.search import compiled_half_list
from schnet_ase.engine.tables import TableError

__all__ = [
    "Closest",
    "CompiledSchNet",
    "SystemPrediction",
    "TableError",
    "announced",
    "compiled_half_list",
    "why_not_compiled",
]
