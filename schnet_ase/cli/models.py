"""Commands about models: what there is, what a card says, which engine one gets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from schnet_ase.cli.common import mev, print_calibration

if TYPE_CHECKING:
    from schnet_ase.registry.loading import Loaded
    from schnet_ase.uncertainty.metrics import Errors


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models that can be used by name, and those that can be had."""
    if context.invoked_subcommand is not None:
        return
    from schnet_ase.registry.lookup import list_models, listings

    installed = list_models()
    for card in installed:
        test = card.metrics.test
        errors = "" if test is None else f"  test MAE {mev(test.energy_mae)} meV, {mev(test.force_mae)} meV/Å"
        print(f"{card.name:24s} {len(card.members)} members  {' '.join(card.elements):12s}{errors}")
    others = [x for _, x in sorted(listings().items()) if x.name not in {card.name for card in installed}]
    for x in others:
        command = f"schnet-ase models get {x.name}{'' if x.address else ' --from FOLDER'}"
        print(f"{x.name:24s} {x.size / 1e6:6.1f} MB  {' '.join(x.elements):12s}  not installed: {command}")
    if any(x.address is None for x in others):
        print("FOLDER: models/NAME in the source repository of schnet_ase, or any folder or https address of the entry")


@models.command("show")
@click.argument("name")
def models_show(name: str) -> None:
    """Print the card of the model NAME, or of the entry in a folder; of a run or a file, what the file says."""
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
    stresses = any(errors is not None and errors.stress_mae is not None for _, errors in rows)
    stress_title = "   stress (meV/Å³)" if stresses else ""
    print(f"  {'MAE':28s} energy (meV)   force (meV/Å)   force RMSE (meV/Å){stress_title}")
    for label, errors in rows:
        if errors is not None:
            numbers = f"{mev(errors.energy_mae):>12s}   {mev(errors.force_mae):>13s}   {mev(errors.force_rmse):>18s}"
            stress = f"   {mev(errors.stress_mae):>15s}" if stresses else ""
            print(f"  {label:28s} {numbers}{stress}")
    print_calibration(card)
    if card.dynamics is not None:
        print("\n".join(card.dynamics.lines()))


def _print_network(network: Loaded) -> None:
    """What a checkpoint that belongs to no entry says of itself."""
    from ase.data import chemical_symbols

    from schnet_ase.registry.checkpoint import read_provenance

    made = read_provenance(network.path)
    row = made.get("validation", {})
    validation = row.get("errors", {})
    frames = [len(made.get(key, ())) for key in ("training_frames", "validation_frames")]
    print(f"{network.path}: a network without a card")
    for label, text in (
        ("elements", " ".join(chemical_symbols[z] for z in network.model.elements or ())),
        ("formulas", ", ".join(made.get("formulas") or ())),
        ("training data", made.get("data_file")),
        ("frames", f"{frames[0]} to train, {frames[1]} to validate on" if any(frames) else None),
        ("steps", row and f"{row['step']} of {made['training']['steps']}"),
        ("validation", validation and f"MAE {mev(validation['energy_mae'])} meV, {mev(validation['force_mae'])} meV/Å"),
        ("made with", ", ".join(f"{k} {v}" for k, v in made.get("versions", {}).items())),
    ):
        if text:
            print(f"  {label:16s} {text}")


@models.command("get")
@click.argument("name")
@click.option("--from", "source", help="Folder or https address of its files.  [default: that of the index]")
@click.option("--sha256", help="Of its card.json.  [default: that of the index]")
def models_get(name: str, source: str | None, sha256: str | None) -> None:
    """Install the model NAME in your data folder, whole or not at all; the same command resumes."""
    from schnet_ase.registry.install import install_entry

    card = install_entry(name, source, sha256=sha256)
    print(f"{card.name}: {len(card.members)} members in {card.path}")


@models.command("index")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--address", help="Where a copy of FOLDER can be got.  [default: what the index says]")
def models_index(folder: Path, address: str | None) -> None:
    """Write the index of the entries in FOLDER, so that others can list and get them."""
    from schnet_ase.registry.index import INDEX_FILE, write_index

    listings = write_index(folder, address)
    print(f"wrote {folder / INDEX_FILE}: {', '.join(x.name for x in listings)}")


@click.command()
@click.argument("model", required=False)
def info(model: str | None) -> None:
    """Print versions, devices, where models are looked for, and which engine MODEL gets."""
    from importlib.metadata import version

    import torch

    from schnet_ase.calculators.single import SchNetCalculator
    from schnet_ase.priors import describe_terms
    from schnet_ase.registry.loading import load_model
    from schnet_ase.registry.lookup import search_path

    calculator = None if model is None else SchNetCalculator(model)  # first: it may not be there
    for name in ("schnet_ase", "torch", "ase", "numpy", "numba", "matscipy"):
        print(f"{name:12s} {version(name)}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    print(f"{'device':12s} {device}")
    if calculator is not None:
        print(f"{'engine':12s} {calculator.engine.name}: {calculator.engine.reason}")
        if terms := describe_terms(load_model(str(model)).config):
            print(f"{'priors':12s} {terms}")
    print(f"{'models in':12s} " + f"\n{'':12s} ".join(str(p) for p in search_path() if p.is_dir()))
