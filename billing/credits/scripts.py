"""Loads the Lua files as one function library and calls its verbs, loading it where a server does not have it.

Connection errors, and a server that refuses writes for now, become `Unreachable`; a server that will not do what it is
asked, `Fatal`. A call may be sent twice (a lost answer): every verb is idempotent. The library's name is made of its
text, so that old and new workers, each with their own, work side by side on one server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from typing import Any, Final, NoReturn

import redis
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from billing.connections.cluster import Cluster
from billing.connections.redis import Client, reaching, shown
from billing.core.errors import Fatal, Refusing

#: Each verb, and whether it may still run when the server's memory is full: what finishes or frees work may.
VERBS: Final = {
    "adjust": False,
    "assert_hold": True,
    "audit": True,
    "balance": True,
    "count": False,
    "expire": True,
    "grant": False,
    "lapse": True,
    "mark_logged": True,
    "open": False,
    "overdue": True,
    "post": True,
    "rebuild": False,
    "release": True,
    "renew": True,
    "reserve": False,
    "set_terms": True,
    "settle": True,
    "stage": False,
    "verify": True,
    "void": True,
}

#: What every verb may use, in this order.
SHARED: Final = ("prelude", "bucket", "marks")

#: The verbs that answer with a list, also where a bucket is corrupt.
_LISTS: Final = frozenset({"audit", "balance", "lapse", "overdue"})

#: A command as redis-py takes it.
Command = tuple[str | bytes | int, ...]

#: About how many bytes of commands one round trip carries; a number counts for none.
_SLICE_BYTES_MAX: Final = 1 << 20

#: How a server answers that is there but takes no writes for now: redis-py gives some of them a class, not all.
_REFUSING: Final = (OutOfMemoryError, ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError)
_REFUSING_CODES: Final = ("OOM", "MISCONF", "NOREPLICAS", "BUSY ")
_REASON_LENGTH_MAX: Final = 200


def library() -> tuple[str, str]:
    """Return the name and the text of the function library."""
    folder = resources.files(__package__) / "lua"
    verbs = {verb: (folder / f"{verb}.lua").read_text("utf-8") for verb in VERBS}
    shared = [(folder / f"{name}.lua").read_text("utf-8") for name in SHARED]
    digest = hashlib.sha256("\0".join([*shared, *verbs.values()]).encode()).hexdigest()
    name = f"billing_{digest[:8]}"
    parts = [f"#!lua name={name}\n", *shared]
    for verb, text in verbs.items():
        flags = "'allow-oom'" if VERBS[verb] else ""
        parts.append(f"local function {verb}(KEYS, ARGV)\nbegin()\n{text}end\n")
        corrupt = "{'CORRUPT'}" if verb in _LISTS else "'CORRUPT'"
        callback = f"guarded({verb}, {corrupt})"
        parts.append(
            f"redis.register_function{{function_name='{name}_{verb}', callback={callback}, flags={{{flags}}}}}\n"
        )
    return name, "".join(parts)


class Scripts:
    """The verbs on one Redis client, which answers in bytes."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._execute: Callable[..., Any] = client.execute_command
        name, self._text = library()
        self.functions = {verb: f"{name}_{verb}" for verb in VERBS}
        self._url = shown(client)

    def run(self, command: Command) -> Any:
        """Send one command in one round trip; two more if the server does not have the library yet."""
        try:
            return self._execute(*command)
        except redis.RedisError as error:
            if not _unknown_function(error):
                self._refuse(error)
        return self.run_all([command])[0]

    def run_all(self, commands: Sequence[Command], *, any_type: bool = False) -> list[Any]:
        """Send commands in one round trip, answers in order. Raises the first failure once all others are done.

        With `any_type` the answer of a key that holds something of another type is None.
        """
        answers = self.run_each(commands, any_type=any_type)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def run_each(self, commands: Sequence[Command], *, any_type: bool = False) -> list[Any]:
        """Send commands in one round trip, answers in order, in the place of each that failed its error (L10).

        Those that a server did not know are sent again, once it has been given the library.
        """
        answers = self._send(commands)
        unknown = [index for index, answer in enumerate(answers) if _unknown_function(answer)]
        if unknown:
            again = self._send_anew([commands[index] for index in unknown])
            for index, answer in zip(unknown, again, strict=True):
                answers[index] = answer
        if any_type:
            answers = [None if _of_another_type(answer) else answer for answer in answers]
        return [self._told(answer) if isinstance(answer, Exception) else answer for answer in answers]

    def node_of(self, key: str) -> str:
        """Return the name of the server that has a key, without asking one: all have one name but on a cluster."""
        if not isinstance(self.client, Cluster):
            return ""
        # Where it is not known, the shard stands for itself.
        return self.client.node_of(key) or key

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        pipeline: Any = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        except redis.RedisError as error:
            return [error] * len(commands)
        return answers

    def _send_anew(self, commands: Sequence[Command]) -> list[Any]:
        try:
            self._execute("FUNCTION", "LOAD", "REPLACE", self._text)
        except redis.RedisError as error:
            return [error] * len(commands)
        return self._send(commands)

    def _told(self, error: Exception) -> Exception:
        """Return an error of redis-py as ours."""
        try:
            if isinstance(error, redis.RedisError):
                self._refuse(error)
        except Exception as told:  # noqa: BLE001 - raised by whoever needs the answer
            return told
        return error

    def _refuse(self, error: redis.RedisError) -> NoReturn:
        text = " ".join(str(error).split())
        if isinstance(error, _REFUSING) or text.startswith(_REFUSING_CODES):
            reason = f"{type(error).__name__}: {text}"
            message = f"billing_redis_url: {self._url!r}: the server takes no writes for now ({reason})"
            raise Refusing(message) from error
        if isinstance(error, AuthenticationError):
            # Not for ever: a password may be about to be changed on the server too.
            raise Refusing(f"billing_redis_url: {self._url!r}: the server refuses the user or password") from error
        if _unknown_function(error):
            # Loaded a moment ago: on a node that was away then, or somebody has flushed them since.
            raise Refusing(f"billing_redis_url: {self._url!r}: the server lost billing's functions") from error
        if isinstance(error, ResponseError):
            # A server repeats the arguments of a command that it does not know: keys and drafts, to no use.
            reason = text.partition(", with args")[0][:_REASON_LENGTH_MAX]
            raise Fatal(f"billing_redis_url: {self._url!r}: {_wrong(text)} ({reason})") from error
        with reaching(self._url):
            raise error
        raise AssertionError


def slices(commands: Iterable[Command], count: int) -> Iterator[list[Command]]:
    """Yield commands in parts that one round trip may carry (L9); one that is too long for any goes alone."""
    part: list[Command] = []
    length = 0
    for command in commands:
        own = sum([len(word) for word in command if not isinstance(word, int)])
        if part and (len(part) == count or length + own > _SLICE_BYTES_MAX):
            yield part
            part, length = [], 0
        part.append(command)
        length += own
    if part:
        yield part


def _wrong(text: str) -> str:
    """Say what is wrong with a server, or with what it holds, that refuses a command."""
    lower = text.lower()
    if "noperm" in lower or "no permissions" in lower or "the user executing the script" in lower:
        return "the user may not run what billing needs: FCALL, FUNCTION, and the commands and keys within"
    if "unknown command" in lower:
        return "the server lacks a command that billing needs: it must be Redis 7 or Valkey, without renamed commands"
    if "wrongtype" in lower or "wrong kind of value" in lower:
        return "a key of billing holds something that billing did not write"
    return "the server refuses a command"


def _of_another_type(answer: object) -> bool:
    return isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE")


def _unknown_function(answer: object) -> bool:
    return isinstance(answer, ResponseError) and "Function not found" in str(answer)
