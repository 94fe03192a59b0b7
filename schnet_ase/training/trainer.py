"""The steps of a training, which can be killed at any moment and resumes with the same numbers."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from schnet_ase.data.batches import Batch, batch_to, collate, make_examples, make_training_examples, same_shape
from schnet_ase.data.frames import molecules
from schnet_ase.data.lazy import Lazy
from schnet_ase.data.reduced import without_terms
from schnet_ase.errors import DivergenceError, TrainingError
from schnet_ase.geometry.arrays import Integers
from schnet_ase.inference.device import resolve_device
from schnet_ase.networks import SchNet
from schnet_ase.priors import describe_terms, fixed_terms
from schnet_ase.registry.checkpoint import Tensors, read_tensors, save_model, write_tensors
from schnet_ase.registry.lookup import BEST, STATE
from schnet_ase.registry.provenance import Provenance, Row, library_versions
from schnet_ase.training.first_weights import first_weights
from schnet_ase.training.history import draw_history, out_of_patience, write_metrics
from schnet_ase.training.identity import identity, origin
from schnet_ase.training.normalization import known_references
from schnet_ase.training.state import TrainingResult, differences, pack, read_result, unpack
from schnet_ase.training.step.loss import check_labels, loss_terms
from schnet_ase.training.step.optimizer import learning_rate, make_optimizer
from schnet_ase.training.step.order import BatchOrder
from schnet_ase.training.step.steps import Steps
from schnet_ase.training.step.weights import frame_weight
from schnet_ase.training.stopping import StopAsked, Stopped, stop_on_signals
from schnet_ase.training.task import TrainingTask
from schnet_ase.training.validation import Validator

log = logging.getLogger("schnet_ase")
SECONDS_BETWEEN_PICTURES = 30.0
SECONDS_BETWEEN_STATES = 60.0
Report = Callable[[int, Row | None], None]
"""Callback that receives the number of steps made and, after a validation, its row."""


class Trainer:
    """State of a training between two steps."""

    def __init__(self, task: TrainingTask) -> None:
        config, dataset, extra, initial, processes = task.config, task.dataset, task.extra, task.initial, task.processes
        self.config, self.training, self.folder, self.seed = config, config.training, task.folder, task.seed
        self.processes = processes
        self.device = resolve_device(task.device)
        self.identity, self.origin = identity(task), origin(task)
        cutoff, terms = config.model.pair_cutoff, fixed_terms(config.model)
        weigh = partial(frame_weight, training=config.training)
        frames, training_frames = without_terms(dataset.frames, terms, cutoff), task.split.training.tolist()
        more = [] if extra is None else without_terms(extra.frames, terms, cutoff)
        self.examples = make_training_examples(frames, training_frames, cutoff, more, weigh)
        validation = make_examples(frames, task.split.validation.tolist(), cutoff, weigh)
        check_labels(self.examples, validation, loss_terms(config.training), dataset.source)
        torch.manual_seed(task.seed)
        own = Lazy(lambda k: frames[training_frames[k]], len(training_frames))
        known = known_references(config.data.reference_energies, dataset.frames)
        first = first_weights(config.model, own, self.examples[: len(own)], known, initial, self.device)
        if terms and processes.rank == 0:
            described = describe_terms(config.model)
            log.info("%s: %s is subtracted from the labels and added by the model", task.folder, described)
        if first.shift is not None and processes.rank == 0:
            log.info("%s: %s", task.folder, first.shift.describe())
        if self.training.learning_rate is None:
            self.training = replace(self.training, learning_rate=first.rate)
        self.model = first.model.to(self.device)
        self.average = copy.deepcopy(self.model).eval()
        start = None if initial is None else copy.deepcopy(self.average)
        self.validate = Validator(validation, self.training, start, processes, self.device)
        # These lists are made once, because walking the modules at every step costs as much as the optimizer.
        self.parameters = list(self.model.parameters())
        self.averaged = list(self.average.parameters())
        self.update_average = get_ema_multi_avg_fn(self.training.ema)
        self.optimizer = make_optimizer(self.training, self.parameters)
        self.step, self.seconds, self.history = 0, 0.0, list[Row]()
        self.losses: list[float] = []
        """Losses of the steps since the last validation."""
        self.exact: bool | None = None
        """Whether steps since the last validation compute filters pair by pair; see `Steps`. None: not chosen yet."""
        self.started = self.drawn = self.saved = time.monotonic()
        together = np.zeros(len(self.examples), dtype=np.int64)
        if config.data.by_molecule:
            together = molecules(frame.geometry.numbers for frame in chain(own, more))
        self.order = BatchOrder(together, self.training.batch_size, task.seed)
        if (size := self.order.batch_size) < processes.size:
            raise TrainingError(f"a batch of {size} frames for {processes.size} processes; start fewer")
        if processes.rank == 0 and (self.folder / STATE).exists():
            self._resume()

    def run(self, report: Report, stop: Callable[[], bool] = lambda: False) -> TrainingResult:
        """Train until `finished`, together with the other processes of the training.

        Raises
        ------
        Stopped
            SIGINT or SIGTERM arrived, or `stop` returned True between two steps; the state is written.
        """
        self._synchronize()
        with stop_on_signals() as asked:
            self.begin(report)
            steps = Steps(self.model, self.training, same_shape(self.examples))
            gradient_step = steps.current(self.exact)
            while not self.finished:
                indices = self.order.batch(self.step)
                own = indices[self.processes.share(indices)]

                def step() -> torch.Tensor:
                    if asked() or stop():
                        raise StopAsked("this training was asked to end")
                    return gradient_step(batch_to(self._collate(own), self.device))  # noqa: B023 - called at once

                try:
                    loss = self.processes.mean_gradient(step, len(own) / len(indices), self.parameters)
                except StopAsked:
                    raise self.stopped() from None
                except Exception:  # any error: the weights are those after the last complete step
                    self.save()
                    raise
                if self.advance(loss, report):
                    gradient_step = steps.current()
                self.exact = steps.exact
        return self.processes.of_first(self.result)

    def stopped(self) -> Stopped:
        """Write the state and return the exception to raise when the training was asked to end."""
        self.save()
        where = f"state in {self.folder}; the same command resumes" if self.step else "nothing is lost"
        return Stopped(f"stopped at step {self.step}; {where}")

    def begin(self, report: Report) -> None:
        """Validate initial weights, or report the step that training resumes from, and start the clock."""
        if self.validate.has_start and not self.step and not self.history:
            self._validate(math.nan)
        if self.step or self.history:
            report(self.step, self.history[-1] if self.history else None)
        self.started = time.monotonic() - self.seconds

    @property
    def finished(self) -> bool:
        """Whether all steps are made, or `patience` validations brought no improvement."""
        return self.step >= self.training.steps or out_of_patience(self.history, self.training.patience)

    def batch(self) -> Batch:
        """Return the batch of the next step, on the CPU."""
        return self._collate(self.order.batch(self.step))

    def advance(self, loss: float, report: Report) -> bool:
        """Take a step with the gradient in the parameters; return whether a validation followed."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.training)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.training.clip or math.inf).item()
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise self._divergence(
                f"loss is {loss} and its gradient's norm {norm} at step {self.step + 1}, "
                f"batch of frames [{', '.join(self._batch_frames())}]",
                ", and look at these frames",
            )
        self.optimizer.step()
        self.update_average(self.averaged, self.parameters, self.step)
        self.losses.append(loss)
        self.step += 1
        row = None
        if self.step % self.training.validate_every == 0 or self.step == self.training.steps:
            self.seconds = time.monotonic() - self.started
            mean_loss = sum(self.losses) / len(self.losses)
            self.losses.clear()
            self.exact = None
            row = self._validate(mean_loss)
        elif time.monotonic() - self.saved >= SECONDS_BETWEEN_STATES:
            self.save()
        report(self.step, row)
        return row is not None

    def result(self) -> TrainingResult:
        """Draw the learning curve and read the result from the folder."""
        draw_history(self.history, self.folder)
        return read_result(self.folder)

    def _collate(self, indices: Integers) -> Batch:
        return collate([self.examples[i] for i in indices])

    def _batch_frames(self) -> Iterator[str]:
        """Yield the names of the frames in the next batch."""
        known = self.identity.training_frames or ()
        for i in self.order.batch(self.step).tolist():
            yield str(known[i]) if i < len(known) else f"{i - len(known)} of data.extra"

    def _validate(self, training_loss: float) -> Row:
        """Validate and save the result."""
        validated = self.validate(self.average, self.history[0] if self.history else None)
        if not math.isfinite(validated.loss):
            raise self._divergence(f"validation loss is {validated.loss} at step {self.step}")
        row = Row(
            self.step,
            self.step / (len(self.examples) // self.order.batch_size),
            learning_rate(self.step - 1, self.training) if self.step else 0.0,
            training_loss,
            validated.loss,
            validated.errors,
            self.seconds,
        )
        self.history.append(row)
        self.processes.agree(lambda: self._write(validated.model) if self.processes.rank == 0 else None)
        self._reseed()
        return row

    def _divergence(self, what: str, more_advice: str = "") -> DivergenceError:
        kept = "; the last good checkpoint is kept" if self.history else ""
        return DivergenceError(
            f"{self.folder}: {what}; lower training.learning_rate or set training.clip{more_advice}{kept}"
        )

    def _write(self, validated: SchNet) -> None:
        """Write the model if it is the best, then the state; after a kill between the two, work is only repeated."""
        *earlier, row = self.history
        if all(row.validation_loss < r.validation_loss for r in earlier):
            rate, versions = self.training.rate, library_versions()
            provenance = Provenance(self.identity, self.origin, learning_rate=rate, validation=row, versions=versions)
            save_model(validated, self.folder / BEST, **provenance.to_json())
        self.save()
        write_metrics(self.history, self.folder)
        now = time.monotonic()
        if now - self.drawn >= SECONDS_BETWEEN_PICTURES:
            self.drawn = now
            draw_history(self.history, self.folder)

    def save(self) -> None:
        """Write the state after the last step, from which the training resumes with the same numbers."""
        # Between validations, only the other processes themselves know their random numbers for dropout.
        known_elsewhere = self.losses and self.processes.size > 1 and self.config.model.dropout
        if self.processes.rank or known_elsewhere or not (self.step or self.history):
            return
        self.seconds = time.monotonic() - self.started
        state = self._state()
        write_tensors(self.folder / STATE, state.tensors, "training state", state.header)
        self.saved = time.monotonic()

    def _state(self) -> Tensors:
        header = {
            "identity": self.identity.to_json(),
            "step": self.step,
            "history": [r.to_json() for r in self.history],
            "losses": self.losses,
            "exact": self.exact,
            "seconds": self.seconds,
            "learning_rate": self.training.learning_rate,
        }
        return Tensors(pack(self.model, self.average, self.optimizer), header)

    def _restore(self, state: Tensors) -> None:
        unpack(state.tensors, self.model, self.average, self.optimizer)
        self.step = state.header["step"]
        self.history = [Row.from_json(table) for table in state.header["history"]]
        self.losses, self.exact, self.seconds = (state.header[key] for key in ("losses", "exact", "seconds"))
        self.training = replace(self.training, learning_rate=state.header["learning_rate"])

    def _synchronize(self) -> None:
        """Continue from the state of the first process, which has read the folder."""
        if self.processes.size == 1:
            return
        first, *others = self.processes.gather(self.identity.to_json)
        for rank, other in enumerate(others, start=1):
            if changed := differences(first, other):
                raise TrainingError(
                    f"process {rank} of {self.processes.size} has other {', '.join(changed)}; "
                    "give all the same configuration and the same data"
                )
        self._restore(self.processes.of_first(self._state))
        self._reseed()

    def _reseed(self) -> None:
        """Give every process but the first, whose state is saved, its own random numbers for dropout."""
        if self.processes.rank:
            seeds = np.random.SeedSequence([self.seed, self.step, self.processes.rank])
            torch.manual_seed(int(seeds.generate_state(1)[0]))

    def _resume(self) -> None:
        state = read_tensors(self.folder / STATE, "training state")
        changed = differences(state.header["identity"], self.identity.to_json())
        if changed:
            names = ", ".join("weights to start from" if key == "initial_sha256" else key for key in changed)
            raise TrainingError(
                f"{self.folder}: holds a training with other {names}; "
                "choose another folder, remove this one, or go back to the old values"
            )
        self._restore(state)
        if not self.finished:
            log.info("%s: resumes at step %d of %d", self.folder, self.step, self.training.steps)
