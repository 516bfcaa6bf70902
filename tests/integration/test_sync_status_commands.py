"""`billing sync status|show|reconcile`, as a person types them who has to find out where usage is, and what to do."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.core.settings import Settings
from tests.documents import DOCS, typed
from tests.integration.invoicing import METER, Invoicing, invoicing_on
from tests.terminal import Terminal

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)
START = (NOW - timedelta(days=5)).replace(minute=0, second=0, microsecond=0)
PRESENT = (START, START + timedelta(days=30))
EARLIER = (START - timedelta(days=30), START)


@pytest.fixture
def books(database: Settings, shop: Terminal) -> Iterator[Invoicing]:
    """Open the books of the terminal's shop."""
    assert shop.environment["BILLING_DATABASE_URL"] == database.database_url
    with invoicing_on(database) as opened:
        yield opened


def used(books: Invoicing, client_id: str, credits: int, *, hour: datetime = START, sku: str = "page") -> None:
    """Write usage of an hour."""
    books.use(client_id, credits, hour + timedelta(minutes=20), sku=sku)


def test_status_says_of_every_credit_what_it_waits_for(shop: Terminal, books: Invoicing) -> None:
    """Given usage without a link, a subscription, one whole unit, or a plan, then each is named with what to do."""
    books.sql("INSERT INTO meter (event_name, credits_per_unit) VALUES ('tokens', 1000)")
    books.sql("INSERT INTO sku_meter (sku, event_name) VALUES ('token', 'tokens')")
    books.client("unlinked")
    books.client("unbilled", "cus_unbilled")
    books.sql("INSERT INTO stripe_period_read VALUES ('cus_unbilled', now(), 'the customer has no subscription')")
    books.client("planned", "cus_planned")
    used(books, "unlinked", 30)
    used(books, "unbilled", 12)
    used(books, "planned", 7)
    used(books, "planned", 999, sku="token")
    used(books, "planned", 5, hour=START - timedelta(hours=3))
    books.increment(
        "planned", PRESENT, {("page", START - timedelta(hours=3)): (0, 5), ("page", START): (0, 4)}, state="sent"
    )

    found = shop.type("sync", "status", "--json").json()

    waiting = {name: (found[name]["credits"], found[name]["names"]) for name in ("unplanned", "unlinked", "unbilled")}
    assert waiting == {"unplanned": (3, ["planned"]), "unlinked": (30, ["unlinked"]), "unbilled": (12, ["unbilled"])}
    assert found["unbilled"]["reasons"] == ["the customer has no subscription"]
    assert (found["remainder"]["credits"], found["remainder"]["clients"]) == (999, 1)
    assert (found["late"]["credits"], found["late"]["names"]) == (5, ["planned"])
    assert found["carried"]["credits"] == 0
    answer = shop.type("sync", "status").out
    for line in (
        "not planned yet: 3 credits of 1 clients: planned (next: billing sync plan)",
        "less than one unit: 999 credits of 1 clients: planned (it waits for more usage)",
        "late: 5 credits of 1 clients: planned",
        "waiting for a link: 30 credits of 1 clients: unlinked (billing client link CLIENT cus_…)",
        "waiting for a subscription: 12 credits of 1 clients: unbilled (the customer has no subscription)",
    ):
        assert line in answer


def test_usage_of_a_meter_that_its_customer_is_not_subscribed_to_waits_for_that(
    shop: Terminal, books: Invoicing
) -> None:
    """Given a customer who is billed by one meter, then usage of another is not said to wait for a mere plan."""
    books.sql("INSERT INTO meter (event_name) VALUES ('tokens')")
    books.sql("INSERT INTO sku_meter (sku, event_name) VALUES ('token', 'tokens')")
    books.client("acme", "cus_acme")
    books.sql("INSERT INTO stripe_period_read VALUES ('cus_acme', now(), '')")
    books.sql(
        "INSERT INTO stripe_period (customer_id, event_name, period_start, period_end, read_at) "
        "VALUES ('cus_acme', 'billing_credits', now() - interval '9 days', now() + interval '9 days', now())"
    )
    used(books, "acme", 7)
    used(books, "acme", 12, sku="token")

    answer = shop.type("sync", "status").out

    assert "not planned yet: 7 credits of 1 clients: acme (next: billing sync plan)" in answer
    waits = "waiting for a subscription: 12 credits of 1 clients: acme (no billing period of meter tokens is known)"
    assert waits in answer


def test_status_counts_by_meter_once_there_are_several(shop: Terminal, books: Invoicing) -> None:
    books.sql("INSERT INTO meter (event_name, credits_per_unit) VALUES ('tokens', 1000)")
    books.client("bolt", "cus_bolt")
    used(books, "bolt", 2_000)
    books.increment("bolt", PRESENT, {("page", START): (0, 3)}, state="sent")
    assert "tokens" not in shop.type("sync", "status").out
    books.increment(
        "bolt", PRESENT, {("page", START): (3, 1_003)}, state="written_off", meter="tokens", credits_per_unit=1_000
    )

    found = shop.type("sync", "status", "--json").json()

    assert [(meter["event_name"], [s["state"] for s in meter["states"]]) for meter in found["meters"]] == [
        (METER, ["sent"]),
        ("tokens", ["written_off"]),
    ]
    (state,) = found["meters"][1]["states"]
    assert (state["units"], state["credits"]) == (1, 1_000)
    states = {found["state"]: found["increments"] for found in found["states"]}
    assert (states["sent"], states["written_off"], sum(states.values())) == (1, 1, 2)
    assert "tokens" in shop.type("sync", "status").out


