"""From a customer's subscriptions, as Stripe tells them, to billing periods by meter. Pure.

A period is the item's own (`current_period_start` and `_end` of a subscription item): the items of one subscription may
have several. The period before it is the one that the latest invoice is about, as long as there is such an invoice.
Sources: Stripe's reference of subscriptions, items and invoices, and its guide to the grace period.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from billing.sinks.sync.planning.period_source import PeriodsFound
from billing.sinks.sync.planning.periods import CLOSING_MARGIN, KnownPeriod

#: An item that is this much younger than its period was added to it later: what was used before is not billed by it.
_ADDED_LATER: Final = timedelta(minutes=1)
#: Subscriptions that bill usage. Those of an unpaid one make draft invoices still.
_RUNNING: Final = ("active", "trialing", "past_due", "unpaid")
_OVER: Final = ("canceled",)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Billed:
    """An item of a subscription that bills the usage of a meter: its price, and the period that it is in."""

    event_name: str
    subscription_id: str
    item_id: str
    price_id: str
    status: str
    start: datetime
    end: datetime
    #: When the subscription ends, or has ended; None: it goes on.
    ends_at: datetime | None

    @property
    def runs(self) -> bool:
        """Whether usage of its present period is billed."""
        return self.status in _RUNNING


def billed(subscriptions: Sequence[Mapping[str, Any]], event_names: Mapping[str, str]) -> list[Billed]:
    """Return what some subscriptions bill of which meter; `event_names` are meters' event names by their ids."""
    found = []
    for subscription in subscriptions:
        for item in subscription["items"]["data"]:
            recurring = item["price"].get("recurring") or {}
            event_name = event_names.get(recurring.get("meter") or "")
            if event_name is None:
                continue
            start, end = _instant(item["current_period_start"]), _instant(item["current_period_end"])
            created = _instant(item["created"])
            later = created - start > _ADDED_LATER and created > _instant(subscription["created"]) + _ADDED_LATER
            found.append(
                Billed(
                    event_name=event_name,
                    subscription_id=subscription["id"],
                    item_id=item["id"],
                    price_id=item["price"]["id"],
                    status=subscription["status"],
                    start=created if later else start,
                    end=end,
                    ends_at=_ends_at(subscription, end),
                )
            )
    return found


def periods(
    subscriptions: Sequence[Mapping[str, Any]],
    invoices: Mapping[str, Mapping[str, Any]],
    event_names: Mapping[str, str],
    *,
    grace: timedelta,
) -> PeriodsFound:
    """Return the periods by meter. `invoices` are the latest ones, by subscription; `grace` is the account's."""
    found: dict[str, list[KnownPeriod]] = defaultdict(list)
    reasons: dict[str, str] = {}
    by_meter: dict[str, list[Billed]] = defaultdict(list)
    for one in billed(subscriptions, event_names):
        by_meter[one.event_name].append(one)
    for event_name, group in by_meter.items():
        for one in group:
            found[event_name] += _ended(one, invoices.get(one.subscription_id), grace)
        running = [one for one in group if one.runs]
        if len(running) > 1:
            names = " and ".join(sorted(one.subscription_id for one in running))
            reasons[event_name] = f"is billed twice, by {names}: end one of them"
        elif running:
            found[event_name] += [_present(running[0], grace)]
        else:
            states = ", ".join(sorted({f"{one.subscription_id} is {one.status}" for one in group}))
            reasons[event_name] = f"has no subscription that runs ({states})"
    return PeriodsFound(periods={name: _ordered(group) for name, group in found.items()}, reasons=reasons)


def _present(one: Billed, grace: timedelta) -> KnownPeriod:
    """Return the period that an item is in. After the last one there may be no invoice that waits for usage."""
    if one.ends_at is None:
        closes_at = one.end + grace - CLOSING_MARGIN
        return KnownPeriod(start=one.start, end=one.end, closes_at=closes_at, subscription_id=one.subscription_id)
    end = min(one.end, one.ends_at)
    closes_at = end - CLOSING_MARGIN
    return KnownPeriod(start=one.start, end=end, closes_at=closes_at, ended=True, subscription_id=one.subscription_id)


