"""Validation during a training: of its weights, or of weights between them and the initial ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from schnet_ase.data.batches import Batch
from schnet_ase.evaluation.evaluate import Evaluation, evaluate, join
from schnet_ase.networks import SchNet
from schnet_ase.registry.provenance import Row
from schnet_ase.training.config import TrainingConfig
from schnet_ase.training.first_weights import LEAST_SHARE, between
from schnet_ase.training.processes import Processes
from schnet_ase.training.step.loss import evaluation_loss, loss_terms
from schnet_ase.uncertainty.metrics import Errors


class Validated(NamedTuple):
    """A network and the result of its validation."""

    model: SchNet
    errors: Errors
    loss: float


class Validator:
    """Validates the networks of a training; each process computes a share of the frames.

    Parameters
    ----------
    examples
        Validation frames as batches of one.
    training
        Hyperparameters, which define the loss.
    start
        Trained network that training starts from; None: it starts from random weights.
    processes, device
        Processes and device that compute the validation.
    """

    def __init__(
        self,
        examples: Sequence[Batch],
        training: TrainingConfig,
        start: SchNet | None,
        processes: Processes,
        device: torch.device,
    ) -> None:
        self._examples, self._training, self._start = examples, training, start
        self._processes, self._device = processes, device

    @property
    def has_start(self) -> bool:
        """Whether training starts from a trained network, which is validated first."""
        return self._start is not None

    def __call__(self, model: SchNet, first: Row | None) -> Validated:
        """Validate a network; if it is worse than the initial one, validate networks between the two instead.

        If all of these are worse too, the initial network is taken. `first` is the validation of the initial network;
        None: this call validates the initial network itself.
        """
        validated = self._validate(model)
        if self._start is None or first is None or not math.isfinite(validated.loss):
            return validated
        share = 1.0
        while share and self._is_worse(validated, first):
            share = share / 2 if share > LEAST_SHARE else 0.0
            validated = self._validate(between(self._start, model, share))
        return validated

    def _is_worse(self, validated: Validated, start: Row) -> bool:
        forces = validated.errors.force_mae
        worse_forces = forces is not None and forces > (start.errors.force_mae or 0.0)
        return validated.loss > start.validation_loss or (worse_forces and self._training.force_weight > 0)

    def _validate(self, model: SchNet) -> Validated:
        def share() -> Evaluation | None:
            own = self._examples[self._processes.share(self._examples)]
            return evaluate(model, own, device=str(self._device)) if own else None

        result = join([part for part in self._processes.gather(share) if part is not None])
        return Validated(model, result.errors(), evaluation_loss(result, loss_terms(self._training)))
