"""Describe a mistake in a table of a configuration in one line that names the key."""

from __future__ import annotations

import difflib
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from pydantic import ValidationError


def first_mistake(error: ValidationError, kind: Any, prefix: str = "") -> str:
    """Describe the first mistake of a table of the given kind in one line that names the key."""
    mistakes = error.errors()
    mistake, within = mistakes[0], _keys(mistakes[0]["loc"])
    key = prefix + within
    if mistake["type"] == "unexpected_keyword_argument":
        return f"key {key} is unknown; {_near(kind, within)}"
    if mistake["type"] in ("missing", "missing_argument"):
        return f"key {key} is missing"
    # For a value that may have several types, pydantic gives one reason per type.
    said = [m["msg"].removeprefix("Value error, ") for m in mistakes if _keys(m["loc"]) == within]
    if not within:  # the mistake concerns the whole table
        return said[0]
    if isinstance(mistake["input"], dict):
        return f"table {key}: {said[0]}"
    return f"key {key} is {mistake['input']!r}; {', or '.join(s[0].lower() + s[1:] for s in said)}"


def _near(kind: Any, within: str) -> str:
    """Suggest keys that may have been meant by one that the tables of `kind` do not have."""
    *tables, name = within.split(".")
    for table in tables:
        kind = get_type_hints(kind).get(table) if is_dataclass(kind) else None
    near = difflib.get_close_matches(name, [f.name for f in fields(kind)], n=2) if is_dataclass(kind) else []
    return f"did you mean {' or '.join(near)}?" if near else "remove it or correct its spelling"


def _keys(location: tuple[int | str, ...]) -> str:
    """Return the dotted keys of a location in the file, without pydantic's names for the types of a value."""
    kinds = ("constrained-", "function-", "literal[", "tuple[", "list[")
    keys = (str(part) for part in location)
    return ".".join(k for k in keys if not k.startswith(kinds) and k not in ("str", "int", "float", "bool"))
