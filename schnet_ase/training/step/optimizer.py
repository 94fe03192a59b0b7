"""The optimizer of a training and its learning rate at each step."""

from __future__ import annotations

import math

import torch

from schnet_ase.training.config import TrainingConfig
from schnet_ase.training.step.soap import SOAP


def make_optimizer(config: TrainingConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimizer of a configuration; every step sets its learning rate."""
    if config.optimizer == "soap":
        return SOAP(parameters, lr=0.0, weight_decay=config.weight_decay)
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=config.weight_decay, fused=True)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of a step (counted from 0): warm-up and cosine to zero, or the report's factors of
    0.96."""
    if config.schedule == "report":
        return config.rate * 0.96 ** (step // 100_000)
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return config.rate * warmup * 0.5 * (1.0 + math.cos(math.pi * step / config.steps))
