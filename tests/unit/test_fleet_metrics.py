"""The fleet's metrics are the catalogue's, by name, label and value; what did not answer is absent, never a false 0."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from billing.observability.doctor.finding import fail, ok, warn
from billing.observability.liveness.seen import LastSeen
from billing.observability.metrics.catalogue import (
    CATALOGUE,
    CHECKED,
    INCREMENT_STATES,
    PARTS,
    SERVERS,
    Source,
)
from billing.observability.metrics.fleet import FleetMetrics
from billing.observability.overview.values import (
    FleetState,
    Holds,
    IncrementsState,
    LawState,
    Outbox,
    QueueState,
)
from billing.observability.overview.watch import Watch

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
EARLIER = NOW - timedelta(seconds=90)
OF_FLEET = {metric.name: metric for metric in CATALOGUE if metric.source is Source.FLEET}


def last_seen(process: str, name: str, seen_at: datetime) -> LastSeen:
    """Return a process that was last seen then."""
    age = (NOW - seen_at).total_seconds()
    return LastSeen(process=process, name=name, started_at=EARLIER, seen_at=seen_at, age_seconds=age, details={})


FULL = FleetState(
    taken_at=NOW,
    findings=(ok("Redis", "fine"), fail("broker", "away"), warn("Stripe", "no key"), warn("Stripe", "unlinked")),
    servers=dict.fromkeys(SERVERS, True) | {"broker": False},
    outbox=Outbox(events=3, oldest_seconds=4.5),
    holds=Holds(count=7, credits=70, overdue_seconds=2.5),
    recovering_shards=1,
    queues=(
        QueueState(name="q.0", number=0, events=5, consumers=1),
        QueueState(name="q.1", number=1, events=0, consumers=0),
    ),
    seen=(
        last_seen("consumer", "old", EARLIER),
        last_seen("consumer", "new", NOW),
        last_seen("beat", "", EARLIER),
    ),
    laws=tuple(LawState(law=law, checked_at=EARLIER, examined=9, violations=2, found="acme") for law in CHECKED),
    dead_letters=2,
    parked_tasks=4,
    parked_oldest_at=EARLIER,
    unplanned_credits=11,
    unplanned_oldest_at=EARLIER,
    increments=tuple(
        IncrementsState(state=state, count=number, units=1, oldest_at=EARLIER)
        for number, state in enumerate(INCREMENT_STATES)
    ),
    last_planned_at=EARLIER,
    last_sent_at=EARLIER,
    last_confirmed_at=EARLIER,
    log_last_at=EARLIER,
    months_ahead=12,
    deliveries=6,
)
NOTHING = FleetState(
    **{
        field.name: {"taken_at": NOW, "findings": (), "servers": dict.fromkeys(SERVERS, False), "log_read": False}.get(
            field.name
        )
        for field in dataclasses.fields(FleetState)
    }  # type: ignore[arg-type]
)


class Seeing(Watch):
    """A watch whose last reading is given."""

    def __init__(self, state: FleetState | None) -> None:
        self.given = state

    def latest(self, *, wait_seconds: float = 0.0) -> FleetState | None:
        """Return it."""
        return self.given

    @property
    def age_seconds(self) -> float | None:
        """Return an age."""
        return None if self.given is None else 1.5


def scraped(state: FleetState | None) -> dict[tuple[str, ...], float]:
    """Return what a scrape has: (name, label values) → value, as the text says it."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(FleetMetrics(Seeing(state)))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, *(sample.labels[name] for name, _ in OF_FLEET[sample.name].labels)): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_metric_of_the_catalogue_is_there_with_every_value_of_its_labels_and_no_other_is() -> None:
    found = scraped(FULL)
    expected: set[tuple[str, ...]] = set()
    for name, metric in OF_FLEET.items():
        series: list[tuple[str, ...]] = [(name,)]
        for label, values in metric.labels:
            given = ("0", "1") if label == "queue" else values
            series = [(*one, value) for one in series for value in given]
        expected |= set(series)
    assert set(found) == expected


