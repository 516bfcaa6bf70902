"""Loads the Lua files and calls them by their hash, reloading where a server does not know them (NOSCRIPT).

Connection errors become `Unreachable`. A call may be sent twice (a lost answer): every script is idempotent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Final

import redis
from redis.exceptions import NoScriptError

from billing.connections.redis import reaching

VERBS: Final = (
    "assert_hold",
    "balance",
    "expire",
    "grant",
    "open",
    "overdue",
    "rebuild",
    "release",
    "renew",
    "reserve",
    "settle",
    "stage",
    "verify",
)

#: A command as redis-py takes it.
Command = tuple[str | bytes | int, ...]


def text_of(verb: str) -> str:
    """Return a script as it is sent: the shared functions, then the verb."""
    folder = resources.files(__package__) / "lua"
    return (folder / "prelude.lua").read_text("utf-8") + (folder / f"{verb}.lua").read_text("utf-8")


class Scripts:
    """The scripts on one Redis client, which answers in bytes."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._execute: Callable[..., Any] = client.execute_command
        self._texts = {verb: text_of(verb) for verb in VERBS}
        self.shas = {verb: hashlib.sha1(text.encode()).hexdigest() for verb, text in self._texts.items()}  # noqa: S324
        self._verbs = {sha: verb for verb, sha in self.shas.items()}
        options = client.connection_pool.connection_kwargs
        self._url = f"redis://{options.get('host', options.get('path', ''))}:{options.get('port', '')}"

    def run(self, command: Command) -> Any:
        """Send one command, one round trip; load its script if the server does not know it."""
        try:
            try:
                return self._execute(*command)
            except NoScriptError:
                self._load(command)
                return self._execute(*command)
        except redis.RedisError:
            with reaching(self._url):
                raise

    def run_all(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one round trip, answers in order; those whose script was unknown are sent again."""
        try:
            answers = self._send(commands)
            unknown = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                for command in {commands[index][1]: commands[index] for index in unknown}.values():
                    self._load(command)
                again = self._send([commands[index] for index in unknown])
                for index, answer in zip(unknown, again, strict=True):
                    answers[index] = answer
            for answer in answers:
                if isinstance(answer, redis.RedisError):
                    raise answer
        except redis.RedisError:
            with reaching(self._url):
                raise
        return answers

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        pipeline: Any = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers

    def _load(self, command: Command) -> None:
        self.client.script_load(self._texts[self._verbs[str(command[1])]])
