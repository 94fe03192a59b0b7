"""Commands for labelled frames: download or check them, measure a model on them, calibrate an ensemble with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schnet_ase.cli.common import label_options, picture, print_calibration, print_errors, stem

if TYPE_CHECKING:
    from schnet_ase.uncertainty.calibration import Calibration
    from schnet_ase.uncertainty.errors import EnsembleErrors


@click.group(invoke_without_command=True)
@click.pass_context
def data(context: click.Context) -> None:
    """List the data sets that can be downloaded by name."""
    if context.invoked_subcommand is not None:
        return
    from schnet_ase.data.download import DATA_SETS

    for name, data_set in DATA_SETS.items():
        print(f"{name:20s} {data_set.description}; licence: {data_set.licence}")


@data.command("get")
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
def data_get(name: str, folder: Path) -> None:
    """Download the data set NAME and check it; the same command resumes with missing files."""
    from schnet_ase.data.download import get

    print("\n".join(f"  {file}" for file in get(name, folder)))


@data.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@label_options
@click.option("--output", help="Picture (.png, .pdf, .svg), or a folder for it.  [default: FILE-check.png]")
@click.option("--overwrite", is_flag=True, help="Replace the picture of an earlier check.")
def data_check(
    file: Path,
    labels: dict[str, Any],
    output: str | None,
    overwrite: bool,
) -> None:
    """Say what FILE holds before you train on it: systems, labels, ranges, duplicates, outliers; also draw it."""
    from schnet_ase.data import read_dataset
    from schnet_ase.data.summary import PASSES, page, summarize
    from schnet_ase.data.summary.picture import draw
    from schnet_ase.output.progress import Progress

    drawn = picture(output, f"{_plain_stem(file)}-check.png", overwrite)
    dataset = read_dataset(file, **labels)
    with Progress(PASSES * len(dataset.frames), "check", "frame") as progress:
        summary = summarize(dataset, progress.update)
    print("\n".join(page(summary)))
    draw(summary, drawn)
    print(f"wrote {drawn}")


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@label_options
@click.option("--output", help="Picture (.png, .pdf, .svg), or a folder for it.  [default: MODEL-DATA.png]")
@click.option("--overwrite", is_flag=True, help="Replace an existing picture.")
@click.option("--device", default="cpu", show_default=True)
def evaluate(
    model: str,
    data: Path,
    labels: dict[str, Any],
    output: str | None,
    overwrite: bool,
    device: str,
) -> None:
    """Print and draw the errors of MODEL on the labelled frames of DATA, and for an ensemble its uncertainty."""
    from schnet_ase.data import read_dataset
    from schnet_ase.data.labels.report import log_for_evaluation
    from schnet_ase.evaluation.evaluate import evaluate_dataset, of_another_zero
    from schnet_ase.evaluation.leakage import frames_seen
    from schnet_ase.evaluation.parity import Comparison, parity, parity_and_uncertainty
    from schnet_ase.evaluation.reliability import reliability
    from schnet_ase.output.progress import Progress
    from schnet_ase.registry.loading import locate_members
    from schnet_ase.registry.lookup import BEST, find_card

    dataset = read_dataset(data, **labels)
    print(f"{data}: {len(dataset.frames)} frames; {dataset.units}")
    drawn = picture(output, f"{stem(model)}-{dataset.source.split('.')[0]}.png", overwrite)
    log_for_evaluation(dataset)
    members = locate_members(model)
    seen = set[int]().union(*(frames_seen(m.path, dataset) or () for m in members))
    if seen:
        print(f"{model} was trained or validated on {len(seen)} of them: errors on those are not errors on new frames")
    with Progress(len(dataset.frames), "evaluate", "frame") as progress:
        result = evaluate_dataset([m.model for m in members], dataset, device=device, report=progress.update)
    names = [m.path.parent.name if m.path.name == BEST else m.path.stem for m in members]
    for m, name in enumerate(names):
        print_errors(name if len(names) > 1 else model, result.member(m).errors())
    if len(names) > 1:
        print_errors(f"ensemble mean of {len(names)}", result.mean().errors())
    mean = result.mean()
    if (without := of_another_zero(mean)) is not None:
        print(
            f"the energies of {data} count from another zero than those of {model}, which is in all errors of energies "
            f"here; with reference energies fitted to them, their MAE is {1000.0 * without:.3f} meV"
        )
    title = f"{model} on {dataset.source}"
    compared = Comparison(
        mean.reference_energy, mean.energy, mean.reference_forces, mean.forces, mean.reference_stress, mean.stress
    )
    if len(names) > 1:
        card = find_card(model)
        calibration = None if card is None else card.calibration
        if calibration is not None and calibration.sha256 == dataset.sha256:
            print(f"it was calibrated on {calibration.n_frames} frames of this file, which it covers as asked for")
        errors = result.ensemble_errors()
        measured = reliability(errors, calibration)
        print("\n".join(measured.lines()))
        if calibration is not None:
            _print_flags(calibration, errors)
        parity_and_uncertainty(compared, measured, title, drawn)
    else:
        parity(compared, title, drawn)
    print(f"wrote {drawn}")


@click.command()
@click.argument("entry")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--coverage", default=0.9, show_default=True, type=float, help="Default coverage of the half-widths.")
@label_options
@click.option("--device", default="cpu", show_default=True)
def calibrate(
    entry: str,
    data: Path,
    coverage: float,
    labels: dict[str, Any],
    device: str,
) -> None:
    """Calibrate the uncertainty of ENTRY on the labelled frames of DATA that no member has seen; update its card."""
    from schnet_ase.data import read_dataset
    from schnet_ase.data.labels.report import log_for_evaluation
    from schnet_ase.errors import RegistryError
    from schnet_ase.registry.lookup import find_card
    from schnet_ase.training import calibrate_entry, unseen_frames

    card = find_card(entry)
    if card is None:
        raise RegistryError(f"{entry}: not a registry entry; expected the name or the folder of one, with a card")
    dataset = read_dataset(data, **labels)
    print(f"{data}: {len(dataset.frames)} frames; {dataset.units}")
    log_for_evaluation(dataset)
    frames = unseen_frames(card, dataset)
    print(f"{card.name}: {len(card.members)} members, which trained or validated on all but {len(frames)} of them")
    old = card.calibration
    card = calibrate_entry(card, dataset, frames, coverage=coverage, device=device)
    print_calibration(card)
    assert card.calibration is not None
    if card.calibration.forces is None:
        print("no half-widths for forces: the frames have none")
    if old is not None:
        print(f"it replaces that on {old.n_frames} frames of {old.file}")
    print(f"wrote {card.path / 'card.json'}")


def _plain_stem(data: Path) -> str:
    """Return the stem of a file, a folder, or a pattern of files, without the characters of a pattern."""
    name = data.name if data.name else data.resolve().name
    return re.sub(r"[^\w.+-]+", "", name if data.is_dir() else Path(name.removesuffix(".gz")).stem) or "data"


def _print_flags(calibration: Calibration, errors: EnsembleErrors) -> None:
    """Print the share of frames that a monitor would flag, beside the false-flag rate of its threshold."""
    largest = errors.largest_deviation
    print("frames above the threshold for a false-flag rate of")
    for rate in (0.001, 0.01):
        threshold = calibration.threshold(rate)
        print(f"  {rate:6.1%} {1000.0 * threshold:12.1f} meV/Å {(largest > threshold).mean():10.1%}")
