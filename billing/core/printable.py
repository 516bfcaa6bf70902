"""Text from outside: whether it is text at all, and how it is shown: no cursor moved, no line turned around."""

from __future__ import annotations

from typing import Final

#: Characters of one value that a message shows (L9).
SHOWN_MAX: Final = 1_000


def printable(text: str) -> str:
    """Return text with what does not print, or prints backwards, written as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(value: object) -> str:
    """Return any value as a message shows it: one line, bounded. Never raises."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a number of more digits than Python prints, endless nesting, a foreign repr
        return f"a {type(value).__name__} that cannot be shown"
    return printable(text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…")


def is_unicode(text: str) -> bool:
    """Whether text has no half of a surrogate pair, which JSON can carry and neither id nor event can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
