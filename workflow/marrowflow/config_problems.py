"""A wrong configuration in its user's words: where it stands, what was found, which key was meant."""

from __future__ import annotations

import difflib
import re
from typing import Any, get_args

from pydantic import BaseModel


def explain(model: type[BaseModel], detail: Any) -> str:
    """Put one pydantic error into the user's words: the key's path, what was found, what to do."""
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = sorted(_known_keys(model, detail["loc"][:-1]))
        return f"{place}: unknown key. {_suggestion(str(detail['loc'][-1]), known)}"
    if detail["type"] == "missing":
        return f"{place}: this key is needed and not given"
    message = re.sub(r"^Value error, ", "", detail["msg"])
    if detail["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place}: {message}; found {detail['input']!r}"


def _known_keys(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Return the keys allowed at a path below a model, looking through dicts, lists and optional sections."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[part].annotation if part in current.model_fields else None
        else:
            current = (get_args(current) or (None,))[-1]
        current = _section_within(current)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _section_within(annotation: Any) -> Any:
    """Unwrap ``Section | None``; leave ``dict[str, Section]`` for the next part of the path."""
    if isinstance(annotation, type):
        return annotation
    for argument in get_args(annotation):
        if (
            isinstance(argument, type)
            and issubclass(argument, BaseModel)
            and type(None) in get_args(annotation)
        ):
            return argument
    return annotation


def _suggestion(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known here: {', '.join(known) or 'nothing'}"


def not_among(name: str, known: list[str]) -> str:
    """Say that a name is none of the known ones, and which of them was probably meant."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"{name!r} is not one of {known}" + (f"; did you mean {near[0]!r}?" if near else "")
