"""Recipe that the search in recipe.py started from, which the report's experiments use."""

from __future__ import annotations

from schnet_ase.networks import SchNetConfig
from schnet_ase.training.config import TrainingConfig

NETWORK = SchNetConfig(
    n_features=64,
    n_interactions=6,
    n_rbf=16,
    cutoff=5.0,
    gamma=None,
    radial="exponential",
    envelope="polynomial",
    filter_activation_last=False,
)
TRAINING = TrainingConfig(learning_rate=1e-2, warmup=1000)
"""Initial hyperparameters; all others have their defaults."""
