"""One model's training: a loop that can be killed at any moment and goes on with the same numbers."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch.optim.swa_utils import get_ema_multi_avg_fn

from schnet_ase.checkpoint import load_checkpoint, read_tensors, save_model, write_tensors
from schnet_ase.data import Dataset, TrainingSplit
from schnet_ase.data.lazy import Lazy
from schnet_ase.device import resolve_device
from schnet_ase.errors import TrainingError
from schnet_ase.files import sha256
from schnet_ase.model import SchNet
from schnet_ase.training.batches import batch_indices, batch_to, collate, make_examples, same_shape
from schnet_ase.training.config import RunConfig, TrainingConfig
from schnet_ase.training.evaluate import evaluate
from schnet_ase.training.history import Row, draw_history, write_metrics
from schnet_ase.training.loss import (
    GradientStep,
    can_compile,
    compiled_or_eager_step,
    compiled_step,
    eager_step,
    evaluation_loss,
)
from schnet_ase.training.normalization import fit_normalization

BEST, STATE = "best.safetensors", "state.safetensors"
STEPS_WORTH_COMPILING = 5000  # compiling takes half a minute, a step saves about ten milliseconds
SECONDS_BETWEEN_PICTURES = 30.0
Report = Callable[[int, Row | None], None]
"""Told the steps done and, after a validation, its row."""


class TrainingResult(NamedTuple):
    """A finished training."""

    model: SchNet
    """The best model by validation loss."""
    path: Path
    """Its file."""
    best: Row
    """Its validation."""
    history: list[Row]


def train(
    config: RunConfig,
    dataset: Dataset,
    split: TrainingSplit,
    folder: Path,
    *,
    seed: int | None = None,
    initial: Path | None = None,
    device: str = "cpu",
    report: Report = lambda step, row: None,
) -> TrainingResult:
    """Train one model, or go on with a training that was interrupted.

    Parameters
    ----------
    config
        Model and training hyperparameters.
    dataset
        Checked frames in eV and Å.
    split
        Which of them are for training and for validation.
    folder
        Where ``best.safetensors``, ``state.safetensors`` (to resume from), ``metrics.csv`` and
        ``learning_curve.png`` are written. A folder with a state of the same training is gone on with.
    seed
        Of the initial weights and the order of batches; None: that of `config`.
    initial
        Checkpoint whose weights to start from; None: random ones. That it has not seen a validation frame is the
        caller's to see to.
    device
        ``"cpu"`` or ``"cuda"``.
    report
        Called after every step, for progress.

    Returns
    -------
    TrainingResult

    Raises
    ------
    TrainingError
        The loss became NaN or infinite; the folder holds another training; or another process trains in it. The last
        good checkpoint is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        with lock.acquire(timeout=0), torch.random.fork_rng():
            trainer = _Trainer(config, dataset, split, folder, config.seed if seed is None else seed, initial, device)
            return trainer.run(report)
    except Timeout as error:
        raise TrainingError(f"{folder}: another process trains here; wait for it or choose another folder") from error


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Learning rate of a step (counted from 0): warm-up and cosine to zero, or the report's steps of 0.96."""
    if config.schedule == "report":
        return config.learning_rate * 0.96 ** (step // 100_000)
    warmup = min(1.0, (step + 1) / (config.warmup + 1))
    return config.learning_rate * warmup * 0.5 * (1.0 + math.cos(math.pi * step / config.steps))


class _Trainer:
    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        split: TrainingSplit,
        folder: Path,
        seed: int,
        initial: Path | None,
        device: str,
    ) -> None:
        self.config, self.training, self.folder, self.seed = config, config.training, folder, seed
        self.device = resolve_device(device)
        # What makes it this training: a state of another one is not gone on with.
        self.identity: dict[str, Any] = {
            "config": config.model.to_dict(),
            "training": asdict(config.training),
            "seed": seed,
            "data_sha256": dataset.sha256,
            "data_file": dataset.source,
            "training_frames": split.training.tolist(),
            "validation_frames": split.validation.tolist(),
            "initial_sha256": None if initial is None else sha256(initial),
        }
        cutoff = config.model.pair_cutoff
        self.examples = make_examples(dataset.frames, self.identity["training_frames"], cutoff)
        self.validation = make_examples(dataset.frames, self.identity["validation_frames"], cutoff)
        torch.manual_seed(seed)
        self.model = SchNet(config.model)
        training_frames = split.training
        fit_normalization(self.model, Lazy(lambda k: dataset.frames[training_frames[k]], len(training_frames)))
        if initial is not None:
            self._start_from(initial)
        self.model.to(self.device)
        self.average = copy.deepcopy(self.model).eval()
        # Lists made once: walking the modules every step costs as much as the optimizer.
        self.parameters = list(self.model.parameters())
        self.averaged = list(self.average.parameters())
        self.update_average = get_ema_multi_avg_fn(self.training.ema)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.0, weight_decay=self.training.weight_decay, fused=True)
        self.step, self.seconds, self.history = 0, 0.0, list[Row]()
        self.drawn = time.monotonic()
        if (folder / STATE).exists():
            self._resume()

    def run(self, report: Report) -> TrainingResult:
        if self.step:
            report(self.step, self.history[-1])
        gradient_step = self._gradient_step()
        losses: list[float] = []
        started = time.monotonic() - self.seconds
        while self.step < self.training.steps and not self._out_of_patience():
            losses.append(self._take(gradient_step))
            self.step += 1
            row = None
            if self.step % self.training.validate_every == 0 or self.step == self.training.steps:
                self.seconds = time.monotonic() - started
                row = self._validate(sum(losses) / len(losses))
                losses.clear()
                self._keep(row)
            report(self.step, row)
        draw_history(self.history, self.folder)
        best = min(self.history, key=lambda r: r.validation_loss)
        return TrainingResult(load_checkpoint(self.folder / BEST), self.folder / BEST, best, self.history)

    def _take(self, gradient_step: GradientStep) -> float:
        indices = batch_indices(self.step, len(self.examples), self.training.batch_size, self.seed)
        batch = batch_to(collate([self.examples[i] for i in indices]), self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.training)
        self.model.train()
        loss = gradient_step(batch).item()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.training.clip or math.inf).item()
        if not math.isfinite(loss) or not math.isfinite(norm):
            frames = [self.identity["training_frames"][i] for i in indices]
            raise TrainingError(
                f"loss is {loss} and its gradient's norm {norm} at step {self.step + 1}, batch of frames {frames}; "
                "lower training.learning_rate or set training.clip, and look at these frames; "
                f"the last good checkpoint is in {self.folder}"
            )
        self.optimizer.step()
        self.update_average(self.averaged, self.parameters, self.step)
        return loss

    def _gradient_step(self) -> GradientStep:
        t = self.training
        uniform = same_shape(self.examples) and not self.config.model.dropout
        if t.compile and not uniform:
            raise TrainingError(
                "training.compile = true needs frames with as many atoms and pairs as each other and no dropout; "
                "leave it out or set it to false"
            )
        if t.compile:
            return compiled_step(self.model, t.energy_weight, t.force_weight)
        if t.compile is None and uniform and can_compile() and t.steps >= STEPS_WORTH_COMPILING:
            return compiled_or_eager_step(self.model, t.energy_weight, t.force_weight)
        return eager_step(self.model, t.energy_weight, t.force_weight)

    def _validate(self, training_loss: float) -> Row:
        result = evaluate(self.average, self.validation, device=str(self.device))
        loss = evaluation_loss(result, self.training.energy_weight, self.training.force_weight)
        if not math.isfinite(loss):
            raise TrainingError(
                f"validation loss is {loss} at step {self.step}; lower training.learning_rate or set training.clip; "
                f"the last good checkpoint is in {self.folder}"
            )
        size = min(self.training.batch_size, len(self.examples))
        return Row(
            self.step,
            self.step / (len(self.examples) // size),
            learning_rate(self.step - 1, self.training),
            training_loss,
            loss,
            result.errors(),
            self.seconds,
        )

    def _keep(self, row: Row) -> None:
        """Write the model if it is the best, then the state: a kill between the two repeats work and loses none."""
        if all(row.validation_loss < r.validation_loss for r in self.history):
            save_model(
                self.average, self.folder / BEST, **self.identity, validation=row.to_json(), versions=library_versions()
            )
        self.history.append(row)
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {
            f"optimizer.{index}.{key}": value
            for index, entry in self.optimizer.state_dict()["state"].items()
            for key, value in entry.items()
        }
        tensors["rng"] = torch.get_rng_state()
        header = {"identity": self.identity, "step": self.step, "history": [r.to_json() for r in self.history]}
        write_tensors(self.folder / STATE, tensors, "training state", header)
        write_metrics(self.history, self.folder)
        now = time.monotonic()
        if now - self.drawn >= SECONDS_BETWEEN_PICTURES:
            self.drawn = now
            draw_history(self.history, self.folder)

    def _start_from(self, initial: Path) -> None:
        model = load_checkpoint(initial)
        if model.config != self.config.model:
            raise TrainingError(f"{initial}: has another architecture; give a run of the same [model]")
        self.model.load_state_dict(model.state_dict())

    def _resume(self) -> None:
        tensors, header = read_tensors(self.folder / STATE, "training state")
        changed = _differences(header["identity"], self.identity)
        if changed:
            raise TrainingError(
                f"{self.folder}: holds a training with other {', '.join(changed)}; "
                "choose another folder, remove this one, or go back to the old values"
            )
        self.model.load_state_dict(_under("model.", tensors))
        self.average.load_state_dict(_under("average.", tensors))
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        torch.set_rng_state(tensors["rng"])
        self.step = header["step"]
        self.history = [Row.from_json(table) for table in header["history"]]
        self.seconds = self.history[-1].seconds

    def _out_of_patience(self) -> bool:
        if self.training.patience is None or not self.history:
            return False
        losses = [r.validation_loss for r in self.history]
        return len(losses) - 1 - losses.index(min(losses)) >= self.training.patience


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(prefix + key)
    return found


def library_versions() -> dict[str, str]:
    """Versions of what made a model, for its provenance."""
    return {name: version(name) for name in ("schnet_ase", "torch", "ase", "numpy")}
