"""The settings: `billing_*` keys of the Celery configuration, each with an environment variable `BILLING_*` that wins.

Reading is pure: mappings in, one frozen object out. An unknown `billing_*` key or a bad value is refused with one
line that names the key, the value and the rule, so that a worker with a typing mistake does not start.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from billing.core.errors import InvalidValue
from billing.core.parsers import (
    Parser,
    choice,
    event_name,
    flag,
    listening,
    name,
    percents,
    reference,
    seconds,
    stripe_key,
    url,
    whole,
)
from billing.core.redis_address import redis_url, shown_nodes
from billing.core.signing_keys import SigningKey, signing_key, signing_keys

OnExhausted = Literal["fail", "retry", "park"]
OnRedisDown = Literal["retry", "fail", "meter_only"]
Publish = Literal["confirm", "relay"]
LogFormat = Literal["text", "json"]
StripePeriods = Literal["subscription", "calendar"]
StripeLateUsage = Literal["carry_forward", "invoice_item", "write_off"]


def _setting(default: Any, parse: Parser, meaning: str, *, shown: bool = True) -> Any:
    return dataclasses.field(default=default, repr=shown, metadata={"parse": parse, "meaning": meaning})


def _address(default: str, schemes: tuple[str, ...], meaning: str) -> Any:
    """Make the field of a URL: it may hold a password, so it is not part of the settings' repr."""
    return _setting(default, url(*schemes), meaning, shown=False)


