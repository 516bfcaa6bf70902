"""`billing exporter` serves the fleet's metrics to Prometheus until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from billing.embedded.server import free_port
from billing.observability.metrics.catalogue import CATALOGUE, Source
from tests.integration.recovering import Business, clients_by_queue
from tests.integration.watching_fleet import declare
from tests.terminal import NOWHERE, ROOT, SECRET, Terminal
from tests.waiting import LIMIT_SECONDS, wait_until

pytestmark = pytest.mark.integration

SAMPLES = dict[tuple[str, frozenset[tuple[str, str]]], float]


@contextmanager
def exporting(environment: dict[str, str], directory: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command; end it when the block does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "billing.cli.main", "exporter", *options],
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def scrape(port: int) -> SAMPLES:
    """Return what a scrape has, as Prometheus reads it; nothing while the exporter does not listen yet."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60, trust_env=False)
    except httpx.ConnectError:
        return {}
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def environment_of(business: Business) -> dict[str, str]:
    """Return the environment in which a command finds the business's servers."""
    settings = business.settings
    return {
        "BILLING_REDIS_URL": settings.redis_url,
        "BILLING_DATABASE_URL": settings.database_url,
        "BILLING_BROKER_URL": settings.broker_url,
        "BILLING_CONNECTION_FILE": "/nonexistent",
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_given_an_exporter_when_scraped_then_it_says_how_the_fleet_stands_and_ends_when_it_is_told(
    business: Business, tmp_path: Path, number: signal.Signals
) -> None:
    declare(business)
    clients = [business.client(client_id, 1_000) for client_id in clients_by_queue()]
    for client_id in clients:
        business.hold(client_id, 25)
        business.settle(client_id, 5, "done")
    port = free_port()
    with exporting(environment_of(business), tmp_path, "--address", f"127.0.0.1:{port}") as process:
        wait_until(lambda: ("billing_increments", frozenset({("state", "sent")})) in scrape(port), "every part is read")
        wait_until(lambda: scrape(port).get(("billing_held_credits", frozenset())) == 100, "holds are read")
        found = scrape(port)
        assert found["billing_outbox_events", frozenset()] == 4
        assert found["billing_holds", frozenset()] == 4
        for server in ("Redis", "PostgreSQL", "broker"):
            assert found["billing_server_up", frozenset({("server", server)})] == 1
        names = {name for name, _ in found}
        assert names == {metric.name for metric in CATALOGUE if metric.source is Source.FLEET}
        assert found["billing_read_age_seconds", frozenset()] < 600
        first = scrape(port)["billing_outbox_oldest_seconds", frozenset()]
        wait_until(lambda: scrape(port)["billing_outbox_oldest_seconds", frozenset()] > first, "it reads anew")
        process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, err) == (0, "")
    assert out == f"metrics of the fleet: http://127.0.0.1:{port}/metrics; Ctrl-C stops it\n"


def test_given_servers_that_do_not_answer_then_a_scrape_says_so_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    with exporting(NOWHERE | {"BILLING_CONNECTION_FILE": "/nonexistent"}, tmp_path, "--address", f"127.0.0.1:{port}"):
        wait_until(lambda: len(scrape(port)) > 0, "there is a reading")
        found = scrape(port)
    assert {name for name, _ in found} == {"billing_server_up", "billing_findings", "billing_read_age_seconds"}
    up = {dict(labels)["server"]: value for (name, labels), value in found.items() if name == "billing_server_up"}
    assert up == {"Redis": 0, "PostgreSQL": 0, "broker": 0}


def test_given_a_port_that_is_taken_then_the_exporter_says_so_in_one_line(shop: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        shop.run("exporter", "--address", address).refused(2, "--address", address, "cannot be listened on")


@pytest.mark.parametrize(
    "address", ["9808", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "me@here:1", "[::1:9808", ":9"]
)
def test_given_an_address_that_is_none_then_the_exporter_says_what_one_is(shop: Terminal, address: str) -> None:
    shop.type("exporter", "--address", address).refused(2, "--address", address, "must be host:port")


def test_given_wrong_settings_then_the_exporter_names_the_field(shop: Terminal) -> None:
    shop.run("exporter", BILLING_SHARDS="none").refused(2, "BILLING_SHARDS", "none")
    shop.run("exporter", BILLING_REDIS_URL=f"ftp://:{SECRET}@here").refused(2, "BILLING_REDIS_URL")


def test_the_help_says_who_may_reach_it(shop: Terminal) -> None:
    said = " ".join(shop.type("exporter", "--help").out.split())
    assert "127.0.0.1:9808" in said
    assert "no authentication" in said
