"""What holds a consumer up can be seen from outside, while it lasts and no longer (L9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from billing.fulfillment.consumer import Consumer
from billing.observability.metrics.consumer import ConsumerMetrics
from billing.observability.metrics.serving import MetricsServer
from tests.integration.consuming import events, prepare, running, send, until_rows, usage_log
from tests.integration.scraping import scrape
from tests.proxy import in_front_of
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@contextmanager
def measured(consumer: Consumer) -> Iterator[str]:
    """Run a consumer and serve its metrics; yield their address."""
    server = MetricsServer("127.0.0.1:0", ConsumerMetrics(consumer.pressure))
    server.start()
    try:
        with running(consumer):
            yield server.url
    finally:
        server.close()


def is_at_rest(url: str) -> bool:
    """Whether nothing is in hand and nothing waits."""
    seen = scrape(url)
    return not any(
        seen[name] for name in ("hand_events", "oldest_seconds", "write_age_seconds", "database_wait_seconds")
    )


def test_given_a_lock_in_postgresql_while_events_come_then_a_scrape_shows_what_waits_and_afterwards_nothing(
    broker_url: str, database_url: str
) -> None:
    """Given a held table, then what is in hand grows to its limit, and its age; once it is free, all returns to 0."""
    settings = prepare(broker_url, database_url, usage_queues=1)
    consumer = Consumer(settings, usage_log(settings))
    with measured(consumer) as url:
        wait_until(lambda: scrape(url)["subscribed_queues"] == 1, "it is subscribed")
        assert is_at_rest(url)
        with psycopg.connect(settings.database_url) as holder:
            holder.execute("LOCK TABLE usage_history IN ACCESS EXCLUSIVE MODE")
            send(settings, [*events(30), *events(5), ("ada", b"junk")])
            wait_until(lambda: scrape(url)["hand_events"] == 40, "both batches that may be in hand are")
            seen = scrape(url)
            assert seen["hand_limit_events"] == 40
            assert seen["committed_events_total"] == 0
            wait_until(
                lambda: scrape(url)["oldest_seconds"] > seen["oldest_seconds"] > 0, "the oldest event gets older"
            )
            wait_until(lambda: scrape(url)["write_age_seconds"] > seen["write_age_seconds"] > 0, "so does the write")
        until_rows(settings, 90)
        wait_until(lambda: scrape(url)["committed_events_total"] == 106, "all is written")
        wait_until(lambda: is_at_rest(url), "nothing is in hand any more")
        seen = scrape(url)
        assert (seen["usage_rows_total"], seen["duplicate_events_total"], seen["dead_letters_total"]) == (90, 15, 1)
        assert seen["batch_write_seconds_count"] == consumer.batches
        assert seen["batch_write_seconds_sum"] > 0


def test_given_that_postgresql_is_away_then_a_scrape_shows_for_how_long_and_afterwards_nothing(
    broker_url: str, database_url: str
) -> None:
    with in_front_of(database_url) as (proxy, url_of_database):
        settings = prepare(broker_url, url_of_database)
        with measured(Consumer(settings, usage_log(settings))) as url:
            send(settings, events(1))
            until_rows(settings, 3)
            proxy.shut()
            send(settings, events(1, first=1))
            wait_until(lambda: scrape(url)["database_wait_seconds"] > 0, "it waits for PostgreSQL")
            assert scrape(url)["database_failures_total"] > 0
            assert scrape(url)["hand_events"] == 3
            proxy.reopen()
            until_rows(settings, 6)
            wait_until(lambda: is_at_rest(url), "nothing is in hand any more")
