"""Questions to servers from Flower's loop, which never waits for one: each has a thread, and its asker a bound (L9).

A server that stands still closes no connection. So a question that has no answer in time is left to its thread, what
is asked again meanwhile joins it, and past a number of such threads nothing more is asked: the page says so, in words.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Final, Generic, TypeVar

from billing.core.apart import call_apart
from billing.core.errors import BillingError, Rejected, Unreachable

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: L9: how long a page waits for a part of it.
WAIT_SECONDS: Final = 4.0
#: L9: questions to one server at once, those included that nobody waits for any more. PostgreSQL's engine has four
#: connections for a process.
AT_ONCE: Final = 3


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Answer(Generic[T]):
    """What a question came to: a value, or the problem in words for a person.

    `refused`: nothing is wrong with the server; what was asked for does not exist, or cannot.
    """

    value: T | None = None
    problem: str = ""
    refused: bool = False


class Asking:
    """Asks for the requests of one loop, and only from that loop: nothing here is shared with a thread."""

    def __init__(self) -> None:
        self._going: dict[Hashable, Future[Any]] = {}
        self._busy: Counter[str] = Counter()

    async def ask(
        self, server: str, key: Hashable, question: Callable[[], T], *, seconds: float = WAIT_SECONDS
    ) -> Answer[T]:
        """Return what a question to a server comes to. The same key is asked once at a time, for all who ask."""
        try:
            future = self._going.get((server, key)) or self._begin(server, key, question)
            value: T = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), seconds)
        except TimeoutError:
            return Answer(problem=f"{server} has not answered within {seconds:g} s")
        except Rejected as error:
            return Answer(problem=str(error), refused=True)
        except BillingError as error:
            return Answer(problem=str(error))
        except Exception:
            logger.exception("billing: a page could not read from %s", server)
            return Answer(problem=f"{server}: what it answered could not be read (Flower's log says why)")
        return Answer(value=value)

    def _begin(self, server: str, key: Hashable, question: Callable[[], T]) -> Future[T]:
        if self._busy[server] >= AT_ONCE:
            raise Unreachable(f"{server} has not answered {AT_ONCE} questions yet, so it is not asked another one")
        try:
            future = call_apart(question, name=f"billing-page-{server}")
        except RuntimeError as error:
            raise Unreachable(f"{server} is not asked: {error}") from error
        self._busy[server] += 1
        self._going[server, key] = future
        loop = asyncio.get_running_loop()

        def ended(_: Future[T]) -> None:
            # The loop may be closed when a server comes back at the end of the process.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._end, server, key)

        future.add_done_callback(ended)
        return future

    def _end(self, server: str, key: Hashable) -> None:
        self._busy[server] -= 1
        del self._going[server, key]
