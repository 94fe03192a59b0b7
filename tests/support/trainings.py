"""Trainings of a few steps, and their weights."""

import dataclasses

import torch

from schnet_ase import load_model
from schnet_ase.training import load_config
from tests.support.frames import write_run


def configured(tmp_path, **training):
    config = load_config(write_run(tmp_path))
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **training))


def weights(path):
    return load_model(path).state_dict()


def equal_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))
