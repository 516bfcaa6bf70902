"""What usage adds up to per SKU, task, day and hour, and what one workflow cost: always what the log's rows say."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from billing import admin
from billing.connections import postgres
from billing.core.clock import to_milliseconds
from billing.core.errors import InvalidValue, UnknownClient
from billing.core.settings import Settings
from billing.events.usage_event import UsageEvent
from billing.fulfillment.log import UsageLog
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.fulfillment.selection import Selection
from tests.receipts import plan
from tests.terminal import Terminal
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration

OCTOBER = Selection(start=datetime(2026, 10, 1, tzinfo=UTC), end=datetime(2026, 11, 1, tzinfo=UTC))
assert OCTOBER.start is not None
START = OCTOBER.start


@pytest.fixture
def settings(database: Settings) -> Iterator[Settings]:
    """Give the settings of this test's database; what was connected is closed."""
    yield database
    admin.close(database)


def event(at: datetime, client_id: str = "acme", *, root: str = "", **given: Any) -> UsageEvent:
    """Make an event that ended at an instant, of a workflow."""
    milliseconds = to_milliseconds(at)
    made = usage_event(client_id, given.pop("task_id", None), given.pop("lines", ()), at_milliseconds=milliseconds)
    return msgspec.structs.replace(made, occurred_at=milliseconds, root_id=root or made.correlation_id, **given)


def some_usage(count: int = 300) -> list[UsageEvent]:
    """Make usage of six weeks from October on: two clients, three SKUs, two tasks, dry runs among them."""
    seeded, made = random.Random(11), []
    for number in range(count):
        dry = number % 7 == 0
        lines = [
            paid_line(sku, seeded.randint(1, 5), () if dry else [(1, seeded.randint(1, 90))])
            for sku in seeded.sample(("page", "kib", "search"), seeded.randint(1, 2))
        ]
        at = START + timedelta(minutes=seeded.randrange(60 * 24 * 42))
        made.append(
            event(
                at,
                "acme" if number % 3 else "bolt",
                lines=lines,
                task=("shop.capture", "shop.search")[number % 2],
                mode="dry_run" if dry else None,
            )
        )
    return made


@pytest.mark.parametrize("by", ["sku", "day", "hour", "task"])
def test_the_sums_of_groups_are_those_of_their_rows(
    settings: Settings, log: UsageLog, clients: Callable[..., None], by: str
) -> None:
    """Given usage of two clients, then each group has its rows' sums, dry runs are counted apart, all add up."""
    clients("acme", "bolt")
    events = some_usage()
    log.write([delivered(made) for made in events])

    found = admin.usage_by(settings, "acme", by, OCTOBER)

    expected: dict[Any, Counter[str]] = {}
    for made in events:
        at = datetime.fromtimestamp(made.occurred_at / 1_000, UTC)
        if made.client_id != "acme" or at >= START + timedelta(days=31):
            continue
        hour = at.replace(minute=0, second=0, microsecond=0)
        for line in made.lines:
            name = {"sku": line.sku, "day": hour.replace(hour=0), "hour": hour, "task": made.task}[by]
            sums = {"rows": 1, "quantity": line.quantity, "credits": line.credits}
            dry = {"dry_rows": 1, "dry_quantity": line.quantity} if made.mode else {}
            expected.setdefault(name, Counter()).update(sums | dry)
    assert [group.name for group in found.groups] == sorted(expected)
    for group in found.groups:
        for name in ("rows", "quantity", "credits", "dry_rows", "dry_quantity"):
            assert getattr(group, name) == expected[group.name][name], (group.name, name)
            assert getattr(found.total, name) == sum(sums[name] for sums in expected.values())
    assert found.total.dry_rows > 10
    assert found.group_count == len(expected)

    cut = admin.usage_by(settings, "acme", by, OCTOBER, limit=1)
    assert (cut.groups, cut.group_count, cut.total) == (found.groups[:1], found.group_count, found.total)