def _ended(one: Billed, invoice: Mapping[str, Any] | None, grace: timedelta) -> Iterator[KnownPeriod]:
    """Yield the period that the latest invoice is about, and the last one of a subscription that is over."""
    told = None if invoice is None else _told(one, invoice)
    if invoice is not None and told is not None:
        start, end = told
        over = one.status in _OVER and end >= min(one.end, one.ends_at or one.end)
        closes_at = _closes_at(invoice, end, grace=timedelta(0) if over else grace)
        yield KnownPeriod(start=start, end=end, closes_at=closes_at, ended=over, subscription_id=one.subscription_id)
        if over:
            return
    if one.status in _OVER:
        end = min(one.end, one.ends_at or one.end)
        if one.start < end:
            closes_at = end - CLOSING_MARGIN
            yield KnownPeriod(
                start=one.start, end=end, closes_at=closes_at, ended=True, subscription_id=one.subscription_id
            )


def _told(one: Billed, invoice: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """Return the period of usage that an invoice bills of an item, unless it is the present one or none."""
    latest = min(one.end, one.ends_at or one.end) if one.status in _OVER else one.start
    spans = [
        (line["period"]["start"], line["period"]["end"])
        for line in (invoice.get("lines") or {}).get("data") or ()
        if _item_of(line) == one.item_id
    ]
    if not spans and invoice.get("billing_reason") == "subscription_cycle":
        # It says of itself that it looks back one period.
        spans = [(invoice["period_start"], invoice["period_end"])]
    ended = [(_instant(start), _instant(end)) for start, end in spans]
    return max((span for span in ended if span[0] < span[1] <= latest), default=None)


def _item_of(line: Mapping[str, Any]) -> str | None:
    details = (line.get("parent") or {}).get("subscription_item_details") or {}
    found: str | None = details.get("subscription_item")
    return found


def _closes_at(invoice: Mapping[str, Any], end: datetime, *, grace: timedelta) -> datetime:
    """Return from when on an invoice may be final: Stripe's own word where it has one, else the account's grace."""
    finalized_at = (invoice.get("status_transitions") or {}).get("finalized_at")
    if invoice["status"] != "draft":
        known = end + grace - CLOSING_MARGIN
        return known if finalized_at is None else min(known, _instant(finalized_at))
    planned = invoice.get("automatically_finalizes_at")
    return (end + grace if planned is None else _instant(planned)) - CLOSING_MARGIN


def _ends_at(subscription: Mapping[str, Any], period_end: datetime) -> datetime | None:
    """Return when a subscription ends within the period that it is in, or None."""
    ended_at, cancel_at = subscription.get("ended_at"), subscription.get("cancel_at")
    if ended_at is not None:
        return _instant(ended_at)
    if subscription.get("cancel_at_period_end"):
        return period_end
    if cancel_at is not None and _instant(cancel_at) <= period_end:
        return _instant(cancel_at)
    return None


def _ordered(found: Sequence[KnownPeriod]) -> list[KnownPeriod]:
    """Return the periods, the oldest first; they do not overlap: one ends where the next begins.

    Of two that begin at once the one that closes later is told.
    """
    by_start: dict[datetime, KnownPeriod] = {}
    for one in found:
        kept = by_start.get(one.start)
        if kept is None or (one.closes_at or one.end) > (kept.closes_at or kept.end):
            by_start[one.start] = one
    ordered = [by_start[start] for start in sorted(by_start)]
    following = [one.start for one in ordered[1:]]
    cut = [dataclasses.replace(one, end=min(one.end, start)) for one, start in zip(ordered, following, strict=False)]
    return [*cut, *ordered[-1:]]


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
