"""One exchange with the nodes of a cluster: what each is sent, in one write a node, and where a moved slot is found.

Answers come back in the order of the commands, errors among them, so that what one node refuses or leaves unanswered
hides no answer of another. A connection whose answers were not all read is closed, never used again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import redis
from redis.exceptions import AskError, AuthenticationError, ClusterError, RedisClusterException, ResponseError

#: A command as redis-py takes it.
Command = tuple[str | bytes | int, ...]

#: Commands that ask a server, and name no key. In a batch each goes where the command before it went.
KEYLESS: Final = frozenset({"ACL", "CONFIG", "FUNCTION", "INFO", "PING", "TIME"})


def keys_of(commands: Sequence[Command]) -> list[Any]:
    """Return for each command the key that says where it goes: its own, or that of the nearest one before or after."""
    keys: list[Any] = [None if c[0] in KEYLESS else c[3 if c[0] == "FCALL" else 1] for c in commands]
    named = [key for key in keys if key is not None]
    if not named:
        message = "a batch for a cluster needs a command with a key"
        raise ValueError(message)
    last = named[0]
    for index, key in enumerate(keys):
        last = keys[index] = last if key is None else key
    return keys


def ask(
    topology: Any,
    commands: Sequence[Command],
    keys: Sequence[Any],
    waiting: Iterable[int],
    answers: list[Any],
) -> None:
    """Send to all nodes, then read from all: the nodes work at the same time."""
    parts: dict[str, _Part] = {}
    for index in waiting:
        try:
            node = topology.get_node_from_key(keys[index])
        except RedisClusterException as error:
            answers[index] = told(error)
        else:
            if node.name not in parts:
                parts[node.name] = _Part(topology.get_redis_connection(node))
            parts[node.name].indices.append(index)
    try:
        for part in parts.values():
            part.write(commands, answers)
        for part in parts.values():
            part.read(commands, answers)
    finally:
        for part in parts.values():
            part.end()


class _Part:
    """What one node is sent on one connection."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._connection: Any = None
        self._unread = 0
        self.indices: list[int] = []

    def write(self, commands: Sequence[Command], answers: list[Any]) -> None:
        try:
            self._connection = self._server.connection_pool.get_connection()
            self._unread = len(self.indices)
            packed = self._connection.pack_commands([commands[index] for index in self.indices])
            self._connection.send_packed_command(packed)
        except redis.RedisError as error:
            self._give_up(error, answers)

    def read(self, commands: Sequence[Command], answers: list[Any]) -> None:
        while self._unread:
            index = self.indices[-self._unread]
            try:
                answers[index] = self._server.parse_response(self._connection, str(commands[index][0]))
            except ResponseError as error:
                answers[index] = error
            except redis.RedisError as error:
                self._give_up(error, answers)
                break
            self._unread -= 1

    def end(self) -> None:
        """Put the connection back. One with answers that nobody read would give them to the next who uses it."""
        if self._connection is not None:
            if self._unread:
                self._connection.disconnect()
            self._server.connection_pool.release(self._connection)

    def _give_up(self, error: redis.RedisError, answers: list[Any]) -> None:
        for index in self.indices[len(self.indices) - self._unread :] if self._unread else self.indices:
            answers[index] = error
        if self._connection is not None:
            self._connection.disconnect()
        self._unread = 0


def follow(
    topology: Any,
    commands: Sequence[Command],
    keys: Sequence[Any],
    waiting: Iterable[int],
    answers: list[Any],
) -> None:
    """Send commands to where a node said that their slots are now: redis-py does that, and remembers it.

    A command without a key follows the one that it was sent with. The first that is lost ends it: each may wait.
    """
    moved = {index for index in waiting if isinstance(answers[index], AskError)}  # MOVED is one of them
    slots = {topology.keyslot(keys[index]) for index in moved}
    again = [index for index, key in enumerate(keys) if topology.keyslot(key) in slots] if slots else []
    lost: Exception | None = None
    for index in again:
        if index not in moved and commands[index][0] not in KEYLESS:
            continue
        try:
            if lost is not None:
                raise lost
            keyless = commands[index][0] in KEYLESS
            where = {"target_nodes": topology.get_node_from_key(keys[index])} if keyless else {}
            answers[index] = topology.execute_command(*commands[index], **where)
        except ResponseError as error:
            answers[index] = error
        except (redis.RedisError, RedisClusterException) as error:
            answers[index] = lost = told(error)


def told(error: Exception) -> redis.RedisError:
    """Return an error of the cluster as a whole as what it is to a caller: nobody who answers."""
    cause = error.__cause__
    if isinstance(cause, AuthenticationError):
        return cause
    whole = isinstance(error, RedisClusterException | ClusterError) and not isinstance(error, ResponseError)
    return redis.ConnectionError(str(error)) if whole or not isinstance(error, redis.RedisError) else error