def test_what_cannot_be_is_refused(settings: Settings, clients: Callable[..., None]) -> None:
    clients("acme")
    with pytest.raises(InvalidValue, match=r"^by: 'client': must be one of sku, day, hour, task"):
        admin.usage_by(settings, "acme", "client")
    with pytest.raises(InvalidValue, match=r"^limit: 10001: "):
        admin.usage_by(settings, "acme", "sku", limit=10_001)
    with pytest.raises(InvalidValue, match=r"^from: "):
        admin.usage(settings, "acme", of=Selection(start=OCTOBER.end, end=START))
    with pytest.raises(InvalidValue, match=r"^to: .*time zone"):
        admin.usage_by(settings, "acme", "sku", Selection(end=datetime(2026, 10, 1)))  # noqa: DTZ001 - that is the point
    with pytest.raises(UnknownClient):
        admin.usage_by(settings, "nobody", "sku")
    assert admin.usage_by(settings, "acme", "sku").groups == []


def test_a_workflow_costs_what_its_tasks_do(
    settings: Settings, session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]
) -> None:
    """Given a workflow over two months amid other usage, then its root id names its tasks' lines, and no other ones.

    They are the lines of the whole receipt, their increments too; its first task alone is had by its correlation id.
    """
    clients("acme", "bolt")
    others = [delivered(made) for made in some_usage()]
    log.write(others[:150])
    root = event(START + timedelta(days=3, minutes=7), task_id="flow")
    steps = [event(START + timedelta(days=3, minutes=8 * n), root="flow") for n in range(1, 6)]
    late = event(START + timedelta(days=35), root="flow", lines=[paid_line("kib", 2, [(1, 7)]), paid_line("page")])
    # Another client's task may have any id; and a task of this workflow is no root of it.
    stranger = event(START + timedelta(days=3), "bolt", task_id="flow")
    log.write([delivered(made) for made in (root, *steps, late, stranger)])
    plan(session, "acme", state="confirmed")
    log.write(others[150:])

    end = START + timedelta(days=60)
    whole = list(admin.receipt(settings, "acme", START, end))
    flow = list(admin.receipt(settings, "acme", root_id="flow"))

    runs = {made.run_id for made in (root, *steps, late)}
    assert flow == [line for line in whole if line.run_id in runs]
    assert (len(flow), sum(line.credits for line in flow)) == (8, 6 * 10 + 7 + 10)
    assert {part.state for line in flow for part in line.reported} == {"confirmed"}
    with admin.open_receipt(settings, "acme", root_id="flow") as opened:
        assert (opened.head.start, opened.head.end) == (START + timedelta(days=3), START + timedelta(days=36))
    in_october = list(admin.receipt(settings, "acme", START, OCTOBER.end, root_id="flow"))
    assert in_october == flow[:6]
    from_november = list(admin.receipt(settings, "acme", OCTOBER.end, root_id="flow"))
    assert from_november == flow[6:]

    sums = admin.usage_by(settings, "acme", "sku", Selection(root_id="flow"))
    assert [(group.name, group.rows, group.credits) for group in sums.groups] == [("kib", 1, 7), ("page", 7, 70)]
    assert admin.usage_total(settings, "acme", Selection(root_id="flow")).credits == 77
    newest = admin.usage(settings, "acme", limit=3, of=Selection(root_id="flow"))
    assert [row.run_id for row in newest] == [late.run_id, late.run_id, steps[-1].run_id]

    assert [line.run_id for line in admin.receipt(settings, "acme", correlation_id="flow")] == [root.run_id]
    step = steps[0].correlation_id
    assert [line.run_id for line in admin.receipt(settings, "acme", correlation_id=step)] == [steps[0].run_id]
    assert list(admin.receipt(settings, "acme", root_id=step)) == []
    assert list(admin.receipt(settings, "acme", correlation_id=step, root_id="flow")) == flow[1:2]


