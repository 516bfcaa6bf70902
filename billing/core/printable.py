"""Text from outside, as it may be shown: nothing in it moves a cursor, turns a line around, or is a command."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text with what does not print, or prints backwards, written as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
