"""`billing explain` as a user types it: money up to Stripe, corrections, dead letters, and what cannot be told."""

from __future__ import annotations

import json
import uuid

import pytest

from billing.core.settings import Settings, load
from billing.events.usage_event import UsageEvent
from billing.schema.migrate import migrate
from billing.schema.privileges import READER
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.integration.consuming import usage_log
from tests.integration.lettering import body_of, refuse
from tests.integration.logins import login
from tests.terminal import NOWHERE, SECRET, Terminal
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration


@pytest.fixture
def reporting(shop: Terminal, stripe_sandbox: SandboxControl) -> Terminal:
    """Open a shop whose reports go to the stand-in."""
    return Terminal({**shop.environment, "BILLING_STRIPE_SANDBOX_URL": stripe_sandbox.url}, shop.directory)


def settings_of(shop: Terminal) -> Settings:
    return load({}, shop.environment)


def log(shop: Terminal, *events: UsageEvent) -> None:
    """Write events to the log, as a consumer does."""
    books = usage_log(settings_of(shop))
    try:
        books.write([delivered(event) for event in events])
    finally:
        books.close()


def link(shop: Terminal, client_id: str) -> None:
    """Link a client to a customer that is subscribed since two hours ago."""
    assert shop.type("stripe", "setup", "--price", "0.5").code == 0
    linked = shop.type("client", "link", client_id, "--create", "--subscribe", "--backdate-hours", "2")
    assert linked.code == 0, linked


def verdict(shop: Terminal, task_id: str, *options: str) -> str:
    """Return the sentence of a task whose every source has answered."""
    return str(shop.type("explain", task_id, *options, "--json").json()["verdict"])


def test_the_money_of_a_task_is_followed_to_stripe(reporting: Terminal) -> None:
    """Given a charge, when it is planned, pushed and confirmed, then the story says so each time (L8)."""
    event = usage_event(task_id="task-1", lines=[paid_line(quantity=5, shares=[(1, 20), (0, 5)])])
    log(reporting, event)
    unlinked = "charged 25 credits, not reported to Stripe yet: its client has no Stripe customer"
    assert verdict(reporting, "task-1").startswith(unlinked)
    link(reporting, "acme")
    assert verdict(reporting, "task-1") == "charged 25 credits, not reported to Stripe yet"
    assert reporting.type("sync", "plan").code == 0
    assert verdict(reporting, "task-1") == "charged 25 credits, planned in increment 1, not sent yet"
    assert reporting.type("sync", "push").code == 0
    sent = "charged 25 credits, sent to Stripe in increment 1, not confirmed yet"
    assert verdict(reporting, "task-1") == sent
    assert reporting.type("sync", "confirm").code == 0
    assert verdict(reporting, "task-1") == "charged 25 credits, confirmed at Stripe in increment 1"
    by_run = reporting.type("explain", str(event.run_id), "--json").json()
    by_task = reporting.type("explain", "task-1", "--client", "acme", "--json").json()
    assert by_run["steps"] == by_task["steps"]
    whats = [step["what"] for step in by_task["steps"]]
    money = ["submitted", "settled", "paid", "logged", "rolled up", "planned", "invoice", "sent", "confirmed"]
    assert sorted(whats) == sorted(money)
    paid = next(step["detail"] for step in by_task["steps"] if step["what"] == "paid")
    assert paid == "20 from grant 1 (paid, key 'first'), 5 from nobody (debt)"


def test_a_correction_is_part_of_the_story(shop: Terminal) -> None:
    event = usage_event(task_id="task-1", lines=[paid_line(shares=[(1, 25)])])
    log(shop, event)
    corrected = shop.type(
        "adjust", "usage", str(event.run_id), "--credits", "-10", "--reason", "the page was empty", "--key", "k"
    )
    assert corrected.code == 0, corrected
    story = shop.type("explain", "task-1", "--json").json()
    assert story["verdict"].startswith("charged 25 credits, corrected to 15, not reported to Stripe yet")
    steps = {step["what"]: step["detail"] for step in story["steps"]}
    assert steps["corrected"].startswith("by -10: the page was empty")
    assert len(story["run_ids"]) == 1


