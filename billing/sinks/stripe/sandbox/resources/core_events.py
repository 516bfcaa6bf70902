"""Thin events of v2, for who polls instead of listening: the reports of what was dropped, for 30 days."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from billing.sinks.stripe.sandbox import errors, times
from billing.sinks.stripe.sandbox.error_reports import WINDOW_SECONDS, Report, reports, shape
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.params import LIST_PARAMS_LIMIT, Param, Spec
from billing.sinks.stripe.sandbox.routing import Call, route

LIST: Final[Spec] = {
    "created": Param(kind="object", fields={name: Param() for name in ("gt", "gte", "lt", "lte")}),
    "limit": Param(kind="integer"),
    "object_id": Param(),
    "types": Param(kind="list"),
    "page": Param(),
}
KEPT_SECONDS: Final = 30 * 86_400
LIMIT_DEFAULT: Final = 20
TYPES_MAX: Final = 20


def list_all(call: Call) -> dict[str, Any]:
    """`GET /v2/core/events`, newest first. `next_page_url` is what the SDK follows."""
    given, limit = call.params, call.params.get("limit", LIMIT_DEFAULT)
    if not 1 <= limit <= LIST_PARAMS_LIMIT:
        raise Refusal(400, f"Invalid limit: must be from 1 to {LIST_PARAMS_LIMIT}", code="invalid_limit")
    if len(given.get("types", [])) > TYPES_MAX:
        raise Refusal(400, f"Invalid types: must be at most {TYPES_MAX}", code="invalid_types")
    bounds = {name: _second(name, text) for name, text in given.get("created", {}).items()}
    wanted = [
        report
        for report in _kept(call)
        if given.get("object_id") in {None, report.meter}
        and report.type in given.get("types", [report.type])
        and _inside(report.created, bounds)
    ]
    start = _place(wanted, given.get("page"))
    page = wanted[start : start + limit]
    more = len(wanted) > start + limit
    return {
        "data": [_shape(call, report, with_data=call.knobs.listed_event_data) for report in page],
        "next_page_url": _url(given, wanted[start + limit].id) if more else None,
        "previous_page_url": _url(given, wanted[max(0, start - limit)].id) if start else None,
    }


def retrieve(call: Call) -> dict[str, Any]:
    """`GET /v2/core/events/{id}`, with its data."""
    for report in _kept(call):
        if report.id == call.id:
            return _shape(call, report, with_data=True)
    raise errors.no_such("event", call.id)


def _kept(call: Call) -> list[Report]:
    """Return the reports that are there: written by now, at most 30 days ago."""
    delay = call.knobs.error_report_delay_seconds
    oldest = call.now - KEPT_SECONDS
    events = call.store.events.dropped(oldest - delay - 2 * WINDOW_SECONDS, call.now + 1)
    return [report for report in reports(events, delay_seconds=delay) if oldest <= report.created <= call.now]


def _shape(call: Call, report: Report, *, with_data: bool) -> dict[str, Any]:
    return shape(report, samples_max=call.knobs.error_samples_max, with_data=with_data)


def _second(name: str, text: str) -> int:
    second = times.read(text)
    if second is None:
        raise Refusal(400, f"Invalid created[{name}]: must be an RFC 3339 instant", code="invalid_timestamp")
    return second


def _inside(created: int, bounds: dict[str, int]) -> bool:
    return (
        created > bounds.get("gt", -1)
        and created >= bounds.get("gte", created)
        and created < bounds.get("lt", created + 1)
        and created <= bounds.get("lte", created)
    )


def _place(wanted: Sequence[Report], page: str | None) -> int:
    """Return where a page begins. A report that came since does not move it."""
    if page is None:
        return 0
    for place, report in enumerate(wanted):
        if report.id == page:
            return place
    raise Refusal(400, "Invalid page: it is of another listing", code="invalid_page")


def _url(given: dict[str, Any], page: str) -> str:
    pairs = [("limit", given["limit"])] if "limit" in given else []
    pairs += [("object_id", given["object_id"])] if "object_id" in given else []
    pairs += [(f"types[{place}]", name) for place, name in enumerate(given.get("types", []))]
    pairs += [(f"created[{name}]", text) for name, text in given.get("created", {}).items()]
    return f"/v2/core/events?{urlencode([*pairs, ('page', page)])}"


ROUTES: Final = (
    route("GET", "/v2/core/events", LIST, list_all),
    route("GET", "/v2/core/events/{id}", {}, retrieve),
)
