"""When a client's balance is short, and how long nothing is asked after an answer. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Self

from billing.core.credits import check_amount
from billing.core.errors import InvalidValue
from billing.credits.terms import ORDINARY
from billing.credits.values import Balance

#: What a request was made for.
LOW: Final = "low"
REFUSED: Final = "refused"
_PERCENT_MAX: Final = 99
_SECONDS_MIN: Final = 60
_SECONDS_MAX: Final = 366 * 86_400
_DOUBLINGS_MAX: Final = 32


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What to ask for, and when. One of `below_percent` and `below_credits` is set."""

    client_id: str
    credits: int
    below_percent: int | None = None
    below_credits: int | None = None
    cool_off_seconds: int
    back_off_seconds: int
    back_off_max_seconds: int

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Return the rule of a row that has its columns, among others."""
        return cls(**{field.name: row[field.name] for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Short:
    """A balance that is short: why, and what it had."""

    why: str
    available: int


def check_rule(rule: Rule) -> Rule:
    """Return the rule if each part of it is within its bounds."""
    check_amount("credits", rule.credits)
    if (rule.below_percent is None) == (rule.below_credits is None):
        both = (rule.below_percent, rule.below_credits)
        raise InvalidValue("below", both, "must be either a percentage or a number of credits")
    if rule.below_credits is not None:
        check_amount("below_credits", rule.below_credits)
    elif not _whole(rule.below_percent, 1, _PERCENT_MAX):
        raise InvalidValue("below_percent", rule.below_percent, f"must be a whole number from 1 to {_PERCENT_MAX}")
    for name in ("cool_off_seconds", "back_off_seconds", "back_off_max_seconds"):
        least = rule.back_off_seconds if name == "back_off_max_seconds" else _SECONDS_MIN
        if not _whole(getattr(rule, name), least, _SECONDS_MAX):
            raise InvalidValue(name, getattr(rule, name), f"must be a whole number from {least} to {_SECONDS_MAX}")
    return rule


def shortfall(rule: Rule, balance: Balance, *, coming: int, refused: bool) -> Short | None:
    """Return what is short, or None. `coming`: what the ledger has granted and the bucket has not yet.

    `refused`: a reserve was refused since the last grant, although something was left. What comes may well be enough
    for it, so it is looked at again when that is there.
    """
    at_hand = balance.available + coming
    if at_hand < _mark(rule, balance, coming):
        return Short(why=LOW, available=balance.available)
    if refused and not coming:
        return Short(why=REFUSED, available=balance.available)
    return None


def back_off(rule: Rule, declines: int) -> timedelta:
    """Return the pause after so many declines in a row: it doubles, up to the rule's maximum."""
    doublings = min(max(declines, 1) - 1, _DOUBLINGS_MAX)
    return timedelta(seconds=min(rule.back_off_max_seconds, rule.back_off_seconds * 2**doublings))


def _mark(rule: Rule, balance: Balance, coming: int) -> int:
    """Return the credits below which a balance is short; a percentage is that of alerts (credits/lua/marks.lua)."""
    if rule.below_credits is not None:
        return rule.below_credits
    usable = [
        grant
        for grant in balance.grants
        if grant.grant_id in balance.order
        and not grant.expired
        and not balance.grant_terms.get(grant.grant_id, ORDINARY).voided_ms
    ]
    brought = coming + sum(grant.available + grant.held + grant.spent for grant in usable)
    return max(1, -(-brought * (rule.below_percent or 0) // 100))


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
