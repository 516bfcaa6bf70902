"""The wires between billing and its servers, each tapped: what a piece of work says on them is counted."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

from redis.connection import AbstractConnection

from tests.cost.protocols import GREETING, Amqp, Http, Postgres, Redis, Speech
from tests.proxy import Proxy, address_of

#: What is counted of some work: a name and a whole number.
Counts = dict[str, int]
PROTOCOLS: Final[Mapping[str, type[Speech]]] = {"redis": Redis, "sql": Postgres, "amqp": Amqp, "stripe": Http}


class Tap(Proxy):
    """A door in front of a server that counts what passes."""

    def __init__(self, url: str, protocol: type[Speech]) -> None:
        self._protocol = protocol
        self._speeches: dict[int, Speech] = {}
        self._counting = threading.Lock()
        super().__init__(*address_of(url))
        self.url = self.url_through(url)

    def passing(self, connection: int, data: bytes, *, to_server: bool) -> None:
        """Count."""
        with self._counting:
            speech = self._speeches.setdefault(connection, self._protocol())
            speech.passing(data, to_server=to_server)

    def counts(self) -> collections.Counter[str]:
        """Return all that passed until now."""
        with self._counting:
            return sum((speech.counts for speech in self._speeches.values()), collections.Counter[str]())


class Wires:
    """The tapped URLs of some servers, and what goes over them."""

    def __init__(self, taps: Mapping[str, Tap]) -> None:
        self._taps = taps

    def url(self, name: str) -> str:
        """Return the URL that leads through a tap."""
        return self._taps[name].url

    def counted(self, work: Callable[[], object], *names: str) -> Counts:
        """Return what `work` says on these wires (none named: on all); what it does not do is 0."""
        before = {name: self._taps[name].counts() for name in names or self._taps}
        with _sending() as sent:
            work()
        found: Counts = {}
        for name, had in before.items():
            now = self._taps[name].counts()
            for what in sorted({*now, *had}):
                found[f"{name}_{what}"] = now[what] - had[what]
        if "redis" in before:
            found["redis_round_trips"] = sent[self._taps["redis"].port]
        return found


@contextmanager
def _sending() -> Iterator[collections.Counter[int]]:
    """Count, by port, how often redis-py sends what is then waited for.

    On the wire a long pipeline is no round trip of its own: its first answers come before its last commands went.
    """
    sent: collections.Counter[int] = collections.Counter()
    lock = threading.Lock()
    send: Any = AbstractConnection.send_packed_command

    def counting(connection: Any, *arguments: Any, **named: Any) -> Any:
        text = arguments[0] if isinstance(arguments[0], bytes) else b"".join(arguments[0])
        if not GREETING.match(text):
            with lock:
                sent[connection.port] += 1
        return send(connection, *arguments, **named)

    with mock.patch.object(AbstractConnection, "send_packed_command", counting):
        yield sent


@contextmanager
def tapped(**urls: str) -> Iterator[Wires]:
    """Tap the ways to these servers: `redis`, `sql`, `amqp`, `stripe`."""
    with ExitStack() as stack:
        taps: dict[str, Tap] = {}
        for name, url in urls.items():
            taps[name] = Tap(url, PROTOCOLS[name])
            stack.callback(taps[name].close)
        yield Wires(taps)


def only(counts: Mapping[str, int], *beginnings: str) -> Counts:
    """Return the counts whose names begin so."""
    return {name: count for name, count in counts.items() if name.startswith(beginnings)}