_REDIS: Final = ("redis", "rediss", "unix")
_AMQP_OR_REDIS: Final = ("amqp", "amqps", "pyamqp", "redis", "rediss", "memory")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, parsed. The field `x` is the Celery key `billing_x` and the environment variable `BILLING_X`."""

    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0", redis_url, "billing's own Redis or Valkey, its Sentinels or cluster", shown=False
    )
    database_url: str = _address(
        "postgresql://127.0.0.1:5432/billing", ("postgresql", "postgres"), "the PostgreSQL of the usage history"
    )
    broker_url: str = _address(
        "amqp://guest:guest@127.0.0.1:5672//", _AMQP_OR_REDIS, "the broker of tasks and usage events"
    )
    result_url: str = _address("redis://127.0.0.1:6379/1", (*_REDIS, "db+postgresql", "rpc"), "this fleet's results")
    shards: int = _setting(64, whole(1, 4096), "fixed number of bucket shards; never changed once clients exist")
    usage_queues: int = _setting(4, whole(1, 64), "fixed number of usage queues")
    usage_exchange: str = _setting("billing.usage", name, "name of the usage exchange and prefix of its queues")
    signing_key: SigningKey | None = _setting(
        None, signing_key, "NAME:SECRET with which this process signs its usage events; none: it does not", shown=False
    )
    verifying_keys: tuple[SigningKey, ...] = _setting(
        (),
        signing_keys,
        "keys of all senders, one of whose signatures a consumer asks of each event; none: of none",
        shown=False,
    )
    lease_seconds: float = _setting(60.0, seconds(1, 86_400), "how long a hold lasts unrenewed")
    hold_age_max_seconds: float = _setting(
        86_400.0, seconds(1, 31 * 86_400), "how long a hold may be extended while its run's result is not known"
    )
    settled_retention_seconds: float = _setting(3_600.0, seconds(1, 31 * 86_400), "how long settled ids are kept")
    redis_timeout_seconds: float = _setting(1.0, seconds(0.01, 60), "bound on one call to Redis")
    redis_retries: int = _setting(1, whole(0, 10), "further tries of a call to Redis that failed")
    redis_connections_max: int = _setting(
        1_000, whole(1, 100_000), "connections to one Redis server that a process opens at most; a thread uses one"
    )
    database_timeout_seconds: float = _setting(5.0, seconds(0.1, 300), "bound on connecting to PostgreSQL")
    publish: Publish = _setting("confirm", choice("confirm", "relay"), "who publishes usage events: worker or relay")
    publish_timeout_seconds: float = _setting(2.0, seconds(0.1, 60), "bound on one publish with its confirm")
    outbox_entries_max: int = _setting(10_000, whole(10, 10_000_000), "events a shard's outbox holds before it refuses")
    relay_after_seconds: float = _setting(5.0, seconds(0, 3_600), "age at which the relay publishes an outbox entry")
    relay_batch: int = _setting(500, whole(1, 10_000), "outbox entries the relay takes from a shard at once")
    sweep_batch: int = _setting(200, whole(1, 10_000), "overdue holds the reaper takes from a shard at once")
    price_refresh_seconds: float = _setting(
        15.0, seconds(0, 3_600), "age at which a worker renews its copy of the price book"
    )
    price_age_max_seconds: float = _setting(
        3_600.0, seconds(0, 86_400), "how old that copy may get while PostgreSQL is away; then tasks wait"
    )
    batch_events: int = _setting(500, whole(1, 10_000), "usage events that one batch holds at most")
    batch_bytes: int = _setting(4_194_304, whole(1_024, 2**30), "bytes of events that one batch holds at most")
    batch_age_seconds: float = _setting(0.5, seconds(0.01, 60), "age at which a batch is written though not full")
    dead_letter_run_max: int = _setting(
        1_000, whole(1, 1_000_000), "refused events in a row at which the consumer stops instead of going on"
    )
    dead_letter_percent_max: int = _setting(
        10, whole(1, 100), "percentage of refused events among the last ones beyond which it stops, too; 100: never"
    )
    dead_letter_window: int = _setting(
        10_000, whole(100, 100_000), "how many the last ones are; that percentage of so many are never too many"
    )
    metrics_address: str = _setting(
        "", listening, "host:port, or port on loopback, where a worker serves its metrics, each its own; none: nowhere"
    )
    on_exhausted: OnExhausted = _setting(
        "fail", choice("fail", "retry", "park"), "what a task without enough credits does"
    )
    exhausted_wait_seconds: float = _setting(
        5.0, seconds(0.1, 3_600), "how long a task waits for credits the first time, under the policy retry"
    )
    exhausted_wait_max_seconds: float = _setting(
        86_400.0, seconds(0, 31 * 86_400), "how long it waits for them in all; then it fails"
    )
    parked_per_client_max: int = _setting(
        10_000, whole(1, 1_000_000), "tasks that wait for credits in PostgreSQL, of one client; further ones fail"
    )
    parked_age_max_seconds: float = _setting(
        7 * 86_400.0, seconds(1, 366 * 86_400), "how long a task waits there before it fails"
    )
    on_redis_down: OnRedisDown = _setting(
        "retry", choice("retry", "fail", "meter_only"), "what a task does while Redis is away"
    )
    dry_run: bool = _setting(
        default=False, parse=flag, meaning="bill nothing and refuse nothing, but count what would be"
    )
    stripe_api_key: str = _setting("", stripe_key, "Stripe's API key; without one the stand-in is used", shown=False)
    stripe_live: bool = _setting(default=False, parse=flag, meaning="allow a live key: clients then pay real money")
    stripe_sandbox_url: str = _address(
        "http://127.0.0.1:12111", ("http",), "where `billing stripe sandbox` answers; used without an API key"
    )
    stripe_meter: str = _setting(
        "billing_credits",
        event_name,
        "event name of the meter of SKUs without one of their own; a unit of it is one credit, unless it was added",
    )
    stripe_periods: StripePeriods = _setting(
        "subscription",
        choice("subscription", "calendar"),
        "where billing periods come from: each client's subscription at Stripe, or UTC months",
    )
    stripe_grace_hours: int = _setting(
        1,
        whole(0, 72),
        "hours after a period's end in which Stripe still adds usage to its invoice: the grace period of your account",
    )
    stripe_late_usage: StripeLateUsage = _setting(
        "carry_forward",
        choice("carry_forward", "invoice_item", "write_off"),
        "what becomes of usage that comes after its period has closed",
    )
    stripe_push_batch: int = _setting(4_000, whole(1, 100_000), "increments that one push sends at most")
    stripe_calls_per_second: int = _setting(
        20, whole(1, 1_000), "usage events that the whole fleet sends to Stripe in any second, at most"
    )
    reconcile_slice: int = _setting(500, whole(1, 10_000), "clients that reconciliation compares at once")
    reconcile_wait_seconds: float = _setting(
        30.0, seconds(0, 600), "how long reconciliation waits for events on their way before it calls them missing"
    )
    reconcile_pass_seconds: float = _setting(
        20.0, seconds(0, 86_400), "time in which the fulfillment worker compares every bucket, over and over; 0: never"
    )
    reconcile_load_percent: int = _setting(
        40, whole(1, 100), "share of one core that this may take; where it does not suffice, passes take longer"
    )
    log_format: LogFormat = _setting(
        "text", choice("text", "json"), "how a process of Celery's writes its log: as text, or a JSON object per line"
    )
    alert_percents: tuple[int, ...] = _setting(
        (20, 5), percents, "shares of what was granted at which a client's low balance is alerted"
    )
    webhook_timeout_seconds: float = _setting(5.0, seconds(0.1, 60), "bound on one call of a client's webhook")
    webhook_attempts_max: int = _setting(8, whole(1, 20), "calls of a webhook before its alert is given up")
    top_up_hook: str = _setting(
        "", reference, "module:function that is asked to buy credits for a client; none: nobody"
    )
    top_up_timeout_seconds: float = _setting(
        30.0, seconds(1, 3_600), "how long a call of that hook may take before its request is tried again"
    )
    top_up_pending_seconds: float = _setting(
        86_400.0, seconds(60, 31 * 86_400), "how long a request may stay unanswered before it lapses"
    )
    unavailable_retry_seconds: float = _setting(5.0, seconds(0.1, 3_600), "how long such a task waits each time")


FIELDS: Final = {field.name: field for field in dataclasses.fields(Settings)}


def load(configuration: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Return the settings of a Celery configuration under an environment, which wins.

    Raises `InvalidValue` for an unknown `billing_*` key and for a value that breaks its rule.
    """
    given: dict[str, object] = {}
    for key, value in configuration.items():
        if not key.startswith("billing_"):
            continue
        name = key.removeprefix("billing_")
        if name not in FIELDS:
            raise _unknown(key, value)
        given[name] = FIELDS[name].metadata["parse"](key, value)
    for name, field in FIELDS.items():
        variable = f"BILLING_{name.upper()}"
        if variable in environment:
            given[name] = field.metadata["parse"](variable, environment[variable])
    settings = Settings(**given)  # type: ignore[arg-type]
    if "_live_" in settings.stripe_api_key[:8] and not settings.stripe_live:
        rule = "is a live key: set billing_stripe_live to true to let increments cost your clients money"
        raise InvalidValue("billing_stripe_api_key", settings.stripe_api_key[:8] + "…", rule)
    _check_keys(settings)
    return settings


