"""From a TOML file to a validated configuration whose files are there."""

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
        The file. Table ``[model]`` takes the fields of `SchNetConfig` and ``preset`` (``"md"``, ``"small"``,
        ``"default"`` or ``"large"``) that they change.
    data_root
        Where relative paths of ``[data]`` start; None: the folder of `path`.
    initial
        Trained weights that the training is to start from, an entry, a run or a file: without a table ``[model]`` the
        network is theirs.

    Raises
    ------
    ConfigError
        The file is missing, not TOML, has a key that does not exist or a value of the wrong type, or names a data file
        that is not there.
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
    """The content of a TOML file.

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
    """A configuration of the given kind from the content of `file`; ``[model]`` may start from a preset.

    Raises
    ------
    ConfigError
        A key that does not exist, or a value of the wrong type.
    """
    try:
        if "model" in table:
            table = {**table, "model": _model(table["model"]).to_dict()}
        # As JSON, since strict validation takes tables for dataclasses only there.
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
        fixed_terms(config)  # a missing package is an error now, not after the data were read
        return config
    except ValidationError as error:
        raise ValueError(first_mistake(error, SchNetConfig, prefix="model.")) from error


def existing(root: Path, name: str, config: Path, key: str) -> str:
    """The path of a data file that a configuration names.

    Raises
    ------
    ConfigError
        It is not there.
    """
    if name == QM9_PACKAGE:
        return name
    path = root / name
    if not path.exists() and not glob(path.name, root_dir=path.parent):
        raise ConfigError(f"{config}: {key} is {name!r}, but there is no file {path}; correct it or give --data-root")
    return str(path)


def _under(root: Path, name: str) -> str:
    return name if name == QM9_PACKAGE else str(root / name)