def test_each_metric_has_its_own_number() -> None:
    found = scraped(FULL)
    single = {name.removeprefix("billing_"): value for (name, *labels), value in found.items() if not labels}
    assert single == {
        "read_age_seconds": 1.5,
        "holds": 7,
        "held_credits": 70,
        "hold_overdue_seconds": 2.5,
        "recovering_shards": 1,
        "outbox_events": 3,
        "outbox_oldest_seconds": 4.5,
        "dead_letters": 2,
        "parked_tasks": 4,
        "parked_oldest_seconds": 90,
        "unplanned_credits": 11,
        "rollup_to_stripe_seconds": 90,
        "log_age_seconds": 90,
        "months_ahead": 12,
        "webhook_deliveries": 6,
    }
    assert [found["billing_server_up", server] for server in SERVERS] == [1, 1, 0, 1]
    assert found["billing_findings", "Stripe", "warn"] == 2
    assert found["billing_findings", "broker", "fail"] == 1
    assert sum(value for (name, *_), value in found.items() if name == "billing_findings") == 4
    assert (found["billing_queue_events", "0"], found["billing_queue_consumers", "1"]) == (5, 0)
    assert (found["billing_seen_age_seconds", "beat"], found["billing_seen_age_seconds", "consumer"]) == (90, 0)
    assert found["billing_increments", "quarantined"] == INCREMENT_STATES.index("quarantined")
    assert found["billing_increment_oldest_seconds", "pending"] == 90
    assert {value for (name, *_), value in found.items() if name == "billing_law_violations"} == {2}
    assert {value for (name, *_), value in found.items() if name == "billing_law_check_age_seconds"} == {90}


def test_what_did_not_answer_is_absent_and_its_server_is_down() -> None:
    found = scraped(NOTHING)
    assert {name for name, *_ in found} == {"billing_server_up", "billing_findings", "billing_read_age_seconds"}
    assert [found["billing_server_up", server] for server in SERVERS] == [0.0] * len(SERVERS)


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"holds": Holds(count=200_000, credits=9, overdue_seconds=0, whole=False)}, ["billing_held_credits"]),
        ({"holds": Holds(count=1, credits=None, overdue_seconds=0)}, ["billing_held_credits"]),
        ({"queues": (QueueState(name="q.0", number=0, events=5, consumers=None),)}, ["billing_queue_consumers"]),
        ({"servers": {"Redis": True}}, []),
        ({"recovering_shards": None}, ["billing_recovering_shards"]),
        ({"log_last_at": None, "log_read": False}, ["billing_log_age_seconds"]),
    ],
)
def test_what_is_not_known_for_certain_is_absent(changes: dict[str, Any], gone: Sequence[str]) -> None:
    found = {name for name, *_ in scraped(dataclasses.replace(FULL, **changes))}
    assert set(OF_FLEET) - found == set(gone)


def test_the_age_of_what_never_was_is_without_end_and_of_what_need_not_be_is_zero() -> None:
    laws = tuple(LawState(law=law, checked_at=None, examined=0, violations=0, found="") for law in CHECKED)
    none = tuple(IncrementsState(state=state, count=0, units=0, oldest_at=None) for state in INCREMENT_STATES)
    changes: dict[str, Any] = {"seen": (), "laws": laws, "log_last_at": None, "increments": none}
    found = scraped(dataclasses.replace(FULL, parked_oldest_at=None, unplanned_oldest_at=None, **changes))
    never = ("billing_seen_age_seconds", "billing_law_check_age_seconds", "billing_log_age_seconds")
    assert {value for (name, *_), value in found.items() if name in never} == {math.inf}
    needless = ("billing_parked_oldest_seconds", "billing_rollup_to_stripe_seconds", "billing_increment_oldest_seconds")
    assert {value for (name, *_), value in found.items() if name in needless} == {0.0}


def test_before_the_first_reading_there_is_nothing_to_tell() -> None:
    assert scraped(None) == {}


def test_no_client_is_named() -> None:
    registry = CollectorRegistry()
    registry.register(FleetMetrics(Seeing(FULL)))
    assert b"acme" not in generate_latest(registry)


def test_every_part_of_a_finding_is_in_the_catalogue() -> None:
    """What the doctor says of a part that the catalogue does not know would be counted nowhere."""
    import re  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from billing.observability import doctor  # noqa: PLC0415

    texts = [path.read_text("utf-8") for path in Path(doctor.__path__[0]).glob("*.py")]
    named = {
        part
        for text in texts
        for part in re.findall(r'(?:\b(?:ok|warn|fail|verdict)\(\s*|_?PART: Final = )"([\w-]+)"', text)
    }
    assert len(named) > 5
    assert named <= set(PARTS)
