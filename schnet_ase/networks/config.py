"""The hyperparameters of a SchNet, which fix its shape."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from schnet_ase.networks.activation import ACTIVATIONS

TERMS = ("prior", "dispersion")
"""Fields that name an energy term beside the network."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class SchNetConfig:
    """Hyperparameters of a `SchNet`; frozen, validated on construction, JSON-able.

    Parameters
    ----------
    n_features
        Width F of the atom-wise features and of the filters.
    n_interactions
        Number of interaction blocks.
    n_rbf
        Number of radial functions, with `radial` ``"gaussian"`` evenly spaced from 0 to `cutoff`.
    cutoff
        Å. With an envelope, no pair beyond it interacts; without one, it only places the basis functions.
    gamma
        Inverse squared width of the Gaussians in Å⁻²; None: ``0.5 / spacing²``.
    radial
        ``"gaussian"``: Gaussians of the distance, the paper's. ``"exponential"``: Gaussians of exp(-r), PhysNet's, for
        which `gamma` is None.
    envelope
        ``"none"``: every pair of a molecule interacts, and periodic systems are refused. ``"cosine"``: SchNetPack's;
        the force goes to zero at the cutoff. ``"polynomial"``: the force and its slope go to zero.
    readout_features
        Width of the hidden layer of the per-atom readout.
    max_z
        Number of rows of the embedding; atomic numbers below it are accepted.
    activation
        ``"ssp"`` (shifted softplus), ``"silu"``, ``"gelu"``, ``"softplus"`` or ``"tanh"``.
    readout_activation
        Activation of the readout's hidden layer; None: `activation`. SchNetPack's readouts have ``"silu"``.
    filter_activation_last
        Whether the filter network ends with the activation, as drawn in the paper's figure 2.
    interaction_bias
        Whether the atom-wise layer before the cfconv has a bias.
    norm
        Normalization of the features that enter an interaction block: None, ``"rms"`` or ``"layer"``.
    dropout
        Probability of dropping a feature of an interaction block's output during training.
    prior
        Repulsion that is added to the network's energy and is not learned: ``"zbl"``, see `schnet_ase.priors.zbl`;
        None: there is none.
    dispersion
        D3(BJ) dispersion that is added likewise: the density functional that its damping parameters belong to, such as
        ``"pbe"``, see `schnet_ase.priors.dispersion`; None: there is none.

    Raises
    ------
    pydantic.ValidationError
        A field does not exist, or a value is out of range; the error is a subclass of ValueError.
    """

    n_features: int = Field(default=64, ge=1)
    n_interactions: int = Field(default=3, ge=1)
    n_rbf: int = Field(default=300, ge=2)
    cutoff: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    gamma: float | None = Field(default=10.0, gt=0, allow_inf_nan=False)
    radial: Literal["gaussian", "exponential"] = "gaussian"
    envelope: Literal["none", "cosine", "polynomial"] = "none"
    readout_features: int = Field(default=32, ge=1)
    max_z: int = Field(default=100, ge=2)
    activation: str = "ssp"
    readout_activation: str | None = None
    filter_activation_last: bool = True
    interaction_bias: bool = True
    norm: Literal["rms", "layer"] | None = None
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    prior: Literal["zbl"] | None = None
    dispersion: str | None = None

    @model_validator(mode="after")
    def _gamma_of_gaussians(self) -> Self:
        if self.radial == "exponential" and self.gamma is not None:
            raise ValueError(f'gamma is {self.gamma}, but radial="exponential" takes none; set gamma to None')
        return self

    @model_validator(mode="after")
    def _known_activation(self) -> Self:
        for name in (self.activation, self.readout_activation or self.activation):
            if name not in ACTIVATIONS:
                raise ValueError(f"activation {name!r} is unknown; expected one of {', '.join(ACTIVATIONS)}")
        return self

    @classmethod
    def small(cls) -> Self:
        """Return the seed report's small model, 13,345 parameters."""
        return cls(n_interactions=1, n_features=32, cutoff=15.0, n_rbf=150)

    @classmethod
    def default(cls) -> Self:
        """Return the seed report's default model, 116,225 parameters."""
        return cls()

    @classmethod
    def large(cls) -> Self:
        """Return the seed report's large model, 874,817 parameters."""
        return cls(n_interactions=6, n_features=128, cutoff=60.0, n_rbf=600)

    @classmethod
    def md(cls) -> Self:
        """Return the choice for molecular dynamics; docs/recipes.md says what it rests on."""
        return cls(
            n_features=64,
            n_interactions=6,
            n_rbf=20,
            cutoff=6.0,
            gamma=None,
            envelope="polynomial",
            activation="silu",
            filter_activation_last=False,
        )

    @property
    def has_terms(self) -> bool:
        """Whether the energy has terms beside the network."""
        return any(getattr(self, name) is not None for name in TERMS)

    @property
    def pair_cutoff(self) -> float | None:
        """The distance beyond which no pair interacts, Å; None if every pair does."""
        return None if self.envelope == "none" else self.cutoff

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON scalars; ``SchNetConfig(**config.to_dict()) == config``.

        `prior` and `dispersion` are among them only if the model has such a term, so that packages that know of none
        can read the file of a model without.
        """
        fields = asdict(self)
        return {name: value for name, value in fields.items() if value is not None or name not in TERMS}
