"""The doctor's look at Redis: whether each server keeps what it is told, and lets billing's user do what billing does.

A cluster is examined primary by primary. It only reads, and asks for nothing that the documented user may not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import redis

from billing.connections import redis as redis_connection
from billing.core.redis_address import read_address
from billing.core.settings import Settings, without_password
from billing.credits import permissions
from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.task.runtime import Runtime

_PART: Final = "Redis"
#: The first with functions. Valkey began at 7.2, and tells 7.2.4 as its `redis_version` for ever.
_VERSION_MIN: Final = 7
#: Of what it may use, memory and connections.
_FILLING_PERCENT, _FULL_PERCENT = 80, 95
_COVERAGE: Final = "cluster-require-full-coverage"
_PORTS: Final = {"redis": 6379, "rediss": 6379}


def examine_redis(runtime: Runtime) -> Iterator[Finding]:
    """Check every server that takes writes."""
    settings = runtime.settings
    client = redis_connection.connect(settings)
    try:
        with redis_connection.reaching(settings.redis_url):
            servers = redis_connection.servers(client)
            found = [finding for server in servers for finding in _server(settings, server, many=len(servers) > 1)]
    finally:
        client.close()
    yield from found
    yield from _apart(settings)


def _server(settings: Settings, server: Any, *, many: bool) -> Iterator[Finding]:
    try:
        information: Mapping[str, Any] = server.info("everything")
    except redis.ResponseError as error:
        yield fail(_PART, f"the user may not ask what server it is ({_reason(error)})", _permit("INFO"))
        return
    options = server.connection_pool.connection_kwargs
    here = f"{options['host']}:{options['port']} " if many else ""
    yield from (
        Finding(part=finding.part, verdict=finding.verdict, seen=here + finding.seen, advice=finding.advice)
        for finding in (
            _version(settings, information),
            *_role(information),
            _memory(information),
            *_space(information),
            *_persistence(information),
            *_replicas(settings, information),
            *_coverage(settings, server),
            *_permissions(settings, server),
        )
    )


def _version(settings: Settings, information: Mapping[str, Any]) -> Finding:
    version = str(information.get("valkey_version") or information.get("redis_version", ""))
    seen = f"version {version} at {without_password(settings.redis_url)}"
    major = int(str(information.get("redis_version", "0")).partition(".")[0] or 0)
    return ok(_PART, seen) if major >= _VERSION_MIN else fail(_PART, seen, "use Redis 7 or later, or Valkey")


def _memory(information: Mapping[str, Any]) -> Finding:
    policy = information.get("maxmemory_policy")
    if policy == "noeviction":
        return ok(_PART, "keeps what it is told (maxmemory-policy noeviction)")
    return fail(_PART, f"maxmemory-policy {policy}: it may drop balances", "set maxmemory-policy noeviction")


def _role(information: Mapping[str, Any]) -> Iterator[Finding]:
    """Refuse a replica: it takes no writes, so that every reserve is refused."""
    if information.get("role") not in {None, "master"}:
        yield fail(_PART, f"is a {information['role']}: it takes no writes", "name its primary, or its Sentinels")


def _space(information: Mapping[str, Any]) -> Iterator[Finding]:
    """Warn of what runs full: without eviction a full server refuses every write, a settle's too."""
    for name, used, most, setting in (
        ("memory", information.get("used_memory"), information.get("maxmemory"), "maxmemory"),
        ("connections", information.get("connected_clients"), information.get("maxclients"), "maxclients"),
    ):
        percent = 100 * int(used or 0) // int(most) if most else 0
        if percent >= _FULL_PERCENT:
            yield fail(_PART, f"{percent} % of its {name} are in use: soon it refuses writes", f"raise {setting}")
        elif percent >= _FILLING_PERCENT:
            yield warn(_PART, f"{percent} % of its {name} are in use", f"raise {setting}")


def _persistence(information: Mapping[str, Any]) -> Iterator[Finding]:
    if not information.get("aof_enabled"):
        seen = "append-only file is off: a restart empties it, and every shard is rebuilt"
        yield warn(_PART, seen, "set appendonly yes")
    elif information.get("aof_last_write_status") != "ok":
        yield fail(_PART, "append-only file cannot be written", "see whether its disk is full")
    else:
        yield ok(_PART, "append-only file is on")


def _replicas(settings: Settings, information: Mapping[str, Any]) -> Iterator[Finding]:
    """Without `min-replicas-to-write` a primary that is cut off goes on admitting beside the one that replaced it."""
    replicas = int(information.get("connected_slaves", 0))
    if replicas and "min_slaves_good_slaves" not in information:
        yield warn(_PART, "has replicas and may be split from them", "set min-replicas-to-write 1")
    elif replicas and not int(information["min_slaves_good_slaves"]):
        yield fail(_PART, "takes no writes: no replica of it is in step", "see why its replicas lag")
    elif replicas:
        yield ok(_PART, f"{replicas} replicas, and takes no writes without one")
    elif read_address("billing_redis_url", settings.redis_url).kind != "server":
        yield warn(_PART, "has no replica: nobody takes over when it dies", "start a replica of it")


