"""Energy terms beside the network that are not learned.

A network is fitted to the labels less these terms, and a calculator returns the network plus these terms. A model's
configuration names them.
"""

from schnet_ase.priors.fixed import describe_terms, fixed_terms
from schnet_ase.priors.term import Contribution, Term, total

__all__ = ["Contribution", "Term", "describe_terms", "fixed_terms", "total"]
