"""What billing asks of a Redis user: the commands of its functions and of its own calls, on its own keys, and no more.

`ACL SETUSER` takes `rules` as they stand. Commands inside a function need the user's permission like any others.
"""

from __future__ import annotations

from typing import Final

#: Every key of billing begins so; a client's name or a run's id never makes it begin otherwise.
KEYS: Final = "~{billing:*"

#: What the functions call, and what is called outside of them on a shard's keys.
ON_KEYS: Final = (
    *("DEL", "FCALL", "GET", "GETRANGE", "HGET", "HGETALL", "HINCRBY", "HMGET", "HSET", "INCR", "MGET", "MSET", "SET"),
    *("XADD", "XDEL", "XLEN", "XRANGE", "ZADD", "ZCARD", "ZRANGE", "ZRANGEBYSCORE", "ZREM", "ZSCORE"),
)
#: What is asked of a server: its clock, which one it is, and to take the functions.
ON_SERVERS: Final = ("FUNCTION|LOAD", "INFO", "TIME")
#: What redis-py says when it connects. It also tells its own name and version, and does not mind a refusal:
#: `client|setinfo`, which Redis 7.0 does not know.
ON_CONNECTING: Final = ("CLIENT|SETNAME", "SELECT")
#: What redis-py asks a node of a cluster besides.
ON_CLUSTERS: Final = ("ASKING", "CLUSTER|SLOTS", "COMMAND")
#: With these `billing doctor` sees what else is missing.
ON_LOOKING: Final = ("ACL|DRYRUN", "ACL|WHOAMI")


def rules() -> str:
    """Return the permissions of a worker, a consumer or the doctor, for `ACL SETUSER`, without the password."""
    allowed = (*ON_KEYS, *ON_SERVERS, *ON_CONNECTING, *ON_CLUSTERS, *ON_LOOKING)
    return " ".join(("resetkeys", "resetchannels", "-@all", KEYS, *(f"+{name.lower()}" for name in allowed)))