def _coverage(settings: Settings, server: Any) -> Iterator[Finding]:
    """Where the whole cluster stops with one slot, a lost node stops every client (L10)."""
    if read_address("billing_redis_url", settings.redis_url).kind != "cluster":
        return
    try:
        user = server.execute_command("ACL", "WHOAMI")
        if server.execute_command("ACL", "DRYRUN", user, "CONFIG", "GET", _COVERAGE) not in {b"OK", "OK"}:
            # The documented user may not: CONFIG shows passwords too.
            return
        found: Mapping[str, str] = server.config_get(_COVERAGE)
    except redis.ResponseError:  # hosted servers have no CONFIG
        return
    if found.get(_COVERAGE) == "no":
        yield ok(_PART, "a lost node stops its own slots alone (cluster-require-full-coverage no)")
    else:
        yield warn(_PART, "one lost node stops the slots of all others", f"set {_COVERAGE} no")


def _permissions(settings: Settings, server: Any) -> Iterator[Finding]:
    """Say what billing's user lacks. It asks the server, which runs nothing."""
    try:
        user = server.execute_command("ACL", "WHOAMI")
        lacking = [name for name in _needed(settings) if not _may(server, user, name)]
    except redis.ResponseError as error:
        yield warn(_PART, f"cannot see what its user may do ({_reason(error)})", _permit(*permissions.ON_LOOKING))
        return
    name = user.decode() if isinstance(user, bytes) else str(user)
    if lacking:
        yield fail(_PART, f"user {name!r} may not run {', '.join(lacking)}", _permit(*lacking))
    else:
        yield ok(_PART, f"user {name!r} may do what billing does")


def _needed(settings: Settings) -> tuple[str, ...]:
    needed = (*permissions.ON_KEYS, *permissions.ON_SERVERS)
    cluster = read_address("billing_redis_url", settings.redis_url).kind == "cluster"
    return (*needed, *permissions.ON_CLUSTERS) if cluster else needed


def _may(server: Any, user: object, name: str) -> bool:
    key = permissions.KEYS.removeprefix("~").replace("*", "0}:doctor")
    command, _, verb = name.partition("|")
    shape: tuple[object, ...] = _SHAPES.get(name) or ((key,) if name in permissions.ON_KEYS else ())
    shape = tuple(key if part is _KEY else part for part in shape)
    answer = server.execute_command("ACL", "DRYRUN", user, command, *([verb] if verb else []), *shape)
    return answer in {b"OK", "OK"}


def _apart(settings: Settings) -> Iterator[Finding]:
    """Billing's Redis is a server of its own: a result backend that fills it would stop the money."""
    own = _places(settings.redis_url)
    shared = [name for name in ("broker_url", "result_url") if own & _places(getattr(settings, name))]
    for name in shared:
        yield warn(_PART, f"is also billing_{name}", "give billing a Redis of its own")
    if not shared:
        yield ok(_PART, "is apart from broker and results")


def _places(url: str) -> frozenset[tuple[str, int]]:
    """Return the hosts and ports, or the socket, that a URL of Redis names."""
    address = read_address("billing_redis_url", url)
    if address.kind != "server":
        return frozenset(address.nodes)
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return frozenset({(parts.path, 0)})
    if parts.scheme not in _PORTS:
        return frozenset()
    return frozenset({(parts.hostname or "localhost", parts.port or _PORTS[parts.scheme])})


def _permit(*names: str) -> str:
    return f"ACL SETUSER … {' '.join(f'+{name.lower()}' for name in names)}; docs/redis.md has the whole line"


def _reason(error: redis.ResponseError) -> str:
    return " ".join(str(error).split())[:_REASON_LENGTH_MAX]


_REASON_LENGTH_MAX: Final = 120
_KEY: Final = object()
#: Arguments that each command needs before a server looks at permissions; the others take one key.
_SHAPES: Final[dict[str, tuple[object, ...]]] = {
    "FCALL": ("billing", 1, _KEY),
    "GETRANGE": (_KEY, 0, 0),
    "HGET": (_KEY, "f"),
    "HINCRBY": (_KEY, "f", 0),
    "HMGET": (_KEY, "f"),
    "HSET": (_KEY, "f", "v"),
    "MSET": (_KEY, "v"),
    "SET": (_KEY, "v"),
    "XADD": (_KEY, "*", "f", "v"),
    "XDEL": (_KEY, "0-1"),
    "XRANGE": (_KEY, "-", "+"),
    "ZADD": (_KEY, 0, "m"),
    "ZRANGE": (_KEY, 0, 0),
    "ZRANGEBYSCORE": (_KEY, 0, 0),
    "ZREM": (_KEY, "m"),
    "ZSCORE": (_KEY, "m"),
    "FUNCTION|LOAD": ("#!lua",),
}
