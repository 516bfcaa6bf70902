"""What a task of this fleet can fail with. Each has plain arguments, so that it comes out of a JSON result whole.

A task that fails with one of these is charged nothing. None is retried: the same call would fail again, or the caller
knows better than the fleet when to ask again.
"""

from __future__ import annotations


class TaskError(Exception):
    """The root of what this fleet's tasks raise on purpose."""


class InvalidArgument(TaskError):
    """An argument breaks a rule. The text is `<name>: <value>: <rule>`."""

    def __init__(self, name: str, value: str, rule: str) -> None:
        super().__init__(name, value, rule)
        self.name, self.value, self.rule = name, value, rule

    def __str__(self) -> str:
        return f"{self.name}: {self.value!r}: {self.rule}"


class PageUnavailable(TaskError):
    """A page could not be fetched whole: no answer in time, no success, too large, or not what was asked for."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"


class StoreUnavailable(TaskError):
    """The directory of captured pages cannot be used."""

    def __init__(self, directory: str, reason: str) -> None:
        super().__init__(directory, reason)
        self.directory, self.reason = directory, reason

    def __str__(self) -> str:
        return f"WORKER_TASKS_STORE: {self.directory}: {self.reason}"
