"""What is measured of buckets: runs as a worker reserves and settles them, and the commands that these would send."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, cast

import msgspec
import redis

from billing.core.ids import new_settlement_id, new_token, run_id
from billing.credits.buckets import Buckets
from billing.credits.scripts import Command
from billing.credits.values import GrantOutcome, Hold, Settlement
from billing.events.usage_event import EventHead, UsageLine, encode_fragment, encode_head

CLIENT: Final = "benchmark"
PRICE: Final = 3
#: Commands that one round trip carries, where what is sent is not what is timed.
PIPELINE: Final = 500

Work = tuple[Hold, Settlement]


def buckets_on(client: redis.Redis, *, grants: int) -> Buckets:
    """Empty the server and give it one client with so many large grants."""
    client.flushall()
    buckets = buckets_of(client)
    for shard in range(buckets.shards):
        buckets.verify(shard, expected=None)
    buckets.open_client(CLIENT)
    for number in range(grants):
        if buckets.grant(CLIENT, number + 1, 10**9) is not GrantOutcome.GRANTED:
            message = "the benchmark's client has no credits"
            raise RuntimeError(message)
    return buckets


def buckets_of(client: redis.Redis) -> Buckets:
    """Return buckets that send what they are asked by a client."""
    return Buckets(
        client, shards=64, lease_seconds=60.0, settled_retention_seconds=3_600.0, outbox_entries_max=1_000_000
    )


def some_work(count: int) -> list[Work]:
    """Return runs as a worker would reserve and settle them."""
    return [one_run(str(uuid.uuid4())) for _ in range(count)]


def one_run(task_id: str) -> Work:
    """Return what billing makes of a task before it asks Redis: ids, tokens, and what the event will say."""
    now_ms = int(time.time() * 1_000)
    line = UsageLine(sku="page-capture", quantity=1, credits=PRICE)
    fragment = encode_fragment(line)
    run = run_id(CLIENT, task_id, nesting=0, nonce="", at_milliseconds=now_ms)
    head = encode_head(
        EventHead(
            run_id=run,
            client_id=CLIENT,
            correlation_id=task_id,
            root_id=task_id,
            task="worker_tasks.capture.capture_page",
            attempt=1,
            submitted_at=now_ms,
            price_version=1,
        )
    )
    hold = Hold(
        run_id=run,
        client_id=CLIENT,
        sku=line.sku,
        credits=PRICE,
        token=new_token(),
        price_version=1,
        attempt=1,
        head=head,
        lines=b"[" + fragment + b"}]",
    )
    settlement = Settlement(
        run_id=run,
        client_id=CLIENT,
        sku=line.sku,
        settlement_id=new_settlement_id(),
        head=head,
        fragments=(fragment,),
        amounts=(PRICE,),
    )
    return hold, settlement


def some_holds(client_ids: Sequence[str]) -> list[Hold]:
    """Return what a run of each of some clients asks for."""
    return [hold for hold, _ in work_of(client_ids)]


def work_of(client_ids: Sequence[str]) -> list[Work]:
    """Return a run of each of some clients, as a worker would reserve and settle it."""
    found = []
    for client_id, (hold, settlement) in zip(client_ids, some_work(len(client_ids)), strict=True):
        own = {"client_id": client_id, "head": hold.head.replace(CLIENT.encode(), client_id.encode())}
        found.append((msgspec.structs.replace(hold, **own), msgspec.structs.replace(settlement, **own)))
    return found


class Recorder:
    """Stands where a client stands, and notes what it would send."""

    class connection_pool:  # noqa: N801 - as redis-py calls it
        """What the scripts read of a client's pool."""

        connection_kwargs: ClassVar[dict[str, object]] = {}

    def __init__(self) -> None:
        self.commands: list[Command] = []

    def execute_command(self, *command: str | bytes | int) -> bytes:
        """Note a command, and answer as a shard that recovers."""
        self.commands.append(command)
        return b"RECOVERING"


def commands_of(work: Sequence[Work]) -> tuple[list[Command], list[Command]]:
    """Return the commands that reserving and settling would send."""
    recorder = Recorder()
    buckets = buckets_of(cast("redis.Redis", recorder))
    for hold, _ in work:
        buckets.reserve(hold)
    reserves, recorder.commands = recorder.commands, []
    for _, settlement in work:
        buckets.settle(settlement)
    return reserves, recorder.commands


def send(client: redis.Redis, commands: Sequence[Command]) -> None:
    """Send commands in pipelines. Raises where one was refused."""
    for start in range(0, len(commands), PIPELINE):
        pipeline: Any = client.pipeline(transaction=False)
        for command in commands[start : start + PIPELINE]:
            pipeline.execute_command(*command)
        for answer in pipeline.execute():
            if not answer.startswith((b"OPENED", b"GRANTED", b"HELD", b"SETTLED")):
                raise RuntimeError(f"the server answered {answer!r}")


def used_memory(client: redis.Redis) -> int:
    """Return the bytes that a server has in use, by its own count."""
    memory: Any = client.info("memory")
    return int(memory["used_memory"])


def median_seconds(call: Callable[[Hold], object], holds: Sequence[Hold]) -> float:
    """Return how long a call takes, one hold after the other."""
    clock = time.perf_counter
    taken = []
    for hold in holds:
        started = clock()
        call(hold)
        taken.append(clock() - started)
    return statistics.median(taken)
