"""Choose how a training computes loss and gradient: with derivatives written out, compiled by torch, or eager."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

from schnet_ase.errors import TrainingError
from schnet_ase.networks import SchNet
from schnet_ase.training.config import TrainingConfig
from schnet_ase.training.step.compiled import can_compile, compiled_step, with_fallback, without_small_batches
from schnet_ase.training.step.filters import TOLERANCE, TabulatedFilters, interpolation_error, steps_for
from schnet_ase.training.step.loss import GradientStep, Trainable, eager_step, loss_terms
from schnet_ase.training.step.written_out import can_write_out, predict_written_out

STEPS_WORTH_COMPILING = 5000  # compiling takes half a minute to two minutes, a step saves about twenty milliseconds


class Steps:
    """The steps of a training of `model`.

    Parameters
    ----------
    model
        Model, which is trained in place.
    training
        Loss weights, and the setting `compile`.
    same_shape
        Whether all batches have one shape, which makes a compiled step faster.

    Raises
    ------
    TrainingError
        ``training.compile`` is true, but the step cannot be compiled.
    """

    def __init__(self, model: SchNet, training: TrainingConfig, same_shape: bool) -> None:
        make = partial(step_maker(training, model.config.dropout, same_shape), model)
        self.exact = False
        """Whether the last choice was the step that computes filters pair by pair."""
        self._model = model
        self._table = steps_for(model) if can_write_out(model) else None
        self._pair_by_pair: GradientStep = make()
        self._tabulated = self._pair_by_pair
        if self._table is not None:
            predicted = partial(predict_written_out, model, TabulatedFilters(model, self._table))
            self._tabulated = eager_step(model, loss_terms(training), predicted)

    def current(self, exact: bool | None = None) -> GradientStep:
        """Return the fastest step that is exact to rounding for the current weights; training may sharpen filters.

        `exact` is the value of `Steps.exact` of an interrupted training, which resumes with the same kind of step.
        """
        if exact is None:
            exact = self._table is not None and interpolation_error(self._model, self._table) > TOLERANCE
        self.exact = exact
        return self._pair_by_pair if exact else self._tabulated


def step_maker(training: TrainingConfig, dropout: float, same_shape: bool) -> Callable[[Trainable], GradientStep]:
    """Return the function that makes the step of a network, compiled or eager; see `Steps`."""
    terms = loss_terms(training)
    if training.compile and dropout:
        raise TrainingError("training.compile = true needs dropout = 0; leave one of them out")
    worth = can_compile() and training.steps >= STEPS_WORTH_COMPILING and not dropout
    if training.compile is False or not (training.compile or worth):
        return lambda model: eager_step(model, terms)

    def make(model: Trainable) -> GradientStep:
        def fallback(reason: str) -> GradientStep:
            if training.compile:
                raise TrainingError(
                    f"training.compile = true, but the step could not be compiled ({reason}); "
                    "install a C++ compiler, or leave it out"
                )
            warnings.warn(f"the training step could not be compiled ({reason}); it runs slower without", stacklevel=3)
            return eager_step(model, terms)

        step = with_fallback(compiled_step(model, terms, one_shape=same_shape), fallback)
        return step if same_shape else without_small_batches(step, eager_step(model, terms))

    return make
