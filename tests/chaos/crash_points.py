"""The points at which processes and servers are killed, as data: between every two steps of an event's way.

`tests.chaos.crashing` says how a point is read, `tests.chaos.stream` what the numbers count: messages, batches of ten.
"""

from __future__ import annotations

from typing import Final

from tests.chaos.crashing import Point, Victim, When

_BUCKETS: Final = "billing.credits.buckets:Buckets"
_PUBLISH: Final = "amqp.channel:Channel.basic_publish"
_CONFIRMS: Final = "billing.events.confirms:ConfirmingChannel"
_INTAKE: Final = "billing.fulfillment.intake:Intake"
_LOG: Final = "billing.fulfillment.postgres_log:PostgresUsageLog"
_SQL: Final = "billing.fulfillment.log_statements:"
_STOPS: Final = "consumer that stops"
_CUT_OFF: Final = "consumer that is cut off"


def _at(process: str, name: str, when: When, where: str, nth: int = 1, victim: Victim = "itself") -> Point:
    return Point(name=name, process=process, when=when, where=where, nth=nth, victim=victim)


PUBLISHER: Final = (
    _at("publisher", "held, not settled", "before", f"{_BUCKETS}.settle", 5),
    _at("publisher", "settled, not published", "after", f"{_BUCKETS}.settle", 5),
    _at("publisher", "published, its confirm not read", "after", _PUBLISH, 5),
    _at("publisher", "confirmed, not noted", "after", "billing.events.publisher:Publisher.publish", 5),
    _at("publisher", "noted, its outbox entry not removed", "before", f"{_BUCKETS}.forget_reached"),
    _at("publisher", "its outbox entry removed", "after", f"{_BUCKETS}.forget_reached"),
)

RELAY: Final = (
    _at("relay", "outbox read", "after", f"{_BUCKETS}.outbox"),
    _at("relay", "half of a window published", "after", _PUBLISH, 5),
    _at("relay", "a window published, no confirm read", "after", _PUBLISH, 8),
    _at("relay", "in the middle of a window's confirms", "after", f"{_CONFIRMS}._on_ack"),
    _at("relay", "between two windows of a batch", "before", "billing.events.publisher:Publisher._publish_window", 2),
    _at("relay", "a batch confirmed, not removed", "before", f"{_BUCKETS}.forget", 2),
    _at("relay", "a batch removed from the outbox", "after", f"{_BUCKETS}.forget", 2),
)

CONSUMER: Final = (
    _at("consumer", "subscribed", "after", f"{_INTAKE}.open"),
    _at("consumer", "received, not decoded", "before", "billing.fulfillment.receiving:decode", 15),
    _at("consumer", "buffered", "after", "billing.fulfillment.batch:Batch.add", 15),
    _at("consumer", "a batch taken", "before", f"{_LOG}.write", 2),
    _at("consumer", "transaction begun", "after", f"{_SQL}LOCK_SHARDS", 2),
    _at("consumer", "clients read", "after", f"{_SQL}READ_CLIENTS", 2),
    _at("consumer", "direct events allotted", "after", f"{_SQL}READ_GRANTS_LEFT"),
    _at("consumer", "copied", "after", "psycopg:Copy.__exit__", 2),
    _at("consumer", "rows inserted", "after", f"{_SQL}INSERT_RUNS_WITH_LINES"),
    _at("consumer", "rolled up", "after", f"{_SQL}ADD_ROLLUPS", 2),
    _at("consumer", "grant sums added", "after", f"{_SQL}ADD_SPENT", 2),
    _at("consumer", "duplicates joined back", "after", f"{_SQL}READ_SETTLEMENTS", 2),
    _at("consumer", "a settlement given back", "after", f"{_SQL}RETURN_SETTLEMENTS"),
    _at("consumer", "posted", "after", f"{_SQL}ADD_POSTINGS"),
    _at("consumer", "dead letters kept", "after", "billing.fulfillment.dead_letters:_KEEP"),
    _at("consumer", "marker written, not committed", "after", f"{_SQL}ADD_MARKERS"),
    _at("consumer", "committed, what follows not begun", "after", f"{_LOG}.write", 2),
    _at("consumer", "committed, not acked", "before", f"{_INTAKE}.ack", 2),
    _at("consumer", "half of a multiple ack sent", "halfway", f"{_INTAKE}.ack", 2),
    _at("consumer", "acked", "after", f"{_INTAKE}.ack", 2),
    _at("consumer", "the database refuses a batch", "before", "billing.fulfillment.commit:Commit._bisect"),
    _at("consumer", "one half of a batch committed", "after", "billing.fulfillment.commit:Commit.commit", 4),
    _at("consumer", "the refused event alone", "before", "billing.fulfillment.commit:Commit._bisect", 4),
    _at(_CUT_OFF, "a batch to be given back", "before", f"{_INTAKE}.throw_away"),
    _at(_CUT_OFF, "a batch given back", "after", f"{_INTAKE}.throw_away"),
    _at(_STOPS, "told to stop, a batch in doubt", "before", "billing.fulfillment.consumer:Consumer._finish"),
    _at(_STOPS, "told to stop, a batch committed", "before", f"{_INTAKE}.ack", 2),
    _at(_STOPS, "the rest not given back", "before", f"{_INTAKE}.close"),
    _at("drain", "a drain's batch not committed", "after", f"{_LOG}._write", 2),
    _at("drain", "a drain's batch not acked", "before", f"{_INTAKE}.ack", 2),
)

AFTER_A_COMMIT: Final = (
    _at("postings", "read, in no bucket", "before", f"{_BUCKETS}.post"),
    _at("postings", "in the bucket, not noted", "after", f"{_BUCKETS}.post"),
    _at("postings", "half of the clients posted", "after", "billing.ledger.postings:mark_applied"),
    _at("alerts", "read, not recorded", "after", f"{_BUCKETS}.alerts"),
    _at("alerts", "recorded, not forgotten", "before", f"{_BUCKETS}.forget_alerts"),
    _at("alerts", "forgotten, not announced", "after", f"{_BUCKETS}.forget_alerts"),
)

RABBITMQ: Final = (
    _at("relay", "node killed, messages unconfirmed", "after", _PUBLISH, 8, "rabbitmq"),
    _at("relay", "node killed, messages confirmed", "before", f"{_BUCKETS}.forget", 2, "rabbitmq"),
    _at(
        "consumer",
        "node killed, delivered and not acked",
        "after",
        "billing.fulfillment.batch:Batch.add",
        15,
        "rabbitmq",
    ),
    _at("consumer", "node killed, half of an ack received", "halfway", f"{_INTAKE}.ack", 2, "rabbitmq"),
)

POSTGRES: Final = (
    _at("consumer", "server killed before the commit", "after", f"{_LOG}._write", 2, "postgres"),
    _at("consumer", "server killed before its answer to the commit", "halfway", f"{_LOG}._write", 2, "postgres"),
    _at("consumer", "backend killed before the commit", "after", f"{_LOG}._write", 2, "backend"),
    _at("postings", "server killed, a posting in the bucket", "after", f"{_BUCKETS}.post", 1, "postgres"),
)

ITSELF: Final = (*PUBLISHER, *RELAY, *CONSUMER, *AFTER_A_COMMIT)
SERVERS: Final = (*RABBITMQ, *POSTGRES)
POINTS: Final = (*ITSELF, *SERVERS)
#: What the suite has time for: every second process, one death of each server in the middle of its work.
IN_SUITE: Final = (*ITSELF[::2], RABBITMQ[2], POSTGRES[1])
