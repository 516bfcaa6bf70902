"""Asks the application's hook for credits: claimed in the table, called outside of transactions, answered once.

At least once: a worker that dies after the call leaves a claim that runs out, and the same request is asked again under
the same id and key. What the hook raises or never answers is doubt, not a decline: it may have paid.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

from billing.connections import postgres
from billing.connections.per_process import PerProcess
from billing.core.errors import InvalidValue, Rejected, Retryable
from billing.ledger.locks import Locked, waiting_briefly
from billing.task.runtime import Runtime
from billing.top_ups.finishing import decline_request, drop_request, grant_request
from billing.top_ups.hook import CALLS_MAX, Hook, calls, load_hook
from billing.top_ups.looking import look, look_at
from billing.top_ups.request import Answer, Request, pause_after
from billing.top_ups.statements import CLAIM, LAPSED, NOTE, PAID, WAIT, WANTED

logger = logging.getLogger(__name__)

#: Calls of the hook for one request, in doubt (L9).
ATTEMPTS_MAX: Final = 5
#: What a claim lasts beyond the bound of its call, for the answer to be written.
_CLAIM_MARGIN: Final = timedelta(seconds=5)
#: How long a request waits whose client's balance cannot be read.
_UNREADABLE: Final = timedelta(seconds=30)
#: Rounds that one pass of beat's makes, and what it waits for the hook in all of them (L9).
_ROUNDS_MAX: Final = 3
PASS_SECONDS: Final = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _UnderWay:
    request: Request
    answer: Future[object]


class TopUps:
    """The top-ups of one worker. `step` never waits for the hook."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = self._runtime = runtime
        self._under_way: list[_UnderWay] = []
        #: What keeps it from asking, as the log was told it.
        self._told = ""

    def step(self) -> int:
        """Write the answers that have come, look at balances, begin due calls; return how many are under way."""
        self._write_answers()
        self._finish_paid_and_lapsed()
        look(self._runtime)
        self._begin()
        return len(self._under_way)

    def finish(self, seconds: float | None = None) -> None:
        """Wait for the calls under way, so long or for their bound, and write their answers."""
        bound = self._runtime.settings.top_up_timeout_seconds if seconds is None else seconds
        concurrent.futures.wait([call.answer for call in self._under_way], timeout=bound)
        self._write_answers()

    def leave(self) -> None:
        """Have each call under way write its own answer when that comes: the next pass may be another process's."""
        under_way, self._under_way = self._under_way, []
        for call in under_way:
            call.answer.add_done_callback(functools.partial(self._write_late, call))

    def _write_late(self, call: _UnderWay, answered: Future[object]) -> None:
        try:
            self._write_answer(call.request, answered)
        except Exception as error:  # noqa: BLE001 - in the thread of a call, which nobody hears
            reason = f"the answer to request {call.request.request_id} waits for the next pass"
            logger.error("billing: %s: %s", reason, error)  # noqa: TRY400 - one line
            self._under_way.append(call)

    def _write_answers(self) -> None:
        for call in [call for call in self._under_way if call.answer.done()]:
            with _tolerating_locks():
                self._write_answer(call.request, call.answer)
                # Only now: while PostgreSQL is away it is kept.
                self._under_way.remove(call)

    def _write_answer(self, request: Request, answered: Future[object]) -> None:
        error = answered.exception()
        if error is not None:
            self._note(request, "", str(error), pause_after(request.attempts))
            return
        try:
            answer = Answer(answered.result())
        except Exception:  # noqa: BLE001 - what it returned is anybody's, and may raise when it is compared or shown
            reason = "answered neither granted, declined nor pending"
            logger.error("billing: the top-up hook %s to request %d", reason, request.request_id)  # noqa: TRY400
            self._note(request, "", reason, pause_after(request.attempts))
            return
        if answer is Answer.GRANTED:
            self._grant(request)
        elif answer is Answer.PENDING:
            seconds = self._runtime.settings.top_up_pending_seconds
            self._note(request, answer.value, "", timedelta(seconds=seconds))
        else:
            decline_request(self._runtime, request.request_id, reason="", attempts=request.attempts)

    def _grant(self, request: Request) -> None:
        """Write the grant. What was paid for and cannot be granted now stays open, and is tried for ever, slowly."""
        try:
            grant_request(self._runtime, request.request_id)
        except (Rejected, Retryable) as error:
            logger.error("billing: request %d was paid for, and is not granted: %s", request.request_id, error)  # noqa: TRY400 - one line
            self._note(request, Answer.GRANTED.value, str(error), pause_after(request.attempts))

    def _note(self, request: Request, answer: str, reason: str, pause: timedelta) -> None:
        given = {"request": request.request_id, "attempts": request.attempts, "answer": answer, "reason": reason}
        next_at = self._runtime.clock.now() + pause
        with (
            postgres.reaching(self._runtime.settings),
            self._runtime.engine.begin() as connection,
            waiting_briefly(connection),
        ):
            connection.execute(NOTE, {**given, "next": next_at})

    def _finish_paid_and_lapsed(self) -> None:
        runtime, now = self._runtime, self._runtime.clock.now()
        given = {"now": now, **self._bounds(now), "count": CALLS_MAX}
        with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
            paid = list(connection.execute(PAID, {"count": CALLS_MAX}).scalars())
            lapsed = connection.execute(LAPSED, given).all()
        for request_id in paid:
            with _tolerating_locks():
                grant_request(runtime, request_id)
        for row in lapsed:
            reason = "no answer came" if row.answer else "was asked too often, or for too long"
            with _tolerating_locks():
                decline_request(runtime, row.request_id, state="lapsed", reason=reason)

    def _bounds(self, now: datetime) -> dict[str, Any]:
        """Return beyond what a request is not asked again, but lapses (L9)."""
        asked_before = now - timedelta(seconds=self._runtime.settings.top_up_pending_seconds)
        return {"attempts_max": ATTEMPTS_MAX, "asked_before": asked_before}

    def _begin(self) -> None:
        runtime, settings, now = self._runtime, self._runtime.settings, self._runtime.clock.now()
        wanted = self._still_short()
        busy = calls().busy()
        hook = self._hook(len(busy))
        given = {
            "now": now,
            "claimed_until": now + timedelta(seconds=settings.top_up_timeout_seconds) + _CLAIM_MARGIN,
            "wanted": wanted,
            **self._bounds(now),
            "busy": busy,
            "asking": hook is not None,
            "count": CALLS_MAX if hook is None else CALLS_MAX - len(busy),
        }
        with postgres.reaching(settings), runtime.engine.begin() as connection:
            claimed = [dict(row) for row in connection.execute(CLAIM, given).mappings()]
        for row in claimed:
            said = row.pop("answer")
            request = Request(**row)
            if hook is None or said == Answer.GRANTED.value:
                with _tolerating_locks():
                    self._grant(request)
                continue
            answer = calls().start(hook, request)
            # None: another thread of this process was quicker; the claim runs out, and it is asked again.
            if answer is not None:
                self._under_way.append(_UnderWay(request=request, answer=answer))

    def _still_short(self) -> list[int]:
        """Return the requests nobody was asked for yet whose clients are still short; the others lapse."""
        runtime, now = self._runtime, self._runtime.clock.now()
        with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
            wanted = connection.execute(WANTED, {"now": now, "count": CALLS_MAX}).all()
        if not wanted:
            return []
        looks = look_at(runtime, [row.client_id for row in wanted], now)
        unread = [row.request_id for row in wanted if row.client_id not in looks]
        if unread:
            waits = {"requests": unread, "next": now + _UNREADABLE}
            with (
                _tolerating_locks(),
                postgres.reaching(runtime.settings),
                runtime.engine.begin() as connection,
                waiting_briefly(connection),
            ):
                connection.execute(WAIT, waits)
        short = []
        for row in wanted:
            if row.client_id not in looks:
                continue
            if looks[row.client_id].short:
                short.append(row.request_id)
            else:
                with _tolerating_locks():
                    drop_request(runtime, row.request_id, "is not short any more, or may not work")
        return short

    def _hook(self, busy: int) -> Hook | None:
        """Return the hook, unless something keeps it from being asked: that is logged when it changes."""
        hook, obstacle = None, ""
        try:
            hook = load_hook(self._runtime.settings.top_up_hook) if self._runtime.settings.top_up_hook else None
        except InvalidValue as error:
            obstacle = f"nobody is asked for top-ups: {error}"
        if hook is not None and busy >= CALLS_MAX:
            hook, obstacle = None, f"{busy} calls of the top-up hook are under way: none is begun until one ends"
        if obstacle and obstacle != self._told:
            logger.error("billing: %s", obstacle)
        self._told = obstacle
        return hook


@contextmanager
def _tolerating_locks() -> Iterator[None]:
    """Leave what somebody has locked to the next step: the others have their turn (L10)."""
    try:
        yield
    except Locked as error:
        logger.warning("billing: a top-up waits: %s", error)


class _Passes:
    """The passes of one process, one at a time. A call that outlasts its pass writes its answer itself, or the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._top_ups: TopUps | None = None

    def run(self, runtime: Runtime) -> None:
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._top_ups is None or self._top_ups.runtime is not runtime:
                self._top_ups = TopUps(runtime)
            until = time.monotonic() + PASS_SECONDS
            for _ in range(_ROUNDS_MAX):
                left = until - time.monotonic()
                if not self._top_ups.step() or left <= 0:
                    break
                self._top_ups.finish(left)
        finally:
            if self._top_ups is not None:
                self._top_ups.leave()
            self._lock.release()


_PASSES: Final = PerProcess(_Passes)


def run_top_ups(runtime: Runtime) -> None:
    """Make one bounded pass: what beat runs, in case no fulfillment worker's loop did.

    It waits `PASS_SECONDS` for the hook at most, since other maintenance waits for it.
    """
    _PASSES.get().run(runtime)
