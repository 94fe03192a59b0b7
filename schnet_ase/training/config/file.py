"""Read a TOML file into a validated configuration whose data files exist."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from schnet_ase.data.readers.qm9 import PACKAGE as QM9_PACKAGE
from schnet_ase.errors import ConfigError
from schnet_ase.networks import SchNetConfig
from schnet_ase.priors import fixed_terms
from schnet_ase.registry.loading import locate_members
from schnet_ase.training.config.mistakes import first_mistake
from schnet_ase.training.config.tables import PRESETS, RunConfig

T = TypeVar("T")


def load_config(
    path: str | os.PathLike[str],
    data_root: str | os.PathLike[str] | None = None,
    initial: str | os.PathLike[str] | None = None,
) -> RunConfig:
    """Read and validate a TOML file.

    Parameters
    ----------
    path
        The TOML file. Table ``[model]`` takes ``preset`` (``"md"``, ``"small"``, ``"default"`` or ``"large"``) and the
        fields of `SchNetConfig`, which override those of the preset.
    data_root
        Folder that relative paths in ``[data]`` start from; None: the folder of `path`.
    initial
        Trained weights to start from: an entry, a run or a file. If the table ``[model]`` is missing, the network gets
        the architecture of these weights.

    Returns
    -------
    RunConfig
        The configuration, with paths that include `data_root`.

    Raises
    ------
    ConfigError
        The file is missing or not TOML, has an unknown key or a value of the wrong type, or names a data file that does
        not exist.
    RegistryError, CheckpointError
        `initial` cannot be found or read.
    """
    file = Path(path)
    table = read_toml(file)
    if initial is not None and "model" not in table:
        table = {**table, "model": locate_members(initial)[0].model.config.to_dict()}
    config = validated(file, table, RunConfig)
    root = file.parent if data_root is None else Path(data_root)
    data, test = config.data, config.data.test
    if (extra := data.extra_of(0)) is not None:
        existing(root, extra, file, "data.extra")
    data = replace(
        data,
        file=existing(root, data.file, file, "data.file"),
        test=existing(root, test, file, "data.test") if isinstance(test, str) else test,
        extra=None if data.extra is None else _under(root, data.extra),
        exclude=None if data.exclude is None else existing(root, data.exclude, file, "data.exclude"),
    )
    return replace(config, data=data)


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    ConfigError
        The file is missing or not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file; expected a TOML configuration") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: not a TOML file ({error})") from error


def validated(file: Path, table: dict[str, Any], kind: type[T]) -> T:
    """Return a configuration of the given kind from `table`, the content of `file`; ``[model]`` may name a preset.

    Raises
    ------
    ConfigError
        A key is unknown, or a value has the wrong type.
    """
    try:
        if "model" in table:
            table = {**table, "model": _model(table["model"]).to_dict()}
        # Validate as JSON, because only there strict validation accepts tables for dataclasses.
        return TypeAdapter(kind).validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise ConfigError(f"{file}: {first_mistake(error, kind)}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error


def _model(table: Any) -> SchNetConfig:
    if not isinstance(table, dict):
        raise ValueError(f"model is {table!r}; expected a table [model]")
    given = {**table}
    preset = given.pop("preset", "md")
    if preset not in PRESETS:
        raise ValueError(f"model.preset is {preset!r}; expected one of {', '.join(PRESETS)}")
    if given.get("gamma") == "spacing":
        given["gamma"] = None
    try:
        config = SchNetConfig(**{**PRESETS[preset]().to_dict(), **given})
        fixed_terms(config)  # report a missing package now, not after reading the data
        return config
    except ValidationError as error:
        raise ValueError(first_mistake(error, SchNetConfig, prefix="model.")) from error


def existing(root: Path, name: str, config: Path, key: str) -> str:
    """Return the path of a data file that a configuration names.

    Raises
    ------
    ConfigError
        The file does not exist.
    """
    if name == QM9_PACKAGE:
        return name
    path = root / name
    if not path.exists() and not glob(path.name, root_dir=path.parent):
        raise ConfigError(f"{config}: {key} is {name!r}, but there is no file {path}; correct it or give --data-root")
    return str(path)


def _under(root: Path, name: str) -> str:
    return name if name == QM9_PACKAGE else str(root / name)
