"""One model's training, by one process or several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from schnet_ase.data import Dataset, TrainingSplit
from schnet_ase.inference.device import resolve_device
from schnet_ase.training.config import RunConfig
from schnet_ase.training.processes import ALONE, Processes
from schnet_ase.training.state import TrainingResult, only_here, own_random_numbers
from schnet_ase.training.task import TrainingTask
from schnet_ase.training.trainer import Report, Trainer


def train(
    config: RunConfig,
    dataset: Dataset,
    split: TrainingSplit,
    folder: Path,
    *,
    seed: int | None = None,
    extra: Dataset | None = None,
    initial: Path | None = None,
    device: str = "cpu",
    processes: Processes = ALONE,
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
    extra
        More frames to train on, of the elements of `dataset`.
    initial
        Checkpoint whose weights to start from, of the same network or of one with fewer features; None: random ones.
        Its reference energies are refitted to the training frames; no validation is worse than that of the weights as
        they are then. That it has not seen a validation frame is the caller's to see to.
    device
        ``"cpu"`` or ``"cuda"``.
    processes
        That train together, each calling this with the same arguments; the folder matters to the first alone. How many
        they are changes the numbers by rounding, and may change when a training is gone on with.
    report
        Called after every step, for progress.

    Returns
    -------
    TrainingResult
        In every process the same.

    Raises
    ------
    DivergenceError
        The loss became NaN or infinite. The last good checkpoint is kept.
    TrainingError
        The folder holds another training, or another process trains in it; or a process failed or is gone, or they
        were given different things.
    """
    task = TrainingTask(
        config, dataset, split, folder, config.seed if seed is None else seed, extra, initial, device, processes
    )
    with prepared(task) as trainer:
        return trainer.run(report)


@contextmanager
def prepared(task: TrainingTask) -> Iterator[Trainer]:
    """A training before its first step or where it was interrupted; its folder is locked. Raises as `train`."""
    with ExitStack() as stack, own_random_numbers(resolve_device(task.device)):

        def start() -> Trainer:
            if task.processes.rank == 0:
                stack.enter_context(only_here(task.folder))
            return Trainer(task)

        yield task.processes.agree(start)
