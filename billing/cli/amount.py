"""The command line's parameter types: they refuse with the field, the value and the rule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import click

from billing.core.credits import CREDITS_MAX, check_amount, parse_amount
from billing.core.errors import InvalidValue


class Amount(click.ParamType[Any]):
    """A whole number, of credits mostly."""

    name = "amount"

    def __init__(self, minimum: int = 1) -> None:
        self._minimum = minimum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ARG002 - the signature is click's
        """Read the number, or raise `InvalidValue`: one line and exit code 2, where click would print its usage too."""
        return parse_amount(_name(param), str(value), minimum=self._minimum)


class SignedAmount(click.ParamType[Any]):
    """A whole number of credits, or the same below 0."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ARG002 - click's
        """Read the number, or raise `InvalidValue`."""
        text = str(value)
        try:
            number = int(text[1:] if text.startswith(("-", "+")) else text)
        except ValueError:
            rule = f"must be a whole number from 1 to {CREDITS_MAX}, or the same below 0"
            raise InvalidValue(_name(param), text, rule) from None
        amount = check_amount(_name(param), number)
        return -amount if text.startswith("-") else amount


class Instant(click.ParamType[Any]):
    """An instant in ISO 8601; without a zone it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ARG002 - click's
        """Read the instant, or raise `InvalidValue`."""
        if isinstance(value, datetime):
            return value
        try:
            instant = datetime.fromisoformat(str(value))
        except ValueError:
            rule = "must be a time as 2026-11-21 or 2026-11-21T08:00:00Z"
            raise InvalidValue(_name(param), value, rule) from None
        return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _name(param: click.Parameter | None) -> str:
    """Return what the user calls a parameter: `--from`, `credits`."""
    return "amount" if param is None else param.opts[0]


#: Lets a negative number be refused as the value that it is; click would take `-5` for an unknown option.
NEGATIVE_NUMBERS: Final = {"ignore_unknown_options": True}
CREDITS: Final = Amount()
PRICE: Final = Amount(minimum=0)
PRIORITY: Final = Amount(minimum=0)
SIGNED_CREDITS: Final = SignedAmount()
INSTANT: Final = Instant()
