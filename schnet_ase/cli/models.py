"""Commands about models: list, show, install and check them, and report the engine of a model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from schnet_ase.cli.common import FiniteRange, mev, print_calibration, print_index_hint

if TYPE_CHECKING:
    from schnet_ase.registry.loading import Loaded
    from schnet_ase.uncertainty.metrics import Errors


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the installed models, and those available for installation."""
    if context.invoked_subcommand is not None:
        return
    from schnet_ase.registry.lookup import list_models, listings

    installed = list_models()
    for card in installed:
        test = card.metrics.test
        errors = "" if test is None else f"  test MAE {mev(test.energy_mae)} meV, {mev(test.force_mae)} meV/Å"
        mark = "" if card.experimental is None else f"  experimental: {card.experimental}"
        n = len(card.members)
        networks = f"{n} member{'s' if n > 1 else ''}{'' if card.student is None else ', student'}"
        print(f"{card.name:24s} {networks:18s}  {' '.join(card.elements):12s}{errors}{mark}")
    others = [x for _, x in sorted(listings().items()) if x.name not in {card.name for card in installed}]
    for x in others:
        command = f"schnet-ase models get {x.name}{'' if x.address else ' --from FOLDER'}"
        print(f"{x.name:24s} {x.size / 1e6:6.1f} MB  {' '.join(x.elements):12s}  not installed: {command}")
    if any(x.address is None for x in others):
        print("FOLDER: models/NAME in the source repository of schnet_ase, or any folder or https address of the entry")


@models.command("show")
@click.argument("name")
def models_show(name: str) -> None:
    """Print the card of the model NAME or of the entry in a folder; for a run or a file, print its provenance."""
    from schnet_ase.registry.loading import locate_members
    from schnet_ase.registry.lookup import owning_card

    card = owning_card(name)
    if card is None:
        for network in locate_members(name):
            _print_network(network)
        return
    data = card.data
    print(f"{card.name}: {data.description}" if data.description else card.name)
    for label, text in (
        *([] if card.experimental is None else [("experimental", card.experimental)]),
        ("folder", card.path),
        ("elements", " ".join(card.elements)),
        *([] if data.formulas is None else [("formulas", ", ".join(data.formulas))]),
        ("level of theory", data.level_of_theory),
        ("temperature", data.temperature),
        ("training data", f"{data.file}, {data.n_frames} frames ({data.licence})"),
        *([] if data.extra is None else [("trained also on", data.extra)]),
        ("split", data.split),
        ("started from", "random weights" if data.initial is None else f"weights trained on {data.initial}"),
        ("made by", card.command),
        ("made with", ", ".join(f"{k} {v}" for k, v in card.versions.items())),
    ):
        print(f"  {label:16s} {text}")
    rows: list[tuple[str, Errors | None]] = []
    for member in card.members:
        stem = Path(member.file).stem
        rows += [(f"{stem}, validation", member.validation), (f"{stem}, test", member.test)]
    if len(card.members) > 1:
        rows += [("ensemble, calibration", card.metrics.calibration), ("ensemble, test", card.metrics.test)]
    if card.student is not None:
        rows += [("student, against the mean", card.student.validation), ("student, test", card.student.test)]
    stresses = any(errors is not None and errors.stress_mae is not None for _, errors in rows)
    stress_title = "   stress (meV/Å³)" if stresses else ""
    print(f"  {'MAE':28s} energy (meV)   force (meV/Å)   force RMSE (meV/Å){stress_title}")
    for label, errors in rows:
        if errors is not None:
            numbers = f"{mev(errors.energy_mae):>12s}   {mev(errors.force_mae):>13s}   {mev(errors.force_rmse):>18s}"
            stress = f"   {mev(errors.stress_mae):>15s}" if stresses else ""
            print(f"  {label:28s} {numbers}{stress}")
    print_calibration(card)
    if card.environments is not None:
        known = card.environments
        print(f"reference environments: up to {known.per_element} an element, from {known.n_frames} training frames")
    if card.student is not None:
        print("\n".join(card.student.lines(card.metrics.test)))
    if card.later_prior is not None:
        print("\n".join(card.later_prior.lines()))
    if card.dynamics is not None:
        print("\n".join(card.dynamics.lines()))


def _print_network(network: Loaded) -> None:
    """Print the provenance of a checkpoint that belongs to no entry."""
    from ase.data import chemical_symbols

    from schnet_ase.registry.provenance import Provenance

    made = Provenance.read(network.path)
    row, training = made.validation, made.identity.training or {}
    frames = [len(indices or ()) for indices in (made.identity.training_frames, made.identity.validation_frames)]
    print(f"{network.path}: a network without a card")
    for label, text in (
        ("elements", " ".join(chemical_symbols[z] for z in network.model.elements or ())),
        ("formulas", ", ".join(made.origin.formulas or ())),
        ("training data", made.identity.data_file),
        ("frames", f"{frames[0]} to train, {frames[1]} to validate on" if any(frames) else None),
        ("steps", row and f"{row.step} of {training['steps']}"),
        ("validation", row and f"MAE {mev(row.errors.energy_mae)} meV, {mev(row.errors.force_mae)} meV/Å"),
        ("made with", ", ".join(f"{k} {v}" for k, v in (made.versions or {}).items())),
    ):
        if text:
            print(f"  {label:16s} {text}")