@pytest.mark.parametrize(
    ("state", "columns", "command"),
    [
        ("rejected", {}, "billing sync resolve {id} --as resend|write-off --reason …"),
        ("quarantined", {}, "billing sync resolve {id} --as confirmed|resend|write-off --reason …"),
        ("pending", {"planned_at": NOW - timedelta(days=2)}, "billing sync push"),
        ("pending", {"planned_at": NOW - timedelta(days=2), "closes_at": NOW}, "billing sync plan"),
        ("sent", {"last_attempt_at": NOW - timedelta(days=2)}, "billing sync confirm"),
        ("ambiguous", {"first_attempt_at": NOW, "sent_to": "stand-in"}, "billing sync push"),
        ("ambiguous", {"first_attempt_at": NOW - timedelta(hours=24)}, "billing sync confirm"),
        (
            "ambiguous",
            {
                "first_attempt_at": NOW - timedelta(days=2),
                "absent_since": NOW - timedelta(hours=25),
                "absence_checks": 2,
            },
            "billing sync plan",
        ),
    ],
)
def test_status_says_what_to_do_about_each_increment_that_a_person_should_look_at(
    shop: Terminal, books: Invoicing, state: str, columns: dict[str, Any], command: str
) -> None:
    books.client("bolt", "cus_bolt")
    used(books, "bolt", 5)
    number = books.increment("bolt", PRESENT, {("page", START): (0, 5)}, state=state, **columns)

    found = shop.type("sync", "status", "--json").json()

    (concern,) = found["concerns"]
    assert (concern["increment_id"], concern["state"], concern["command"]) == (number, state, command.format(id=number))
    assert shop.type("sync", "show", str(number), "--json").json()["next"]["command"] == concern["command"]


def test_status_shows_reports_that_are_about_no_call_of_ours_and_when_anything_was_last_done(
    shop: Terminal, books: Invoicing
) -> None:
    """Given two reports of Stripe's, one of them matched, then the other one is shown, with its error."""
    books.client("bolt", "cus_bolt")
    used(books, "bolt", 5)
    number = books.increment("bolt", PRESENT, {("page", START): (0, 5)}, state="rejected")
    report = (
        "INSERT INTO stripe_error_report (event_id, event_name, code, count, window_start, window_end, samples,"
        " increments) VALUES (%s, %s, %s, 3, %s, %s, '[]', %s)"
    )
    for event, code, increments in (("evt_1", "no_meter", "[]"), ("evt_2", "archived_meter", f"[{number}]")):
        books.sql(report, event, METER, code, NOW - timedelta(minutes=5), NOW, increments)

    found = shop.type("sync", "status", "--json").json()

    assert found["unmatched"] == 1
    (unmatched,) = found["unmatched_reports"]
    assert (unmatched["event_id"], unmatched["code"], unmatched["count"]) == ("evt_1", "no_meter", 3)
    assert found["last"]["planned_at"] is not None
    assert datetime.fromisoformat(found["last"]["reported_at"]) == NOW
    answer = shop.type("sync", "status").out
    assert "evt_1" in answer
    assert "evt_2" not in answer
    assert "last planned" in answer


def test_show_tells_the_whole_story_of_an_increment(shop: Terminal, books: Invoicing) -> None:
    """Given an increment that was refused, made anew, taken and dropped, then each step is shown with its reason."""
    books.client("bolt", "cus_bolt")
    used(books, "bolt", 5, hour=START - timedelta(hours=1))
    hour = START - timedelta(hours=1)
    number = books.increment("bolt", EARLIER, {("page", hour): (0, 5)}, state="ambiguous")
    books.sql(
        "UPDATE stripe_increment SET generation = 2, state = 'pending', identifier = 'b1-again', event_at = %s,"
        " period_start = %s, period_end = %s, carries_from = %s, reason = 'its period closed before it was sent'",
        *(START + timedelta(minutes=30, seconds=30), *PRESENT, hour),
    )
    for attempt, identifier, outcome, status in ((1, "b1-bolt-1", "unknown", 500), (2, "b1-again", "taken", 200)):
        books.sql(
            "INSERT INTO stripe_attempt (increment_id, attempt, idempotency_key, started_at, outcome, http_status,"
            " request_id, reason) VALUES (%s, %s, %s, now(), %s, %s, %s, '')",
            *(number, attempt, f"{identifier}#{attempt}", outcome, status, f"req_{attempt}"),
        )
    books.sql(
        "INSERT INTO stripe_error_report (event_id, event_name, code, count, window_start, window_end, samples,"
        " increments) VALUES ('evt_1', 'm', 'meter_event_customer_not_found', 1, now(), now(), '[]', %s)",
        f"[{number}]",
    )
    books.sql(
        "INSERT INTO stripe_resolution VALUES (%s, 1, 'resend', 'quarantined', 'Stripe has no such event', now())",
        number,
    )
    books.sql("UPDATE stripe_increment SET state = 'rejected', attempts = 2, reason = 'dropped later'")

    answer = shop.type("sync", "show", str(number))

    assert answer.code == 0, answer
    for text in (
        f"increment {number} of client bolt: rejected: dropped later",
        "5 units of meter billing_credits, customer cus_bolt",
        "b1-bolt-1",
        "b1-again",
        "its period closed before it was sent",
        "carries usage of earlier periods",
        "req_1",
        "b1-again#2",
        "500",
        "meter_event_customer_not_found",
        "Stripe has no such event",
        f"billing sync resolve {number} --as resend|write-off --reason …",
    ):
        assert text in answer.out, (text, answer.out)
    story = shop.type("sync", "show", str(number), "--json").json()
    assert [part["credits_to"] - part["credits_from"] for part in story["parts"]] == [5]
    assert [made["generation"] for made in story["generations"]] == [1, 2]
    assert [(made["outcome"], made["http_status"]) for made in story["attempts"]] == [("unknown", 500), ("taken", 200)]
    assert (len(story["reports"]), len(story["resolutions"])) == (1, 1)
    assert (story["increment"]["state"], story["increment"]["units"]) == ("rejected", 5)


