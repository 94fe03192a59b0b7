"""Names for what the fixtures `make_model` and `make_calculator` return."""

from collections.abc import Callable

from ase.calculators.calculator import Calculator

from schnet_ase import SchNet

ModelFactory = Callable[..., SchNet]
CalculatorFactory = Callable[..., Calculator]
