"""Compile the engine before it is needed."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from schnet_ase.engine import compiled_half_list
from schnet_ase.engine.jit import cache_folder
from schnet_ase.geometry.system import Geometry
from schnet_ase.inference.compiled import CompiledSchNet
from schnet_ase.inference.networks import FixedNetworks
from schnet_ase.networks import SchNet, SchNetConfig

DTYPES = ("float32", "float64")


def compile_engine() -> Path | None:
    """Compile all functions of the engine for both dtypes, by a process each, unless their machine code is kept.

    Returns
    -------
    Path or None
        Folder that keeps the machine code; None if none can be written to, so that each process compiles.
    """
    with ProcessPoolExecutor(len(DTYPES), mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(compile_for, DTYPES))
    return cache_folder()


def compile_for(dtype: str) -> None:
    """Run each function of the engine once, on a crystal and a tiny network."""
    config = SchNetConfig(n_features=8, n_interactions=1, n_rbf=4, cutoff=3.0, gamma=None, envelope="polynomial")
    crystal = Geometry(
        np.array([6, 6]), np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), 2.5 * np.eye(3), np.ones(3, bool)
    )
    pairs = compiled_half_list(crystal.positions, crystal.cell, crystal.pbc, config.cutoff)
    CompiledSchNet(FixedNetworks([SchNet(config)]), dtype, threads=1)(crystal, pairs, pair_gradients=True)
