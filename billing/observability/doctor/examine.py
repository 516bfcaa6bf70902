"""`billing doctor`: looks at every part that billing stands on, and says for each finding what to do.

It only reads. A part that does not answer is a finding, not an error, so that one dead server hides no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy import text

from billing.connections import broker, postgres
from billing.core.errors import BillingError, NotMigrated
from billing.core.settings import without_password
from billing.events import topology
from billing.fulfillment.dead_letters import count_open
from billing.ledger import postings
from billing.observability.doctor_allowances import examine_allowances
from billing.observability.doctor_clocks import examine_clocks
from billing.observability.doctor_corruptions import examine_corruptions
from billing.observability.doctor_reconciliation import examine_reconciler, examine_reconciliation
from billing.observability.doctor_redis import examine_redis
from billing.observability.doctor_stripe import examine_stripe
from billing.observability.finding import Finding, fail, ok, warn
from billing.recovery.facts import shards_with_clients
from billing.schema import migrate
from billing.schema.fleet import check_fleet
from billing.task.billable import BillableTask
from billing.task.runtime import Runtime

_POSTGRES_VERSION_MIN: Final = 15
_MONTHS_AHEAD_MIN: Final = 2
#: A fulfillment worker brings a grant into its bucket within seconds.
_BEHIND_SECONDS_MAX: Final = 60


def examine(runtime: Runtime, app: Any = None) -> list[Finding]:
    """Check every part; `app` adds the checks of its tasks."""
    findings: list[Finding] = []
    parts = (
        ("Redis", examine_redis),
        ("PostgreSQL", _postgres),
        ("clocks", examine_clocks),
        ("buckets", _buckets),
        ("buckets", examine_corruptions),
        ("broker", _broker),
        ("Stripe", examine_stripe),
        ("reconciliation", examine_reconciliation),
        ("reconciliation", examine_reconciler),
        ("allowances", examine_allowances),
    )
    for part, check in parts:
        findings += _guarded(part, check, runtime)
    return findings + ([] if app is None else list(_tasks(app)))


def _guarded(part: str, check: Callable[[Runtime], Iterator[Finding]], runtime: Runtime) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(runtime))
    except NotMigrated as error:
        found.append(fail(part, str(error), "run: billing migrate"))
    except BillingError as error:
        found.append(fail(part, str(error), "start the server, or mend the setting"))
    return found


def _postgres(runtime: Runtime) -> Iterator[Finding]:
    settings = runtime.settings
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
        major = number // 10_000
        seen = f"version {major} at {without_password(settings.database_url)}"
        if major < _POSTGRES_VERSION_MIN:
            yield fail("PostgreSQL", seen, f"use version {_POSTGRES_VERSION_MIN} or later")
        else:
            yield ok("PostgreSQL", seen)
        at, wanted = migrate.current(settings), migrate.head()
        if at != wanted:
            yield fail(
                "PostgreSQL", f"schema is at {at or 'nothing'}, this version needs {wanted}", "run: billing migrate"
            )
            return
        yield ok("PostgreSQL", f"schema is at {at}")
        check_fleet(connection, settings)
        months = connection.execute(text(_MONTHS_AHEAD)).scalar_one()
        verdict = ok if months >= _MONTHS_AHEAD_MIN else fail
        yield verdict("PostgreSQL", f"usage history has months for {months} months ahead", "run: billing migrate")
        unguarded = connection.execute(text(_UNGUARDED)).scalar_one()
        verdict = fail if unguarded else ok
        yield verdict("PostgreSQL", f"{unguarded} partitions may be changed (L7)", "run: billing migrate")
        letters = count_open(connection)
        verdict = warn if letters else ok
        yield verdict(
            "PostgreSQL", f"{letters} dead letters{' are open' if letters else ''}", "billing dead-letters list"
        )


def _buckets(runtime: Runtime) -> Iterator[Finding]:
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        shards = sorted(shards_with_clients(connection))
        behind, oldest_seconds = connection.execute(text(_BEHIND)).one()
        refused = postings.refused(connection, _REFUSED_MAX)
    recovering = [shard for shard in shards if len(set(runtime.buckets.server_of(shard))) > 1]
    if recovering:
        listed = ", ".join(map(str, recovering[:10]))
        yield fail(
            "buckets",
            f"{len(recovering)} shards are recovering ({listed})",
            "a worker with --fulfillment rebuilds them",
        )
    else:
        yield ok("buckets", f"{len(shards)} shards with clients, all trusted")
    verdict = warn if oldest_seconds > _BEHIND_SECONDS_MAX else ok
    advice = "start a worker with --fulfillment; its log says what keeps one out"
    age = f", the oldest for {oldest_seconds:,} s" if behind else ""
    yield verdict("buckets", f"{behind} grants and changes are not in their buckets yet{age}", advice)
    if refused:
        first = refused[0]
        seen = f"{len(refused)} postings are refused, as of client {first.client_id}, grant {first.grant_id}"
        yield fail(
            "buckets", f"{seen}: {first.reason}", "the log has more than a bucket can count: billing reconcile --status"
        )
    waiting = sum(runtime.buckets.outbox_depth(shard) for shard in shards)
    verdict = ok if waiting < runtime.settings.outbox_entries_max else warn
    yield verdict("buckets", f"{waiting} usage events wait to be confirmed", "see whether the broker answers")


def _broker(runtime: Runtime) -> Iterator[Finding]:
    settings = runtime.settings
    connection = broker.connection(settings)
    with broker.reaching(settings, connection), connection:
        connection.ensure_connection(max_retries=1, timeout=max(1, round(settings.publish_timeout_seconds)))
        yield ok("broker", f"answers at {without_password(settings.broker_url)}")
        if not broker.confirms(settings):
            yield warn("broker", "has no confirms (Redis transport)", "use RabbitMQ where money is at stake")
            return
        for number in range(settings.usage_queues):
            queue = topology.queue_name(settings, number)
            channel: Any = connection.channel()
            try:
                declared = channel.queue_declare(queue, passive=True)
            except connection.channel_errors:
                yield warn("broker", f"queue {queue} is not declared yet", "start a worker with --fulfillment")
                continue
            finally:
                channel.close()
            verdict = ok if declared.consumer_count else warn
            seen = f"queue {queue}: {declared.message_count} events, {declared.consumer_count} consumers"
            yield verdict("broker", seen, "start a worker with --fulfillment")


def _tasks(app: Any) -> Iterator[Finding]:
    """Look for tasks that acknowledge early: they lose their work with their worker, and the charge with it (L3)."""
    # Celery imports an app's tasks in workers only.
    app.loader.import_default_modules()
    billable = [
        task
        for task in app.tasks.values()
        if isinstance(task, BillableTask) and task.sku is not None and not str(task.name).startswith("billing.")
    ]
    yield ok("tasks", f"{len(billable)} billable tasks in app {app.main}")
    for task in billable:
        if not task.acks_late or not task.reject_on_worker_lost:
            yield warn("tasks", f"{task.name} overrides acks_late or reject_on_worker_lost", "leave both on")


#: Refused postings that are counted.
_REFUSED_MAX: Final = 50
_BEHIND: Final = """
SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::bigint
FROM (SELECT created_at FROM credit_grant WHERE applied_at IS NULL
      UNION ALL SELECT created_at FROM client_change WHERE applied_at IS NULL) AS behind
"""
_MONTHS_AHEAD: Final = """
    SELECT count(*) FROM pg_inherits
      JOIN pg_class ON pg_class.oid = inhrelid
     WHERE inhparent = 'usage_history'::regclass
       AND relname ~ '^usage_history_[0-9]{4}_[0-9]{2}$'
       AND relname > 'usage_history_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')
"""
#: Partitions without the three triggers that refuse UPDATE, DELETE and TRUNCATE.
_UNGUARDED: Final = """
    SELECT count(*) FROM pg_inherits
     WHERE inhparent IN ('usage_history'::regclass, 'archive.usage_history'::regclass)
       AND (SELECT coalesce(bit_or(tgtype::int), 0) & 56 FROM pg_trigger
             WHERE tgrelid = inhrelid AND tgenabled = 'A' AND NOT tgisinternal) <> 56
"""
