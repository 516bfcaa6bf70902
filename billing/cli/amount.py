"""The command line's parameter types: they refuse with the field, the value and the rule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import click

from billing.core.credits import parse_amount
from billing.core.errors import InvalidValue


class Amount(click.ParamType[Any]):
    """A whole number of credits."""

    name = "amount"

    def __init__(self, minimum: int = 1) -> None:
        self._minimum = minimum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number, or fail with exit code 2."""
        try:
            return parse_amount(param.name if param and param.name else "amount", str(value), minimum=self._minimum)
        except InvalidValue as error:
            self.fail(f"{error.value!r}: {error.rule}", param, ctx)


class Instant(click.ParamType[Any]):
    """An instant in ISO 8601; without a zone it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read the instant, or fail with exit code 2."""
        if isinstance(value, datetime):
            return value
        try:
            instant = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r}: must be a time as 2026-11-21 or 2026-11-21T08:00:00Z", param, ctx)
        return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


CREDITS: Final = Amount()
PRICE: Final = Amount(minimum=0)
INSTANT: Final = Instant()
