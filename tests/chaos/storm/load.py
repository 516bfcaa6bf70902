"""Steady load by many clients, and grants while it lasts. What was submitted, granted and answered goes into the book.

A client here is a caller with a publisher confirm: what the broker confirmed must come to an end. A submission without
a confirm is in doubt, and may have come through.
"""

from __future__ import annotations

import collections
import dataclasses
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import celery
from celery import states

from billing import admin
from billing.core.errors import BillingError
from tests.chaos.books import Work, mixed, ok
from tests.chaos.storm.book import Book
from tests.chaos.storm.site import Site
from tests.chaos.storm.witness import UNANSWERED, witnessed
from tests.fleet.tasks import make_app

#: Submissions that have not ended, at most; a fleet that is away is not buried (L9).
OUTSTANDING_MAX: Final = 250
#: A client that is short is granted so much each time: two tasks, of eight that it submits meanwhile.
SHORT_GRANT: Final = 20
PLENTY: Final = 1_000_000
_READ_AT_ONCE: Final = 500
_LOOK_SECONDS: Final = 0.5
_GRANT_SECONDS: Final = 0.7
#: A dead connection is replaced, and the same message sent once more: it may be there twice.
_RETRIES: Final = {"max_retries": 2, "interval_start": 0.0, "interval_step": 0.3, "interval_max": 0.5}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How many clients there are, how many of them are short of credits, and how many tasks come in a second."""

    clients: int
    short: int
    rate: float
    submitters: int = 3


class Load:
    """Submitters, a granter, and a reader of results, each a thread of its own."""

    def __init__(self, site: Site, book: Book, size: Size, seed: int) -> None:
        self._site, self.book, self._size, self._seed = site, book, size, seed
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._outstanding: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._app = _client_app(site)

    def start(self) -> None:
        """Begin, in the background."""
        works = [self._submit] * self._size.submitters
        for number, target in enumerate([*works, self._grant, self._read]):
            thread = threading.Thread(target=target, args=(self._seed + number,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, seconds: float) -> None:
        """Submit and grant nothing more."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(seconds)
        assert not any(thread.is_alive() for thread in self._threads), "a client does not come back"

    def close(self) -> None:
        """Close what the clients had open."""
        self._app.close()

    def finish_grants(self) -> bool:
        """Whether every grant that was begun is in its bucket; those that are not are granted again, by their keys."""
        for key, (client_id, credits_) in list(self.book.grants_begun.items()):
            self._grant_once(client_id, credits_, key)
        return not self.book.grants_begun

    def use_again(self, client_ids: Iterable[str]) -> None:
        """Submit a task for each of some clients: a bucket that was lost alone is rebuilt when it is used."""
        for client_id in client_ids:
            self._submit_once(ok(client_id))

    def states(self, task_ids: list[str]) -> dict[str, str]:
        """Return the state of each task, an exception's name in the place of a failure."""
        backend: Any = self._site.fleet.app.backend
        found = {}
        for start in range(0, len(task_ids), _READ_AT_ONCE):
            part = task_ids[start : start + _READ_AT_ONCE]
            values = backend.mget([backend.get_key_for_task(task_id) for task_id in part])
            for task_id, value in zip(part, values, strict=True):
                meta = backend.decode_result(value) if value else {"status": states.PENDING}
                failed = meta["status"] == states.FAILURE
                found[task_id] = type(meta["result"]).__name__ if failed else meta["status"]
        return found

    def _submit(self, seed: int) -> None:
        chance, pause = random.Random(seed), self._size.submitters / self._size.rate
        numbers = self._work(chance)
        while not self._stopped.wait(chance.expovariate(1 / pause)):
            with self._lock:
                full = len(self._outstanding) >= OUTSTANDING_MAX
            if not full:
                self._submit_once(next(numbers))

    def _submit_once(self, work: Work) -> None:
        task_id = celery.utils.uuid()
        self.book.submitting(task_id, work)
        try:
            task, arguments = self._app.tasks[work.task], (work.client_id, *work.args)
            task.apply_async(arguments, task_id=task_id, retry=True, retry_policy=_RETRIES)
        except Exception as error:  # noqa: BLE001 - whatever it was, the task may have come through or not
            self.book.in_doubt(task_id, error)
            return
        self.book.submitted(task_id)
        with self._lock:
            self._outstanding.add(task_id)

    def _work(self, chance: random.Random) -> Iterator[Work]:
        while True:
            if chance.random() < 0.3:
                yield ok(chance.choice(self.book.short))
            else:
                yield mixed(chance.choice(self.book.rich), chance.randrange(5))

    def _grant(self, seed: int) -> None:
        chance, number = random.Random(seed), 0
        while not self._stopped.wait(_GRANT_SECONDS):
            number += 1
            self._grant_once(chance.choice(self.book.short), SHORT_GRANT, f"grant-{number}")

    def _grant_once(self, client_id: str, credits_: int, key: str) -> None:
        self.book.granting(client_id, credits_, key, time.time_ns() // 1_000_000)
        try:
            admin.grant(self._site.fleet.settings, client_id, credits_, key=key)
        except BillingError:
            return
        self.book.was_granted(key)

    def _read(self, seed: int) -> None:
        """Keep the number of those that are out, oldest answers first; the verdict is read again at the end."""
        del seed
        while not self._stopped.wait(_LOOK_SECONDS):
            with self._lock:
                looked = list(self._outstanding)
            try:
                found = self.states(looked)
            except Exception:  # noqa: BLE001, S112 - the result backend is away: a later look will tell
                continue
            with self._lock:
                self._outstanding -= {task_id for task_id, state in found.items() if state != states.PENDING}
                self._outstanding -= witnessed(self._site.directory, UNANSWERED)

    def outcome(self) -> collections.Counter[str]:
        """Read what became of every submission into the book; return how many are in which state."""
        found = self.states(list(self.book.work))
        self.book.answers = found
        return collections.Counter(found[task_id] for task_id in self.book.sure)


def _client_app(site: Site) -> celery.Celery:
    """Return the app of those who submit: through their own door, with confirms and bounds."""
    app = make_app(
        {
            "BILLING_BROKER_URL": site.client_broker_url,
            "BILLING_RESULT_URL": site.fleet.settings.result_url,
            "BILLING_REDIS_URL": site.fleet.settings.redis_url,
            "BILLING_DATABASE_URL": site.fleet.settings.database_url,
            "BILLING_SHARDS": str(site.fleet.settings.shards),
            "FLEET_DIRECTORY": str(site.directory),
        }
    )
    app.conf.broker_transport_options = {"confirm_publish": True, "read_timeout": 10, "write_timeout": 10}
    app.conf.broker_connection_timeout = 4
    return app
