"""A Redis Cluster as the scripts see it: commands go to the nodes of their keys, in one round trip for each node.

redis-py's own cluster client knows nodes and slots, holds the pools, and follows MOVED and ASK. What it is not asked
for: its `execute_command` asks a server for the keys of each FCALL, with all of its arguments, and its pipeline sends
what a dead node left unanswered one by one, each with a wait of its own. Here one dead node costs one wait a try,
however many commands it was sent, and the commands of the other nodes have been carried out by then (L9, L10).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    MaxConnectionsError,
    RedisClusterException,
)

from billing.connections.cluster_exchange import KEYLESS, Command, ask, follow, keys_of, told

#: What another try, after a look at who is there now, may mend.
_LOST: Final = (redis.ConnectionError, redis.TimeoutError, ClusterDownError)
#: What it does not.
_REFUSED: Final = (AuthenticationError, MaxConnectionsError)


class ClusterTopology(redis.RedisCluster):
    """redis-py's cluster client, which here reads the key of an FCALL itself: all keys of a call have one slot."""

    def determine_slot(self, *args: Any) -> Any:
        """Return the slot of a command."""
        parent: Any = super()
        return parent.keyslot(args[3]) if args[0] == "FCALL" else parent.determine_slot(*args)


class Cluster:
    """A client that connects at its first command. Threads may share it; processes may not."""

    def __init__(
        self, make: Callable[[], ClusterTopology], *, url: str, retries: int, retry_wait_seconds: float
    ) -> None:
        self.url = url
        self._make = make
        self._retries = retries
        self._retry_wait_seconds = retry_wait_seconds
        self._lock = threading.Lock()
        self._made: ClusterTopology | None = None

    def execute_command(self, *command: str | bytes | int) -> Any:
        """Send one command to the node of its key; one without a key to every primary (the first answer counts)."""
        if command[0] in KEYLESS:
            return self._everywhere(command)
        (answer,) = self.send([command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pipeline(self, *, transaction: bool) -> Batch:
        """Return an empty batch. There are no transactions over nodes."""
        if transaction:
            message = "a batch over nodes is no transaction"
            raise TypeError(message)
        return Batch(self)

    def primaries(self) -> list[redis.Redis]:
        """Return a client for each node that takes writes now."""
        topology: Any = self._topology()
        return [topology.get_redis_connection(node) for node in topology.get_primaries()]

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers in order, errors among them."""
        keys = keys_of(commands)
        answers: list[Any] = [None] * len(commands)
        waiting = list(range(len(commands)))
        for turn in range(self._retries + 1):
            if turn:
                time.sleep(self._retry_wait_seconds)
                try:
                    self._look_again()
                except redis.RedisError:
                    # What was lost stays so; what other nodes have answered counts all the same (L10).
                    break
            topology = self._topology()
            ask(topology, commands, keys, waiting, answers)
            follow(topology, commands, keys, waiting, answers)
            waiting = [index for index in waiting if isinstance(answers[index], _LOST)]
            waiting = [index for index in waiting if not isinstance(answers[index], _REFUSED)]
            if not waiting:
                break
        return answers

    def node_of(self, key: str) -> str | None:
        """Return the name of the node that has a key, as far as it is known: nobody is asked, nor waited for."""
        made: Any = self._made
        if made is None:
            return None
        try:
            return str(made.get_node_from_key(key).name)
        except RedisClusterException:  # nobody has its slot
            return None

    def close(self) -> None:
        """Close what is open; the next command connects again."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def _topology(self) -> ClusterTopology:
        made = self._made
        if made is not None:
            return made
        with self._lock:
            if self._made is None:
                try:
                    self._made = self._make()
                except (RedisClusterException, redis.RedisError) as error:
                    raise told(error) from error
            return self._made

    def _look_again(self) -> None:
        """Ask the nodes who has which slot. If none answers, the next look begins at the nodes of the settings."""
        try:
            self._topology().nodes_manager.initialize()
        except RedisClusterException as error:
            self.close()
            raise told(error) from error

    def _everywhere(self, command: Command) -> Any:
        """Run a command on every primary that takes it. What is missing on one that does not is missed later (L10)."""
        answers: list[Any] = []
        server: Any
        for server in self.primaries():
            try:
                answers.append(server.execute_command(*command))
            except redis.RedisError as error:
                answers.append(error)
        given = [answer for answer in answers if not isinstance(answer, Exception)]
        if not given:
            raise answers[0]
        return given[0]


class Batch:
    """Commands that are sent together."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._commands: list[Command] = []

    def execute_command(self, *command: str | bytes | int) -> None:
        """Add a command."""
        self._commands.append(command)

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        """Send them, and return the answers in order."""
        answers = self._cluster.send(self._commands)
        for answer in answers:
            if raise_on_error and isinstance(answer, Exception):
                raise answer
        return answers
