"""The billing pages of a real Flower before a real fleet: they say what the books have, and no more."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest

from tests.fleet.harness import Fleet
from tests.integration.billing_pages import (
    CLIMBING,
    HOSTILE,
    addresses,
    cards,
    increment,
    page,
    park,
    refuse,
    rows,
)
from tests.integration.watching import QUEUE, Watched, flower_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MARKER = "marker-of-a-message"


@pytest.fixture(scope="module")
def watched(running_fleet: Fleet) -> Iterator[Watched]:
    """Start a worker with `-E` and a Flower."""
    with flower_of(running_fleet, "flower") as http:
        running_fleet.worker("watched", options=("-E", "-Q", QUEUE))
        yield Watched(fleet=running_fleet, http=http)


def test_a_clients_page_has_what_its_bucket_and_the_log_have(watched: Watched) -> None:
    """Given charged, held and refused work, then its page has the balance, the hold with its task, and the usage."""
    fleet, client = watched.fleet, watched.fleet.client("counted", 1_000)
    charged = [watched.send("ok", client).id for _ in range(3)]
    running = watched.send("gated", client, "counted.gate").id
    fleet.wait_for_rows(3, client)
    wait_until(lambda: fleet.holds(client), "one is held")
    balance = fleet.balance(client)

    shown = page(watched.http, "/billing/client", id=client)

    assert (balance.available, balance.held, balance.spent) == (960, 10, 30)
    assert cards(shown) == {"Available": "960", "Held": "10", "Spent": "30", "Owed": "0"}
    (hold,) = rows(shown, "holds")
    assert (hold["Task"], hold["SKU"], hold["Credits"]) == (f"{running} gated", "unit", "10")
    assert re.fullmatch(r"\d+ (s|min)", hold["Since"])
    assert re.fullmatch(r"\d+ s left", hold["Lease"])
    assert {row["Task"].removesuffix(" ok") for row in rows(shown, "used")} == set(charged)
    (grant,) = rows(shown, "grants")
    assert (grant["Granted"], grant["Available"], grant["Held"], grant["Spent"]) == ("1,000", "960", "10", "30")
    assert "30 credits; per hour at most 30" in shown
    assert [row["Credits"] for row in rows(shown, "usage-table")] == ["30"]
    (listed,) = [row for row in rows(page(watched.http, "/billing/holds"), "holds") if row["Client"] == client]
    assert listed["Task"] == f"{running} gated"

    (fleet.directory / "counted.gate").touch()
    fleet.wait_for_rows(4, client)
    for span, unit in (("24h", "hour"), ("7d", "hour"), ("30d", "day")):
        later = page(watched.http, "/billing/client", id=client, span=span)
        assert cards(later) == {"Available": "960", "Held": "0", "Spent": "40", "Owed": "0"}
        assert f"40 credits; per {unit} at most 40" in later
    assert "Nothing is held: no task of this client runs." in later


def test_clients_are_found_by_the_beginning_of_their_ids_in_the_order_asked_for(watched: Watched) -> None:
    """Letters that a pattern would read otherwise stand for themselves, and so does case."""
    fleet = watched.fleet
    for number, credits_ in enumerate((300, 100, 200)):
        fleet.client(f"found_{number}", credits_)
    fleet.client("foundX9", 1)

    def found(**query: str) -> list[tuple[str, str]]:
        lines = rows(page(watched.http, "/billing/clients", **query), "clients")
        return [(line[""], line["Available"]) for line in lines]

    assert found(q="found_", order="name") == [("found_0", "300"), ("found_1", "100"), ("found_2", "200")]
    assert found(q="found_", order="newest") == [("found_2", "200"), ("found_1", "100"), ("found_0", "300")]
    assert found(q="found_", order="lowest") == [("found_1", "100"), ("found_2", "200"), ("found_0", "300")]
    assert found(q="found_", order="another") == found(q="found_", order="newest")
    assert found(q="found_1") == [("found_1", "100")]
    assert found(q="FOUND_") == found(q="f%") == found(q="f?und") == []
    assert "No client&#39;s id begins with" in page(watched.http, "/billing/clients", q="f%").replace("'", "&#39;")
    task_id = str(uuid.uuid4())
    assert f"/billing/task?id={task_id}" in page(watched.http, "/billing/clients", q=task_id)


def test_lists_have_what_waits_for_somebody_and_never_a_body(watched: Watched) -> None:
    """Given a dead letter, increments in doubt and a parked task, then each list has them, with what to type."""
    settings = watched.fleet.settings
    client = watched.fleet.client("waiting", 20)
    parked = park(settings, client, MARKER.encode())
    refuse(settings, f"{MARKER} of a letter".encode(), "credits: 'x': must be whole <b>")
    for state, units in (("quarantined", 11), ("rejected", 12), ("pending", 13)):
        increment(settings, client, state, units)

    letters = page(watched.http, "/billing/dead-letters")
    increments = page(watched.http, "/billing/increments")
    waiting = page(watched.http, "/billing/parked")
    of_client = page(watched.http, "/billing/client", id=client)

    (letter,) = rows(letters, "letters")
    assert (letter["Why"], letter["First"]) == ("credits: 'x': must be whole <b>", "3 d ago")
    assert letter["What to type"] == f"billing dead-letters show {letter['']}"
    assert [(row["State"], row["Units"]) for row in rows(increments, "increments")] == [
        ("quarantined", "11"), ("rejected", "12")
    ]  # fmt: skip
    assert {row["Why"] for row in rows(increments, "increments")} == {"no <b>answer</b>"}
    for shown in (waiting, of_client):
        (row,) = rows(shown, "parked")
        assert (row["Task"], row["Needs"], row["Had"]) == (f"{parked} tasks.<i>wait</i>", "700", "20")
        assert (row["Parked"], row["Expires"]) == ("2 h ago", "in 4 d")
    assert not any(MARKER in shown for shown in (letters, increments, waiting, of_client))


def test_the_page_of_the_fleet_has_its_numbers_laws_and_processes(watched: Watched) -> None:
    """Given the fleet as it is, then the page has what is not well first, and the sums that the books have."""
    fleet, client = watched.fleet, watched.fleet.client("summed", 1_000)
    watched.send("ok", client).get(timeout=120)
    running = watched.send("gated", client, "summed.gate")
    wait_until(lambda: fleet.holds(client), "one is held")
    held = [hold for shard in range(fleet.settings.shards) for hold in fleet.buckets.held(None, shard)]

    wait_until(
        lambda: cards(page(watched.http, "/billing")).get("Holds") == str(len(held)), "the fleet has been read again"
    )
    shown = page(watched.http, "/billing")

    assert set(cards(shown)) == {
        "Holds", "Outbox", "Queues", "Parked", "Dead letters", "Recovering", "Not planned"
    }  # fmt: skip
    assert cards(shown)["Recovering"] == "0"
    assert {row[""] for row in rows(shown, "queues")} == {f"billing.usage.{number}" for number in range(4)}
    assert {"L1 ceiling", "L2 bucket", "L3 one charge"} <= {row[""] for row in rows(shown, "laws-table")}
    verdicts = re.findall(r'<span class="billing-state billing-(bad|warn|good)">', shown)
    assert verdicts == sorted(verdicts, key=["bad", "warn", "good"].index)
    (fleet.directory / "summed.gate").touch()
    running.get(timeout=120)


def test_a_task_has_its_story_whether_flower_knows_it_or_not(watched: Watched) -> None:
    client = watched.fleet.client("told", 1_000)
    known, unseen = watched.send("ok", client), watched.fleet.send("ok", client)
    watched.fleet.wait_for_rows(2, client)

    for task in (known, unseen):
        task.get(timeout=120)
        shown = page(watched.http, "/billing/task", id=task.id)
        assert "charged 10 credits" in shown
        assert "settled" in shown
    failed = watched.fleet.send("fails", client)
    failed.get(timeout=120, propagate=False)
    shown = page(watched.http, "/billing/task", id=failed.id)
    assert "FAILURE: ValueError" in shown
    assert "ValueError: told" not in shown, "an error's text may quote an argument"
    watched.wait_for(known.id, "charged")
    own = page(watched.http, f"/task/{known.id}")
    assert f'data-source="/billing/task?id={known.id}&amp;client=told"' in own
    assert "charged 10 credits" not in own  # it is read by the browser: Flower's page asks nobody
    assert "no-store" not in watched.http.get(f"/task/{known.id}").headers.get("Cache-Control", "")


@pytest.mark.parametrize("name", [HOSTILE, CLIMBING, "..", "%2e%2e%2f"])
def test_a_clients_name_is_text_wherever_it_stands(watched: Watched, name: str) -> None:
    """Given a client whose id looks like markup, an address or an escape, then it is shown, linked to, and no more."""
    fleet, client = watched.fleet, watched.fleet.client(name, 500)
    park(fleet.settings, client, b"")
    task = watched.send("ok", client)
    watched.wait_for(task.id, "charged")
    fleet.wait_for_rows(1, client)

    listed = page(watched.http, "/billing/clients", q=name)
    links = re.findall(r'<th scope="row"><a href="([^"]+)">', listed)
    addresses_by_name = dict(zip((line[""] for line in rows(listed, "clients")), links, strict=True))
    own = watched.http.get(addresses_by_name[name].replace("&amp;", "&"))
    assert cards(own.text)["Available"] == "490"
    (used,) = rows(own.text, "used")
    assert used["Task"].startswith(task.id)
    for shown in (listed, own.text, *(page(watched.http, path) for path in ("/billing/parked", "/billing/holds"))):
        assert "<img/src" not in shown
        assert "onerror=alert(1)>" not in shown
    assert "<img/src" not in page(watched.http, f"/task/{task.id}")
    assert "<img/src" not in page(watched.http, "/billing/task", id=task.id, client=name)


@pytest.mark.parametrize(
    ("path", "query", "words"),
    [
        ("/billing/client", {"id": "nobody"}, "client_id: &#39;nobody&#39;: is not a known client"),
        ("/billing/client", {}, "client_id: &#39;&#39;: must be 1 to 128 printable characters"),
        ("/billing/client", {"id": "a b"}, "must be 1 to 128 printable characters"),
        ("/billing/client", {"id": "x" * 200}, "must be 1 to 128 printable characters"),
        ("/billing/client", {"id": "nobody", "span": "99y"}, "is not a known client"),
        ("/billing/task", {}, "A task&#39;s story is under its id"),
        ("/billing/task", {"id": "x" * 5_000}, "must be 1 to"),
        ("/billing/clients", {"q": "\x00'; DROP TABLE client; --"}, "No client&#39;s id begins with"),
    ],
)
def test_what_is_not_there_is_said_in_words(watched: Watched, path: str, query: dict[str, str], words: str) -> None:
    shown = page(watched.http, path, **query).replace("'", "&#39;")

    assert words in shown
    assert "Traceback" not in shown
    assert "cannot be shown now" not in shown
    assert "Recovering" not in shown


def test_the_first_page_is_also_behind_a_slash(watched: Watched) -> None:
    assert "/billing/clients" in page(watched.http, "/billing/")
    assert watched.http.get("/billing/nothing").status_code == 404


def test_a_browser_keeps_frames_and_loads_nothing_from_elsewhere(watched: Watched) -> None:
    for address in addresses():
        answer = watched.http.get(address)
        assert answer.status_code == 200, (address, answer.text)
        assert answer.headers["Cache-Control"] == "no-store", address
        assert answer.headers["X-Frame-Options"] == "DENY", address
        assert answer.headers["Referrer-Policy"] == "no-referrer", address
        policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
        assert policy.pop("img-src") == "'self' data:"
        assert {name: policy.pop(name) for name in ("default-src", "base-uri", "frame-ancestors")} == {
            "default-src": "'none'", "base-uri": "'none'", "frame-ancestors": "'none'"
        }  # fmt: skip
        assert set(policy.values()) == {"'self'"}, address
        assert "Etag" not in answer.headers
        assert not re.search(r'(src|action)="(https?:)?//', answer.text), address
    assert watched.http.get("/billing/static/other.css").status_code == 404


def test_nothing_can_be_done_by_the_pages(watched: Watched) -> None:
    for address in addresses():
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert watched.http.request(method, address).status_code == 405, (method, address)
