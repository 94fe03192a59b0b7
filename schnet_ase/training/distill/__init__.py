"""Distillation: one network learns the mean of an ensemble on frames of the ensemble's own dynamics."""

from schnet_ase.training.distill.config import Sampling, StudentConfig, load_student_config
from schnet_ase.training.distill.run import Distillation, distill

__all__ = ["Distillation", "Sampling", "StudentConfig", "distill", "load_student_config"]
