"""Credits are whole numbers, at most 2^53 - 1: Lua numbers are doubles, and past that they lose units.

This is the one place where an outside amount becomes credits; it refuses everything that is not a plain `int`.
"""

from __future__ import annotations

from typing import Final

from billing.core.errors import InvalidValue

#: The largest amount that Redis' Lua represents exactly (IEEE 754 double).
CREDITS_MAX: Final = 2**53 - 1

#: The "grant" that stands where credits have a grant and no grant covers them: debt, and the overdraft room of holds.
NO_GRANT: Final = 0


def check_amount(field: str, value: object, *, minimum: int = 1) -> int:
    """Return `value` if it is a whole number from `minimum` to `CREDITS_MAX`, else raise `InvalidValue`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidValue(field, value, f"must be a whole number from {minimum} to {CREDITS_MAX}")
    if not minimum <= value <= CREDITS_MAX:
        raise InvalidValue(field, value, f"must be from {minimum} to {CREDITS_MAX}")
    return value


def parse_amount(field: str, text: str, *, minimum: int = 1) -> int:
    """Read an amount typed by a person: digits, with `_` allowed between them as in Python."""
    try:
        value = int(text)
    except ValueError:
        raise InvalidValue(field, text, f"must be a whole number from {minimum} to {CREDITS_MAX}") from None
    return check_amount(field, value, minimum=minimum)
