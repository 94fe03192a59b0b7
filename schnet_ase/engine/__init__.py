"""The fast path on a CPU: tabulated filters, and energy and gradient in one compiled function."""

from schnet_ase.engine.jit import announced
from schnet_ase.engine.search import compiled_half_list
from schnet_ase.engine.tables import TableError

__all__ = ["TableError", "announced", "compiled_half_list"]
