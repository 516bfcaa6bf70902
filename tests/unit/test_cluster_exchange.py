"""What a cluster's nodes are sent, and what becomes of a connection whose answers nobody read (L9, L10)."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from redis.exceptions import MovedError, ResponseError

from billing.connections.cluster_exchange import Command, ask, follow, keys_of


def test_a_command_without_a_key_goes_where_the_one_before_it_went() -> None:
    get, info, call = ("GET", "a"), ("INFO", "server"), ("FCALL", "f", 2, "b", "c", 1)
    assert keys_of([get, info, call, ("TIME",)]) == ["a", "a", "b", "b"]
    assert keys_of([("TIME",), call, get]) == ["b", "b", "a"]
    with pytest.raises(ValueError, match="needs a command with a key"):
        keys_of([("TIME",)])


class Node:
    """A node, its pool and its one connection: it answers each command by a list."""

    def __init__(self, name: str, answers: list[Any]) -> None:
        self.name = name
        self.answers = answers
        self.sent: list[Command] = []
        self.connection_pool = self
        self.disconnected = 0
        self.released = 0

    def get_connection(self) -> Node:
        """Return the connection."""
        return self

    def pack_commands(self, commands: list[Command]) -> list[Command]:
        """Keep them as they are."""
        return commands

    def send_packed_command(self, commands: list[Command]) -> None:
        """Take a batch."""
        self.sent += commands

    def parse_response(self, _: Node, __: str) -> Any:
        """Give the next answer."""
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def disconnect(self) -> None:
        """Count."""
        self.disconnected += 1

    def release(self, _: Node) -> None:
        """Count."""
        self.released += 1


class Topology:
    """Knows which node has a key; follows a moved one as redis-py does."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self.followed: list[Command] = []
        self.answers: list[Any] = []

    def get_node_from_key(self, key: str) -> Node:
        """Return the node of a key."""
        return self.nodes[key]

    def get_redis_connection(self, node: Node) -> Node:
        """Return the node's client."""
        return node

    def keyslot(self, key: str) -> int:
        """Return the slot of a key of one letter."""
        return ord(key)

    def execute_command(self, *command: Any, **_: Any) -> Any:
        """Follow."""
        self.followed.append(command)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_node_that_is_lost_half_way_hides_no_answer_of_another_and_its_connection_is_closed() -> None:
    lost = redis.TimeoutError("Timeout reading from socket")
    one, two = Node("one", [b"1", lost]), Node("two", [ResponseError("WRONGTYPE"), b"4"])
    commands: list[Command] = [("GET", "a"), ("GET", "b"), ("GET", "a"), ("GET", "b"), ("GET", "a")]
    answers: list[Any] = [None] * 5
    ask(Topology({"a": one, "b": two}), commands, keys_of(commands), range(5), answers)
    assert (answers[0], answers[2], answers[4]) == (b"1", lost, lost)
    assert (str(answers[1]), answers[3]) == ("WRONGTYPE", b"4")
    assert (one.disconnected > 0, one.released) == (True, 1)
    assert (two.disconnected, two.released) == (0, 1)


def test_what_interrupts_the_reading_leaves_no_answer_for_the_next_who_uses_the_connection() -> None:
    """Given a time limit that goes off between two nodes, then neither connection keeps an answer (L1)."""
    one, two = Node("one", [b"1", KeyboardInterrupt()]), Node("two", [b"2"])
    commands: list[Command] = [("GET", "a"), ("GET", "a"), ("GET", "b")]
    with pytest.raises(KeyboardInterrupt):
        ask(Topology({"a": one, "b": two}), commands, keys_of(commands), range(3), [None] * 3)
    assert (one.disconnected, one.released, two.disconnected, two.released) == (1, 1, 1, 1)


def test_commands_of_a_moved_slot_are_followed_and_the_first_that_is_lost_ends_it() -> None:
    """Given many redirections to a node that is dead, then it is waited for once, and the others are lost with it."""
    moved = MovedError("97 127.0.0.1:7000")
    topology = Topology({"a": Node("one", [])})
    topology.answers = [b"1", {"run_id": "new"}, redis.ConnectionError("refused")]
    commands: list[Command] = [("GET", "a"), ("INFO", "server"), ("GET", "a"), ("GET", "a"), ("GET", "b")]
    answers: list[Any] = [moved, {"run_id": "old"}, moved, moved, b"5"]
    follow(topology, commands, keys_of(commands), range(5), answers)
    assert answers[:2] == [b"1", {"run_id": "new"}], "a question to the server follows the key that it was asked with"
    assert [type(answer) for answer in answers[2:4]] == [redis.ConnectionError] * 2
    assert answers[4] == b"5"
    assert topology.followed == commands[:3]
