"""Optuna's part of a search: draw the settings of a trial, decide when to end it, and keep finished trials.

A trial depends on its own seed and on the trials before it. If trials run one after another, each is written in one
transaction at its end: after a kill, the same trial is drawn again. If several run at the same time, a new trial
depends on when the others end, so that it is written when it begins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from schnet_ase.errors import TrainingError
from schnet_ase.registry.provenance import Row
from schnet_ase.training.config.tune import SearchRange, Value
from schnet_ase.training.state import differences
from schnet_ase.tune.trials import Trial

IDENTITY = "identity"
_OWN = Trial._fields[2:]  # fields that Optuna does not keep by itself


class Draft:
    """A trial in progress.

    The first ten are drawn at random, the others by the tree-structured Parzen estimator. A trial is pruned if it is
    worse than the median of five or more complete trials at the same step. Hyperband would judge most trials after a
    small share of the steps, when the learning rate, which falls to zero at the last step, is still high.
    """

    def __init__(
        self,
        earlier: list[FrozenTrial],
        distributions: dict[str, BaseDistribution],
        seed: int,
        drawn: FrozenTrial | None = None,
    ) -> None:
        own_seed = np.random.SeedSequence([seed, len(earlier)]).generate_state(1)[0]
        self._alone = optuna.create_study(
            sampler=optuna.samplers.TPESampler(n_startup_trials=10, seed=int(own_seed)),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
        )
        self._alone.add_trials(earlier)
        if drawn is not None:
            self._alone.enqueue_trial(drawn.params)
        self._trial = self._alone.ask(distributions)
        self.number = self._trial.number if drawn is None else drawn.number
        self.values: dict[str, Value] = self._trial.params
        same = (t.number for t in earlier if t.number < self.number and t.params == self.values)
        self.folder = f"trial-{next(same, self.number)}"

    def report(self, row: Row) -> None:
        """Record a validation."""
        self._trial.report(row.validation_loss, row.step)

    def should_prune(self) -> bool:
        """Return whether its best loss so far is worse than the median of the complete trials at the same step."""
        return self._trial.should_prune()

    def finish(self, trial: Trial) -> FrozenTrial:
        """Return the finished trial in Optuna's form; a failed trial counts as pruned, so that similar ones are
        avoided."""
        for name in _OWN:
            value = getattr(trial, name)
            self._trial.set_user_attr(name, value.to_json() if isinstance(value, Row) else value)
        if trial.state == "complete" and trial.best is not None:
            self._alone.tell(self._trial, trial.best.validation_loss)
        else:
            self._alone.tell(self._trial, state=TrialState.PRUNED)
        return self._alone.trials[-1]


class Study:
    """The finished trials of a search and those in progress, in a file; draws the next one."""

    def __init__(self, study: optuna.Study, search: dict[str, SearchRange], seed: int) -> None:
        self._study, self._seed = study, seed
        self._distributions = {key: _distribution(values) for key, values in search.items()}

    @property
    def trials(self) -> list[Trial]:
        """Return the finished trials, in their order."""
        return [_trial(frozen) for frozen in self._study.trials if frozen.state.is_finished()]

    def draw(self) -> Draft:
        """Draw the next trial."""
        return Draft(self._study.trials, self._distributions, self._seed)

    def begin(self, draft: Draft) -> Draft:
        """Write the trial drawn last as one in progress, so that another one can be drawn before it ends."""
        self._study.add_trial(
            optuna.create_trial(state=TrialState.RUNNING, params=draft.values, distributions=self._distributions)
        )
        return draft

    def under_way(self) -> list[Draft]:
        """Return the trials in progress."""
        trials = self._study.trials
        return [
            Draft([t for t in trials if t is not drawn], self._distributions, self._seed, drawn)
            for drawn in trials
            if drawn.state == TrialState.RUNNING
        ]

    def keep(self, draft: Draft, trial: Trial) -> None:
        """End a trial, and write it to the file."""
        finished = draft.finish(trial)
        trials = self._study.trials
        if draft.number == len(trials):
            self._study.add_trial(finished)
            return
        written = trials[draft.number]
        begun = optuna.Trial(self._study, written._trial_id)
        for name, value in finished.user_attrs.items():
            begun.set_user_attr(name, value)
        for step in sorted(finished.intermediate_values.keys() - written.intermediate_values.keys()):
            begun.report(finished.intermediate_values[step], step)
        # This comes last: a kill before it leaves a trial in progress whose training has ended.
        self._study.tell(begun, None if finished.state == TrialState.PRUNED else finished.value, finished.state)

    def importances(self) -> dict[str, float]:
        """Return how much each key separates the best tenth of the complete trials from the others; the sum is 1.

        The result is empty if fewer than two trials are complete.

        References
        ----------
        Watanabe, Bansal, Hutter, *PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary subspaces*,
        IJCAI 2023, arXiv:2304.10255.
        """
        if len(self._study.get_trials(states=[TrialState.COMPLETE])) < 2:
            return {}
        return get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator())


@contextmanager
def open_study(file: Path, search: dict[str, SearchRange], seed: int, identity: dict[str, Any]) -> Iterator[Study]:
    """Open the study in a file, an SQLite database, which is created if needed.

    Parameters
    ----------
    file
        Database in an existing folder.
    search, seed
        Range of each key, and the seed.
    identity
        JSON-able description of what all trials of the file have in common.

    Raises
    ------
    TrainingError
        The file is damaged or not a study of Optuna, holds a study of another identity, or cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the command does the reporting
    try:
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        except RuntimeError as error:
            raise TrainingError(
                f"{file}: written by another version of Optuna than {optuna.__version__}; "
                "install that one, or choose another folder"
            ) from error
        try:
            study = optuna.create_study(  # drafts draw the values; the random sampler costs least if it draws nothing
                storage=storage, sampler=optuna.samplers.RandomSampler(), study_name="tune", load_if_exists=True
            )
            _check_identity(study, json.loads(json.dumps(identity)), file)
            yield Study(study, search, seed)
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{file}: cannot be used ({reason}); free the disk, or choose another folder") from error


def _check_identity(study: optuna.Study, identity: dict[str, Any], file: Path) -> None:
    kept = study.user_attrs.get(IDENTITY)
    if kept is None:
        study.set_user_attr(IDENTITY, identity)
    elif changed := differences(kept, identity):
        raise TrainingError(
            f"{file.parent}: holds a search with other {', '.join(changed)}; "
            "choose another folder, remove this one, or go back to the old values"
        )


def _distribution(values: SearchRange) -> BaseDistribution:
    if values.choices is not None:
        return CategoricalDistribution(values.choices)
    low, high = values.low, values.high
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=values.log)
    assert low is not None
    assert high is not None
    return FloatDistribution(low, high, log=values.log)


def _trial(frozen: FrozenTrial) -> Trial:
    own = {name: frozen.user_attrs[name] for name in _OWN}
    for name in ("last", "best"):
        own[name] = None if own[name] is None else Row.from_json(own[name])
    return Trial(frozen.number, frozen.params, **own)
