"""Find arguments that a calculator accepts silently and never uses, such as misspelt ones."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

from ase.calculators.calculator import Calculator, FileIOCalculator

HANDS_ALL_ON = re.compile(
    r"(=|\*\*)\s*self\.parameters\s*[,)]"  # f(parameters=self.parameters), f(**self.parameters)
    r"|self\.parameters\.(items|keys|values)\("
    r"|\bfor \w+ in (sorted\()?self\.parameters\b(?!\.)"
)
"""The module of a class that passes all its parameters on does not show which ones it uses."""


def ignored_arguments(calculator: object, arguments: dict[str, Any]) -> list[str]:
    """Return names that the calculator keeps among its parameters, but that its class does not know.

    ASE's ``Calculator`` accepts any keyword. Only a class that lists its parameters in ``default_parameters`` can be
    checked, and only if it does not write them to an input file (``FileIOCalculator``) or pass all of them on. A name
    is known if that list has it, if a constructor of the class names it, or if the module of the class reads it from
    the parameters. This rule would rather miss a wrong name than doubt a right one.

    Parameters
    ----------
    calculator
        Calculator made with the arguments.
    arguments
        Arguments by name.

    Returns
    -------
    list of str
        Names in the order of `arguments`.
    """
    if not isinstance(calculator, Calculator) or isinstance(calculator, FileIOCalculator):
        return []
    if not calculator.default_parameters:
        return []
    own = [cls for cls in type(calculator).__mro__ if issubclass(cls, Calculator) and cls is not Calculator]
    try:
        sources = [inspect.getsource(sys.modules[cls.__module__]) for cls in own]
    except (OSError, TypeError):  # compiled, or typed in interactively
        return []
    if any(HANDS_ALL_ON.search(source) for source in sources):
        return []
    known = {*calculator.default_parameters, *_named(Calculator), *(name for cls in own for name in _named(cls))}
    return [
        name
        for name in arguments
        if name in calculator.parameters and name not in known and not any(_reads(name, s) for s in sources)
    ]


def _named(cls: type) -> list[str]:
    return list(inspect.signature(cls.__init__).parameters)  # type: ignore[misc]


def _reads(name: str, source: str) -> bool:
    """Return whether a module reads this name from parameters or keyword arguments, or tests for it."""
    name = re.escape(name)
    of = r"\b(\w*param\w*|\w*kwargs|p)"
    patterns = (
        rf"{of}(\.get\(|\.pop\(|\[)\s*['\"]{name}['\"]",
        rf"{of}\.{name}\b",
        rf"['\"]{name}['\"]\s+(not\s+)?in\b",
    )
    return any(re.search(pattern, source) for pattern in patterns)
