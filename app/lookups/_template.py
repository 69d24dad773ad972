"""Requests and answers that settings describe: texts with the number in them, and what may be a field."""

from __future__ import annotations

from app.lookups._fields import Unreadable


def filled(template: object, number: str, digits: str) -> object:
    """The template with the number in each of its texts, at any depth."""
    if isinstance(template, str):
        return template.replace("{number}", number).replace("{digits}", digits)
    if isinstance(template, dict):
        return {key: filled(value, number, digits) for key, value in template.items()}
    return [filled(value, number, digits) for value in template] if isinstance(template, list) else template


def leaf(value: object) -> object:
    if isinstance(value, dict | list):
        raise Unreadable("an object or a list where a field should lie")
    return value
