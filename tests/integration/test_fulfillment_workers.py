"""Several fulfillment workers: each has its own usage queues, a standby takes over, a stop leaves nothing in doubt."""

from __future__ import annotations

import os
import signal

import psycopg
import pytest

from billing import admin
from billing.core.shards import queue_of, shard_of
from billing.embedded.process import Child
from tests.fleet.harness import Fleet
from tests.integration.lettering import body_of, charge
from tests.integration.scraping import scrape, url_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def start(fleet: Fleet, name: str, option: str, address: str = "0") -> Child:
    """Start a fulfillment worker of some queues that serves its metrics, and takes few refusals in a row."""
    environment = {"BILLING_METRICS_ADDRESS": address, "BILLING_DEAD_LETTER_RUN_MAX": "20"}
    return fleet.start(name, pool="solo", options=(option,), environment=environment)


def metrics_of(child: Child) -> str:
    """Return where a worker serves its metrics, once it is subscribed to its queues."""
    url = url_of(child)
    wait_until(lambda: scrape(url)["subscribed_queues"] > 0, f"{child.name} is subscribed")
    return url


def send(fleet: Fleet, clients: dict[int, str], count: int) -> None:
    """Publish events of each client, 10 credits each."""
    for queue, client_id in clients.items():
        for _ in range(count):
            shard = shard_of(client_id, fleet.settings.shards)
            fleet.runtime.publisher.publish(queue, body_of(charge(client_id)), shard=shard, entry_id=None)


def committed(url: str) -> int:
    """Return how many events a worker has committed."""
    return int(scrape(url)["committed_events_total"])


def test_each_worker_serves_its_queues_and_a_standby_gets_nothing_until_one_of_them_is_dead_or_stopped(
    fleet: Fleet,
) -> None:
    """L3: two workers share the queues, a third stands by; SIGKILL, or a stop amid a write, lose and double nothing.

    One address serves one worker: another one on it ends with one line. And so does the last one of them, with an exit
    code, when nothing but poison comes.
    """
    clients: dict[int, str] = {}
    for number in range(100):
        queue = queue_of(shard_of(f"client-{number}", fleet.settings.shards), fleet.settings.usage_queues)
        clients.setdefault(queue, f"client-{number}")
    assert sorted(clients) == [0, 1, 2, 3]
    for client_id in clients.values():
        admin.add_client(fleet.settings, client_id)
    workers = [start(fleet, "first", "--fulfillment=0,1"), start(fleet, "second", "--fulfillment=2,3")]
    first, second = map(metrics_of, workers)
    last = start(fleet, "standby", "--fulfillment")
    standby = metrics_of(last)
    taken = start(fleet, "taken", "--fulfillment", first.split("/")[2])

    send(fleet, clients, 5)
    fleet.wait_for_rows(20)
    wait_until(lambda: (committed(first), committed(second)) == (10, 10), "each has committed its own")
    assert committed(standby) == 0
    assert (scrape(first)["subscribed_queues"], scrape(standby)["subscribed_queues"]) == (2, 4)

    assert taken.wait(120) not in (None, 0)
    said = taken.log.read_text(errors="replace")
    assert said.count("billing_metrics_address: ") == 1
    assert "cannot be listened on (Address already in use)" in said
    assert "Traceback" not in said

    workers[0].signal(signal.SIGKILL)
    send(fleet, clients, 5)
    fleet.wait_for_rows(40)
    wait_until(lambda: (committed(second), committed(standby)) == (20, 10), "the standby has the dead one's queues")

    with psycopg.connect(fleet.settings.database_url) as holder:
        holder.execute("LOCK TABLE usage_history IN ACCESS EXCLUSIVE MODE")
        send(fleet, {2: clients[2]}, 5)
        wait_until(lambda: scrape(second)["write_age_seconds"] > 0, "a batch is being written")
        workers[1].signal(signal.SIGTERM)
        wait_until(lambda: "Warm shutdown" in workers[1].log.read_text(errors="replace"), "it stops")
    assert workers[1].wait(120) == 0
    send(fleet, clients, 5)
    fleet.wait_for_rows(65)
    wait_until(lambda: scrape(standby)["hand_events"] == 0, "nothing is in hand")
    with psycopg.connect(fleet.settings.database_url) as connection:
        found = connection.execute("SELECT client_id, count(*) FROM usage_history GROUP BY 1").fetchall()
    assert dict(found) == {client_id: 20 if queue == 2 else 15 for queue, client_id in clients.items()}
    for client_id, rows in found:
        wait_until(lambda: fleet.balance(client_id).spent == 10 * rows, "its bucket knows")  # noqa: B023 - called here

    for number in range(20):
        fleet.runtime.publisher.publish(0, b"junk %d" % number, shard=0, entry_id=None)
    assert last.wait(120) == os.EX_SOFTWARE
    said = last.log.read_text(errors="replace")
    assert said.count("billing: the consumer stops: billing_dead_letter_run_max: 20 events in a row") == 1
    assert "what is not written stays in its queue (see: billing dead-letters list)" in said
