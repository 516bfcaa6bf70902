"""One question that a reading asks, in a thread of its own: whoever does not answer holds up nobody but itself (L9).

A question is asked by one thread at a time: as long as it hangs it is not asked again. After an answer it rests for its
pace, or for twenty times what the answer took, up to a bound: what is long to answer costs little all the same, and a
fault still shows within a minute. A server that did not answer is asked again sooner: it has done no work.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from billing.core.clock import Clock
from billing.core.errors import BillingError, NotMigrated, Unreachable
from billing.observability.doctor.finding import Finding, fail

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: A question rests for so many times what its answer took (or what was waited in vain), up to so long.
REST_FACTOR: Final = 20
FAILED_REST_FACTOR: Final = 2
REST_SECONDS_MAX: Final = 5.0
#: A slow question for longer: it has its pace, of half a minute, in any case.
SLOW_REST_SECONDS_MAX: Final = 30.0
#: A slow question may take so long before it counts as silent.
SLOW_SECONDS_MAX: Final = 15.0
#: A value that a slow question has not renewed for so long is told no more.
AGE_SECONDS_MAX: Final = 300.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Answer(Generic[T]):
    """The last answer of a part. `finding` says why there is none; both None: it has not been asked yet.

    `up`: whether the server answered at all, be it with a refusal; None: not known yet.
    """

    value: T | None = None
    finding: Finding | None = None
    up: bool | None = None


class Part(Generic[T]):
    """A question with its name (as findings have it), its pace, and its last answer."""

    def __init__(self, name: str, ask: Callable[[], T], clock: Clock, pace_seconds: float, *, slow: bool) -> None:
        """`slow`: a last answer stands while the next is under way; else the part counts as silent meanwhile."""
        self.name = name
        self._ask, self._clock = ask, clock
        self._pace_seconds, self._slow = pace_seconds, slow
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ended.set()
        self._answer: Answer[T] = Answer()
        self._began = self._due = clock.monotonic()
        self._hurried = False

    def begin(self) -> None:
        """Ask, if it is time and nobody is at it."""
        with self._lock:
            if not self._ended.is_set() or self._clock.monotonic() < self._due:
                return
            self._ended.clear()
            self._began = self._clock.monotonic()
        threading.Thread(target=self._run, name=f"billing-reads-{self.name}", daemon=True).start()

    def hurry(self) -> None:
        """Let the next `begin` ask, whatever the pace; who is at it now began before there was a reason to hurry."""
        with self._lock:
            self._due = self._clock.monotonic()
            self._hurried = not self._ended.is_set()

    def wait(self, seconds: float) -> Answer[T]:
        """Return the answer, waiting for one that is under way at most so long."""
        self._ended.wait(max(0.0, seconds))
        with self._lock:
            now = self._clock.monotonic()
            if self._ended.is_set():
                return self._answer
            waited = now - self._began
            patience = SLOW_SECONDS_MAX if self._answer.value is None else AGE_SECONDS_MAX
            if self._slow and waited < patience:
                return self._answer
            reason = f"has not answered for {waited:.0f} s"
        advice = "see whether it hangs; it is asked again when it has answered"
        return Answer(finding=fail(self.name, reason, advice), up=False)

    def _run(self) -> None:
        answer: Answer[T]
        try:
            answer = Answer(value=self._ask(), up=True)
        except NotMigrated as error:
            answer = Answer(finding=fail(self.name, str(error), "run: billing migrate"), up=True)
        except BillingError as error:
            finding = fail(self.name, str(error), "start the server, or mend the setting")
            answer = Answer(finding=finding, up=not isinstance(error, Unreachable))
        except Exception as error:  # whatever is wrong with one part hides no other (L10)
            logger.warning("billing: %s could not be read", self.name, exc_info=True)
            answer = Answer(finding=fail(self.name, f"could not be read ({type(error).__name__})", "see the log"))
        with self._lock:
            now = self._clock.monotonic()
            self._answer = answer
            factor = FAILED_REST_FACTOR if answer.value is None else REST_FACTOR
            rest = min((now - self._began) * factor, SLOW_REST_SECONDS_MAX if self._slow else REST_SECONDS_MAX)
            self._due = now if self._hurried else max(self._began + self._pace_seconds, now + rest)
            self._hurried = False
            self._ended.set()