def _check_keys(settings: Settings) -> None:
    """Refuse a consumer that would refuse what its own process publishes: markers, and what the relay takes."""
    if settings.verifying_keys and settings.signing_key not in settings.verifying_keys:
        own = "…" if settings.signing_key is None else f"{settings.signing_key.sender}:…"
        rule = "must be set where billing_verifying_keys is, and be one of them: a consumer's process publishes, too"
        raise InvalidValue("billing_signing_key", own, rule)


def _unknown(key: str, value: object) -> InvalidValue:
    """Return the refusal of an unknown key. Its value may be a secret, unless it is near a setting that has none."""
    close = difflib.get_close_matches(key.removeprefix("billing_"), FIELDS, n=1)
    plain = isinstance(value, str) and bool(close) and FIELDS[close[0]].repr
    shown = value if plain or isinstance(value, int | float | None) else "…"
    return InvalidValue(
        key, shown, "is not a billing setting" + (f"; did you mean billing_{close[0]}?" if close else "")
    )


def without_password(url: str) -> str:
    """Return a URL that may be shown: user and password are left out."""
    many = shown_nodes(url)
    if many is not None:
        return many
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    if "@" in parts.path:
        # An unescaped / in a password: user and password are read as host and port, the rest of it as the path.
        return f"{parts.scheme}://…"
    return f"{parts.scheme}://{host}{port}{parts.path}"
