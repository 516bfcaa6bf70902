"""Stripe's reports of what it took and did not count: read from its events of the last 30 days. No webhook is needed.

Samples are idempotency keys of some of the calls: Stripe's reference calls the field `identifier`, an example of its
guide `idempotency_key`; either is taken. A report may be about more calls than it has samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from billing.sinks.sink import ErrorReport
from billing.sinks.stripe.meters import Meters
from billing.sinks.stripe.session import PAGE, Session

TYPES: Final = ("v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found")
#: Events of one reading (L9). Stripe reports at most once in some ten seconds and meter.
EVENTS_MAX: Final = 20_000


def read(session: Session, meters: Meters, since: datetime) -> Iterator[ErrorReport]:
    """Yield the reports that were made at or after an instant, the oldest first.

    What the list leaves out is fetched as it is asked for, a call for each event: who stops early has lost nothing.
    """
    with session.reaching():
        page = session.client.v2.core.events.list(
            {"types": list(TYPES), "created": {"gte": _written(since)}, "limit": PAGE}, session.reads()
        )
        events = [event.to_dict() for event in itertools.islice(page.auto_paging_iter(), EVENTS_MAX)]
    names = meters.event_names() if events else {}
    with session.reaching(calls=False):
        events.sort(key=_created)
    for event in events:
        whole = event if event.get("data") else _fetched(session, event["id"])
        with session.reaching(calls=False):
            reports = list(of_event(whole, names))
        yield from reports


def of_event(event: Mapping[str, Any], event_names: Mapping[str, str]) -> Iterator[ErrorReport]:
    """Yield one report for each kind of error of an event. The event name is empty where no meter is known."""
    data = event["data"]
    related = event.get("related_object") or {}
    for kind in data["reason"]["error_types"]:
        yield ErrorReport(
            event_id=f"{event['id']}:{kind['code']}",
            event_name=event_names.get(related.get("id") or "", ""),
            code=kind["code"],
            count=int(kind["error_count"]),
            window_start=_instant(data["validation_start"]),
            window_end=_instant(data["validation_end"]),
            samples=tuple(key for sample in kind.get("sample_errors") or () if (key := _key(sample)) is not None),
        )


def _fetched(session: Session, event_id: str) -> dict[str, Any]:
    """Return an event with its data, which the list leaves out."""
    with session.reaching():
        return session.client.v2.core.events.retrieve(event_id, None, session.reads()).to_dict()


def _key(sample: Mapping[str, Any]) -> str | None:
    request = sample.get("request") or {}
    found: str | None = request.get("identifier") or request.get("idempotency_key")
    return found


def _created(event: Mapping[str, Any]) -> tuple[datetime, str]:
    return _instant(event["created"]), event["id"]


def _instant(text: Any) -> datetime:
    """Read RFC 3339, which the SDK leaves as text."""
    found = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _written(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
