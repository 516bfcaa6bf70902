"""The doctor's look at clocks: leases end by Redis' clock, events are dated by it, months end by PostgreSQL's.

Of this machine's it wants to know whether it agrees with both: it tells when a run was submitted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import text

from billing.connections import postgres
from billing.connections import redis as redis_connection
from billing.core.clock import behind
from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.task.runtime import Runtime

_PART: Final = "clocks"
_ADVICE: Final = "set the clocks by NTP, on this machine and on the servers"
#: What results, leases and price changes may differ by without being misread.
_DIFFERENCE: Final = timedelta(seconds=1)
#: From here on usage may be dated into another billing period than the one it happened in.
_DIFFERENCE_MAX: Final = timedelta(minutes=1)


def examine_clocks(runtime: Runtime) -> Iterator[Finding]:
    """Compare the clocks of Redis and PostgreSQL with this machine's."""
    settings = runtime.settings
    client = redis_connection.connect(settings)
    try:
        with redis_connection.reaching(settings.redis_url):
            servers = redis_connection.servers(client)
            found = [
                _compared(runtime, _name(server, servers), functools.partial(_time_of, server)) for server in servers
            ]
    finally:
        client.close()
    yield from found
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        yield _compared(
            runtime, "PostgreSQL", lambda: connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        )


def _compared(runtime: Runtime, name: str, ask: Callable[[], datetime]) -> Finding:
    ask()  # the first answer waits for a connection
    difference = abs(behind(runtime.clock, ask))
    seen = f"{name} and this machine differ by {difference.total_seconds():.1f} s"
    if difference >= _DIFFERENCE_MAX:
        return fail(_PART, seen, _ADVICE)
    return warn(_PART, seen, _ADVICE) if difference >= _DIFFERENCE else ok(_PART, seen)


def _time_of(server: Any) -> datetime:
    seconds, microseconds = server.time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def _name(server: Any, servers: list[Any]) -> str:
    options = server.connection_pool.connection_kwargs
    return f"Redis at {options['host']}:{options['port']}" if len(servers) > 1 else "Redis"
