"""Requests and answers that settings describe: texts with the number in them, and paths to where a field lies."""

from __future__ import annotations

from collections.abc import Sequence

from app.lookups._fields import Unreadable


def filled(template: object, number: str, digits: str) -> object:
    """The template with the number in each of its texts, at any depth."""
    if isinstance(template, str):
        return template.replace("{number}", number).replace("{digits}", digits)
    if isinstance(template, dict):
        return {key: filled(value, number, digits) for key, value in template.items()}
    return [filled(value, number, digits) for value in template] if isinstance(template, list) else template


def lies_at(value: object, path: str | Sequence[str]) -> object:
    """What lies at `data.lines.0.name`, or at the names of a list where names have dots. None where nothing does."""
    for step in path.split(".") if isinstance(path, str) else path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def leaf(value: object) -> object:
    if isinstance(value, dict | list):
        raise Unreadable("an object or a list where a field should lie")
    return value
