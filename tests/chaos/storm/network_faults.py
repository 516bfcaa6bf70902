"""What befalls the connections between a kind of process and a server: the doors of the site are where it happens."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from tests.chaos.storm.faults import fault
from tests.chaos.storm.site import Site
from tests.proxy import Proxy

#: Delays of every packet, from and to, in seconds.
_DELAYS: Final = (0.02, 0.4)

_BEGIN: Final[Mapping[str, Callable[[Proxy, random.Random], None]]] = {
    "cut": lambda door, _: door.cut(),
    "refused": lambda door, _: door.shut(),
    "silent": lambda door, _: door.freeze(),
    "delayed": lambda door, chance: door.delay(chance.uniform(*_DELAYS)),
    "half-open": lambda door, _: door.half_open(),
}


def _enter(role: str, server: str, way: str) -> None:
    @fault(f"{role}-{server} connections {way}")
    @contextmanager
    def befall(site: Site, chance: random.Random) -> Iterator[None]:
        door = site.doors[role, server]
        _BEGIN[way](door, chance)
        try:
            yield
        finally:
            door.reopen()


def enter_all(pairs: Iterator[tuple[str, str]]) -> None:
    """Enter every way in which these connections can fail."""
    for role, server in pairs:
        for way in _BEGIN:
            _enter(role, server, way)
