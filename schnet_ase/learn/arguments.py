"""Arguments that a calculator takes without a word and never looks at, such as misspelt ones."""

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
"""A class that does this with all its parameters does not say in its own module which it takes."""


def ignored_arguments(calculator: object, arguments: dict[str, Any]) -> list[str]:
    """Names that the calculator keeps among its parameters, but that its class does not know.

    ASE's ``Calculator`` accepts any keyword. Only a class that lists its parameters in ``default_parameters`` can be
    held to them, and only if it does not write them to an input file (``FileIOCalculator``) or hand all of them on. A
    name is known where that list has it, where a constructor of the class names it, or where the class's module reads
    it from the parameters. This rule rather misses a wrong name than that it doubts a right one.

    Parameters
    ----------
    calculator
        Made with the arguments.
    arguments
        By name.

    Returns
    -------
    list of str
        In the order given.
    """
    if not isinstance(calculator, Calculator) or isinstance(calculator, FileIOCalculator):
        return []
    if not calculator.default_parameters:
        return []
    own = [cls for cls in type(calculator).__mro__ if issubclass(cls, Calculator) and cls is not Calculator]
    try:
        sources = [inspect.getsource(sys.modules[cls.__module__]) for cls in own]
    except (OSError, TypeError):  # compiled, or typed in
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
    """Whether a module takes something of this name out of parameters or keyword arguments, or asks if it is there."""
    name = re.escape(name)
    of = r"\b(\w*param\w*|\w*kwargs|p)"
    patterns = (
        rf"{of}(\.get\(|\.pop\(|\[)\s*['\"]{name}['\"]",
        rf"{of}\.{name}\b",
        rf"['\"]{name}['\"]\s+(not\s+)?in\b",
    )
    return any(re.search(pattern, source) for pattern in patterns)
