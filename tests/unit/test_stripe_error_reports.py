"""What Stripe's error reports say: one for each kind of error, joined by idempotency keys wherever these stand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from billing.sinks.stripe.error_reports import of_event


def event(*samples: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an event with one kind of error."""
    kind = {"code": "timestamp_too_far_in_past", "error_count": 7, "sample_errors": list(samples)}
    window = {"validation_start": "2026-05-01T00:00:00.000Z", "validation_end": "2026-05-01T00:00:10.000Z"}
    return {"id": "evt_1", "data": {"reason": {"error_count": 7, "error_types": [kind]}, **window}, **more}


def test_a_sample_names_its_key_under_either_name() -> None:
    """The reference says `identifier`, an example of the guide `idempotency_key`; one without either is left out."""
    requests = [{"identifier": "b1-a#1"}, {"idempotency_key": "b1-b#2"}, {}, None]
    (report,) = of_event(event(*({"request": one} for one in requests)), {})

    assert report.samples == ("b1-a#1", "b1-b#2")
    assert (report.code, report.count, report.event_name) == ("timestamp_too_far_in_past", 7, "")
    assert (report.window_start, report.window_end) == (
        datetime(2026, 5, 1, tzinfo=UTC),
        datetime(2026, 5, 1, 0, 0, 10, tzinfo=UTC),
    )


def test_a_report_is_of_the_meter_that_it_names() -> None:
    (report,) = of_event(event(related_object={"id": "mtr_1", "type": "billing.meter"}), {"mtr_1": "tokens"})
    assert report.event_name == "tokens"


def test_each_kind_of_error_is_a_report_of_its_own() -> None:
    """Given two kinds in one event, then their names differ, so that both are kept."""
    both = event()
    both["data"]["reason"]["error_types"].append({"code": "no_meter", "error_count": 1, "sample_errors": []})
    assert [report.event_id for report in of_event(both, {})] == ["evt_1:timestamp_too_far_in_past", "evt_1:no_meter"]