def test_a_workflow_is_found_by_its_id(
    session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]
) -> None:
    """Given much usage, then a root id leads to rows by indexes alone: of task ids, and of the roots of other tasks."""
    clients("acme")
    log.write([delivered(event(datetime.now(UTC), root="flow" if n % 50 == 0 else "")) for n in range(5_000)])
    session.execute("VACUUM ANALYZE usage_history")
    condition = Selection(root_id="elsewhere").condition().replace(":root_id", "'elsewhere'")
    rows = session.execute(f"EXPLAIN SELECT * FROM usage_history WHERE client_id = 'acme' AND {condition}".encode())
    plan_ = "\n".join(str(row[0]) for row in rows)
    month = f"usage_history_{datetime.now(UTC):%Y_%m}"
    assert "BitmapOr" in plan_
    assert f"Bitmap Index Scan on {month}_correlation_id_idx" in plan_
    assert f"Bitmap Index Scan on {month}_root_id_idx" in plan_
    assert f"Seq Scan on {month}" not in plan_


def test_an_ordinary_task_is_not_in_the_index_of_roots(
    session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]
) -> None:
    """Given tasks that are their own roots, and one that is not, then only this one takes a place in the index."""
    clients("acme")
    log.write([delivered(usage_event()) for _ in range(500)])
    size = "SELECT sum(pg_relation_size(indexrelid)) FROM pg_stat_user_indexes WHERE indexrelname LIKE '%root_id_idx'"
    empty = session.execute(size).fetchone()
    log.write([delivered(usage_event()) for _ in range(500)])
    assert session.execute(size).fetchone() == empty
    log.write([delivered(msgspec.structs.replace(usage_event(), root_id="flow"))])
    assert session.execute(size).fetchone() != empty


def test_the_command_adds_up_and_lists(shop: Terminal) -> None:
    """Given the command, then it prints the sums as a table and as JSON, says its span, and what it leaves out."""
    settings = Settings(database_url=shop.environment["BILLING_DATABASE_URL"])
    log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
    log.write([delivered(made) for made in some_usage()])
    log.close()
    span = ("--from", "2026-10-01", "--to", "2026-11-01")
    total = admin.usage_by(settings, "acme", "sku", OCTOBER).total
    admin.close(settings)
    words = (
        f"{total.rows:,} lines, {total.quantity:,} units, {total.credits:,} credits in all, "
        f"of dry runs {total.dry_rows:,} lines, {total.dry_quantity:,} units"
    )
    shown = shop.type("usage", "acme", *span, "--by", "sku")
    assert shown.code == 0
    assert "acme: 1 October 2026 up to 1 November 2026 (UTC)" in shown.out
    assert "page (page)" in shown.out
    assert words in shown.out
    hours = shop.type("usage", "acme", *span, "--by", "hour", "--limit", "2")
    assert "2 of " in hours.out
    assert "groups shown; the sums below are of all" in hours.out
    assert words in hours.out
    for by in ("sku", "day", "hour", "task"):
        document = shop.type("usage", "acme", *span, "--by", by, "--json").json()
        assert sum(group["credits"] for group in document["groups"]) == total.credits == document["total"]["credits"]
        assert document["group_count"] == len(document["groups"])
        assert all(by in group for group in document["groups"])
    assert document["from"] == "2026-10-01T00:00:00+00:00"
    listed = shop.type("usage", "acme", *span, "--json", "--limit", "5").json()
    assert len(listed["rows"]) == 5
    assert listed["total"] == {"rows": total.rows, "credits": total.credits}
    chosen = listed["rows"][0]["correlation_id"]
    assert {
        row["correlation_id"] for row in shop.type("usage", "acme", "--correlation", chosen, "--json").json()["rows"]
    } == {chosen}
    receipt = shop.type("receipt", "acme", "--root", chosen, "--json").json()
    assert {line["correlation_id"] for line in receipt["lines"]} == {chosen} == {receipt["root_id"]}
    assert f"acme, workflow {chosen}: " in shop.type("receipt", "acme", "--root", chosen).out