def test_a_dead_letter_that_names_the_task_is_part_of_the_story(shop: Terminal) -> None:
    """Given an event that the log refused, then the story names its letter; one with a part of its id has none."""
    event = usage_event(task_id="task-12")
    (letter_id,) = refuse(settings_of(shop), body_of(event), reason="client_id: is unknown")
    told = verdict(shop, "task-12")
    assert told == f"not logged: dead letter {letter_id} names it: client_id: is unknown"
    assert verdict(shop, str(event.run_id)) == told
    assert verdict(shop, "task-1").startswith("not known: no trace of task 'task-1'")


def test_one_task_id_of_two_clients_is_two_runs_and_each_is_told(shop: Terminal) -> None:
    assert shop.type("client", "add", "globex").code == 0
    log(shop, usage_event("acme", "task-1"), usage_event("globex", "task-1", [paid_line(shares=[(0, 7)])]))
    told = shop.type("explain", "task-1")
    assert "2 runs: (1) charged" in told.out
    assert "charged 7 credits" in told.out
    assert "run 1:" in told.out
    assert "run 2:" in told.out


def test_a_task_without_a_trace_is_said_to_be_unknown_and_where_it_was_looked_for(shop: Terminal) -> None:
    for task_id in (str(uuid.uuid4()), str(uuid.UUID(int=0x01A2035CD8857CEDB3B133E8A212783B)), "ein Schlüssel", "'"):
        answer = shop.type("explain", task_id)
        assert answer.code == 0, answer
        assert f"not known: no trace of task '{task_id}' in the usage history and its archive" in answer.out
        assert "no app was given (-A)" in answer.out


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("",), ("task_id", "1 to 1024 printable")),
        (("a\x00b",), ("task_id", "printable")),
        (("x" * 1_025,), ("task_id", "1 to 1024 printable")),
        (("a\nb",), ("task_id", "printable")),
        (("task-1", "--client", "a b"), ("client_id", "'a b'", "without spaces")),
    ],
)
def test_what_is_no_id_is_refused_in_one_line(
    terminal: Terminal, arguments: tuple[str, ...], names: tuple[str, ...]
) -> None:
    terminal.type("explain", *arguments).refused(2, *names)


def test_a_database_without_tables_is_named_and_the_rest_is_told(bare: Terminal) -> None:
    answer = bare.type("explain", "task-1")
    assert answer.code == 1
    assert "not answered: PostgreSQL: " in answer.out
    assert "billing migrate" in answer.out


@pytest.mark.parametrize("away", [("BILLING_REDIS_URL",), ("BILLING_DATABASE_URL",), tuple(NOWHERE)])
def test_a_server_that_does_not_answer_is_named_and_the_rest_is_told(shop: Terminal, away: tuple[str, ...]) -> None:
    """Given a charge in the log, when servers are down, then exit code 1, each is named once, and no password is."""
    log(shop, usage_event(task_id="task-1"))
    bounds = {"BILLING_REDIS_TIMEOUT_SECONDS": "1", "BILLING_DATABASE_TIMEOUT_SECONDS": "1"}
    answer = shop.type("explain", "task-1", "--json", **bounds, **{name: NOWHERE[name] for name in away})
    assert answer.code == 1
    assert SECRET not in answer.out + answer.err
    story = json.loads(answer.out)
    named = {"BILLING_REDIS_URL": "Redis", "BILLING_DATABASE_URL": "PostgreSQL"}
    expected = [named[name] for name in away if name in named]
    assert [line.split(":")[0] for line in story["unanswered"]] == expected
    assert "as far as is known" in story["verdict"]
    assert story["verdict"].startswith("charged 10 credits") == ("BILLING_DATABASE_URL" not in away)


def test_a_reader_is_told_of_the_charge_and_what_its_login_may_not_see(shop: Terminal) -> None:
    """Given a login for dashboards, then messages of parked tasks and dead letters stay hidden, and are named."""
    log(shop, usage_event(task_id="task-1"))
    migrate(settings_of(shop), with_roles=True)
    with login(settings_of(shop), "IN ROLE", READER) as reader:
        answer = shop.type("explain", "task-1", "--json", BILLING_DATABASE_URL=reader.database_url)
    story = json.loads(answer.out)
    assert story["verdict"].startswith("charged 10 credits")
    assert [line.split(":")[0] for line in story["unanswered"]] == ["parked tasks", "dead letters"]
    assert answer.code == 1
