"""Energy terms that a configuration names."""

from __future__ import annotations

from schnet_ase.networks import SchNetConfig
from schnet_ase.priors.dispersion import Dispersion
from schnet_ase.priors.term import Term
from schnet_ase.priors.zbl import ZBL


def fixed_terms(config: SchNetConfig) -> tuple[Term, ...]:
    """Return the energy terms beside the network of a model, which most models do not have.

    Raises
    ------
    SchNetError
        A package that a term needs is not installed, or has no parameters of this name.
    """
    terms: list[Term] = []
    if config.prior == "zbl":
        terms.append(ZBL(config.pair_cutoff))
    if config.dispersion is not None:
        terms.append(Dispersion(config.dispersion))
    return tuple(terms)


def describe_terms(config: SchNetConfig) -> str:
    """Return a description of the terms beside the network for the end of a sentence; empty if there are none."""
    names = [config.prior and "ZBL repulsion", config.dispersion and f"D3(BJ) dispersion of {config.dispersion}"]
    return " and ".join(name for name in names if name)