def test_show_refuses_what_is_no_increment_in_one_line(shop: Terminal) -> None:
    for wrong in ("7", "0", "-1", str(2**63), str(10**30)):
        shop.type("sync", "show", "--", wrong).refused(2, "increment", wrong, "billing sync status")
    assert shop.type("sync", "show", "seven").code == 2
    assert "Example: billing sync show" in shop.type("sync", "show", "--help").out


def test_reconcile_shows_what_became_of_every_credit_and_exits_with_1_when_one_is_nowhere(
    shop: Terminal, books: Invoicing
) -> None:
    """Given books that agree, then only a client by name has rows; given a credit that is nowhere, its period has."""
    books.client("bolt", "cus_bolt")
    used(books, "bolt", 42)
    books.increment("bolt", PRESENT, {("page", START): (0, 40)})

    every = shop.type("sync", "reconcile")
    assert (every.code, every.out) == (
        0,
        "2 clients, 1 periods: nothing differs; in credits: 42 log, 40 confirmed, 2 unplanned\n",
    )
    named = shop.type("sync", "reconcile", "bolt", "--no-stripe")
    assert named.code == 0
    assert [line.split() for line in named.out.splitlines() if line.strip().startswith("bolt")] == [
        ["bolt", METER, f"{START:%Y-%m-%d}", *([f"{START:%H:%M}"] if START.hour else []), "42", "40", "2"]
    ]
    (row,) = shop.type("sync", "reconcile", "bolt", "--no-stripe", "--json").json()["rows"]
    assert (row["log"], row["confirmed"], row["unplanned"], row["stripe"]) == (42, 40, 2, None)

    books.sql("UPDATE usage_rollup SET planned = planned + 1")
    answer = shop.type("sync", "reconcile")
    assert answer.code == 1
    assert "bolt" in answer.out
    assert "1 credits of the log are in no increment and wait for none" in answer.out
    assert shop.type("sync", "reconcile", "--json").code == 1
    shop.type("sync", "reconcile", "nobody").refused(2, "client_id", "'nobody'")


def test_reconcile_of_a_client_by_name_asks_stripe_and_says_when_it_cannot(shop: Terminal, books: Invoicing) -> None:
    books.client("bolt", "cus_bolt")
    used(books, "bolt", 5)
    books.increment("bolt", PRESENT, {("page", START): (0, 5)})

    answer = shop.type("sync", "reconcile", "bolt", BILLING_STRIPE_SANDBOX_URL="http://127.0.0.1:1")

    assert answer.code == 1
    assert "not compared" in answer.out
    assert "http://127.0.0.1:1" in answer.out
    assert shop.type("sync", "reconcile", BILLING_STRIPE_SANDBOX_URL="http://127.0.0.1:1").code == 0


def test_the_commands_print_what_their_page_says(shop: Terminal, books: Invoicing) -> None:
    """Given an increment in doubt and usage that waits, when the page is typed, then it is as the page says."""
    for client_id, credits_ in (("acme", 48), ("globex", 30)):
        if client_id != "acme":
            books.client(client_id)
        used(books, client_id, credits_)
    books.sql("INSERT INTO stripe_customer (client_id, customer_id) VALUES ('acme', 'cus_acme')")
    reason = "its own sum is 80 at the sink, not its 40 units"
    books.increment("acme", PRESENT, {("page", START): (0, 40)}, state="quarantined", reason=reason)
    steps = [step for step in typed(DOCS / "reconciliation.md") if step.command.startswith("billing sync ")]
    assert len(steps) == 4
    for step in steps:
        answer = shop.type(*shlex.split(step.command.removeprefix("billing ")))
        assert step.is_printed(answer.out), f"$ {step.command}\n{answer.out}{answer.err}"
