"""From a configuration to its energy terms."""

from __future__ import annotations

from schnet_ase.networks import SchNetConfig
from schnet_ase.priors.dispersion import Dispersion
from schnet_ase.priors.term import Term
from schnet_ase.priors.zbl import ZBL


def fixed_terms(config: SchNetConfig) -> tuple[Term, ...]:
    """The energy terms beside the network of a model; none for most.

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
    """The terms beside the network in words, to end a sentence with."""
    names = [config.prior and "ZBL repulsion", config.dispersion and f"D3(BJ) dispersion of {config.dispersion}"]
    return " and ".join(name for name in names if name)