@models.command("get")
@click.argument("name")
@click.option("--from", "source", help="Folder or https address of its files.  [default: from the index]")
@click.option("--sha256", help="SHA-256 of its card.json.  [default: from the index]")
def models_get(name: str, source: str | None, sha256: str | None) -> None:
    """Install the model NAME in your data folder.

    An interrupted installation leaves no incomplete entry; the same command resumes it.
    """
    from schnet_ase.registry.install import install_entry

    card = install_entry(name, source, sha256=sha256)
    print(f"{card.name}: {len(card.members)} members{'' if card.student is None else ' and a student'} in {card.path}")


@models.command("check")
@click.argument("name")
@click.option("--temperature", default=500.0, show_default=True, type=FiniteRange(0, min_open=True), help="K.")
@click.option("--picoseconds", default=100.0, show_default=True, type=FiniteRange(0.001), help="Length of each run.")
@click.option(
    "--seeds", default=1, show_default=True, type=click.IntRange(1), help="Number of runs, with seeds 0, 1, ..."
)
@click.option(
    "--molecule",
    "molecules",
    multiple=True,
    metavar="ENTRY",
    help="Start also from the structure of ENTRY, whose molecule NAME must be trained on; may be repeated.",
)
@click.option("--times", is_flag=True, help="Only measure the time per step again, without runs.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Number of runs at a time.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the runs.  [default: runs/NAME-check]")
def models_check(
    name: str,
    temperature: float,
    picoseconds: float,
    seeds: int,
    molecules: tuple[str, ...],
    times: bool,
    workers: int,
    output: Path | None,
) -> None:
    """Run dynamics of the entry NAME until a bond breaks, time its steps, and write that into its card.

    An entry whose bonds break is marked as experimental. The same command resumes an interrupted check, and a check
    with more --picoseconds continues a shorter one.
    """
    from schnet_ase.stability.check import check_entry, time_entry

    if times:
        checked = time_entry(name, output)
    else:
        checked = check_entry(
            name,
            temperature=temperature,
            picoseconds=picoseconds,
            seeds=seeds,
            molecules=molecules,
            workers=workers,
            folder=output,
            command=shlex.join(["schnet-ase", *sys.argv[1:]]),
        )
    card = checked.card
    assert card.dynamics is not None
    print("\n".join((*checked.runs, *card.dynamics.lines())))
    print(f"wrote {checked.file}")
    if checked.obstacle is not None:
        print(f"{card.path} cannot be written ({checked.obstacle.strerror}); copy this file there to keep the result")
    else:
        print_index_hint(card)
    print(checked.verdict())


@models.command("index")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--address", help="Address from which FOLDER can be downloaded.  [default: from the old index]")
def models_index(folder: Path, address: str | None) -> None:
    """Write the index of the entries in FOLDER, so that others can list and install them."""
    from schnet_ase.registry.index import INDEX_FILE, write_index

    listings = write_index(folder, address)
    print(f"wrote {folder / INDEX_FILE}: {', '.join(x.name for x in listings)}")


@click.command()
@click.argument("model", required=False)
@click.option(
    "--compile", "ahead", is_flag=True, help="Compile the CPU engine now, for both dtypes at once, and say where."
)
def info(model: str | None, ahead: bool) -> None:
    """Print versions, devices, the search path of models, and the engine that MODEL gets."""
    from importlib.metadata import version

    import torch

    from schnet_ase.calculators.single import SchNetCalculator
    from schnet_ase.inference.ahead import compile_engine
    from schnet_ase.priors import describe_terms
    from schnet_ase.registry.loading import load_model
    from schnet_ase.registry.lookup import search_path

    calculator = None if model is None else SchNetCalculator(model)  # first, since the model may not exist
    for name in ("schnet_ase", "torch", "ase", "numpy", "numba", "matscipy"):
        print(f"{name:12s} {version(name)}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    print(f"{'device':12s} {device}")
    if calculator is not None:
        print(f"{'engine':12s} {calculator.engine.name}: {calculator.engine.reason}")
        if terms := describe_terms(load_model(str(model)).config):
            print(f"{'priors':12s} {terms}")
    if ahead:
        print(f"{'machine code':12s} {compile_engine()}")
    print(f"{'models in':12s} " + f"\n{'':12s} ".join(str(p) for p in search_path() if p.is_dir()))
