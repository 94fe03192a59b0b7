"""Training of one model by one process or several."""

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
    """Train one model, or resume a training that was interrupted.

    Parameters
    ----------
    config
        Model and training hyperparameters.
    dataset
        Checked frames in eV and Å.
    split
        Indices of the training and the validation frames.
    folder
        Folder for ``best.safetensors``, ``state.safetensors`` (to resume from), ``metrics.csv`` and
        ``learning_curve.png``. If it has a state of the same training, that training is resumed.
    seed
        Seed of the initial weights and the order of batches; None: that of `config`.
    extra
        Additional training frames, with no elements that `dataset` does not have.
    initial
        Checkpoint of the initial weights, of the same network or one with fewer features; None: random weights. The
        reference energies are refitted to the training frames, and no later validation is worse than that of the
        refitted weights. The caller must ensure that these weights have not seen a validation frame.
    device
        ``"cpu"`` or ``"cuda"``.
    processes
        Processes that train together; each calls this function with the same arguments, and only the first uses
        `folder`. Their number changes results by rounding, and may change when a training is resumed.
    report
        Callback that receives, after every step, the number of steps and, after a validation, its row.

    Returns
    -------
    TrainingResult
        The best model and the history, the same in every process.

    Raises
    ------
    DivergenceError
        The loss became NaN or infinite. The last good checkpoint is kept.
    TrainingError
        The folder holds another training, or another process trains in it; or a process failed or has ended, or the
        processes were given different arguments.
    """
    task = TrainingTask(
        config, dataset, split, folder, config.seed if seed is None else seed, extra, initial, device, processes
    )
    with prepared(task) as trainer:
        return trainer.run(report)


@contextmanager
def prepared(task: TrainingTask) -> Iterator[Trainer]:
    """Lock the folder and yield the training before its first step, or resumed; see `train` for errors."""
    with ExitStack() as stack, own_random_numbers(resolve_device(task.device)):

        def start() -> Trainer:
            if task.processes.rank == 0:
                stack.enter_context(only_here(task.folder))
            return Trainer(task)

        yield task.processes.agree(start)
