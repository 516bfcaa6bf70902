"""Delivers pending alerts to their clients' webhooks: claimed in the table, called outside of transactions.

At least once: a worker that dies after the call leaves a claim that runs out, and the same message goes out again under
the same id. A worker makes one call per client at a time, so that a dead or slow webhook takes one of its places (L10).
"""

from __future__ import annotations

import concurrent.futures
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from billing.alerts.alert import Alert, body_of, message_id
from billing.alerts.answer import Answer, pause_after
from billing.alerts.courier import Call, Courier
from billing.alerts.signing import headers_of
from billing.alerts.statements import AGAIN, CLAIM, DELIVERED, FAILED, GIVE_UP
from billing.connections import postgres
from billing.task.observer import Called
from billing.task.runtime import Runtime

#: Calls under way at a time (L9).
CALLS_MAX: Final = 64
#: What a claim lasts beyond the bound of its call, for the answer to be written.
_CLAIM_MARGIN: Final = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True, slots=True)
class _UnderWay:
    alert: Alert
    attempts: int
    answer: Future[Answer]


class Deliveries:
    """The calls of one worker. `step` never waits for a webhook."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._courier: Courier | None = None
        self._under_way: list[_UnderWay] = []

    def step(self) -> int:
        """Write the answers that have come, and begin calls that are due; return how many are under way."""
        self._write_answers()
        self._begin()
        return len(self._under_way)

    def finish(self) -> None:
        """Wait for the calls under way, within their bound, and write their answers."""
        bound = self._runtime.settings.webhook_timeout_seconds + _CLAIM_MARGIN.total_seconds()
        concurrent.futures.wait([call.answer for call in self._under_way], timeout=bound)
        self._write_answers()

    def close(self) -> None:
        """End what is under way: its claims run out, and it is delivered by whoever is next."""
        if self._courier is not None:
            self._courier.close()
            self._courier = None
        self._under_way.clear()

    def _write_answers(self) -> None:
        finished = [call for call in self._under_way if call.answer.done()]
        if not finished:
            return
        settings, now = self._runtime.settings, self._runtime.clock.now()
        results = []
        with postgres.reaching(settings), self._runtime.engine.begin() as connection:
            for call in finished:
                answer = call.answer.result()
                values = {"alert": call.alert.alert_id, "attempts": call.attempts}
                if answer.delivered:
                    results.append(Called.DELIVERED)
                    connection.execute(DELIVERED, {**values, "now": now})
                elif answer.final or call.attempts >= settings.webhook_attempts_max:
                    results.append(Called.GIVEN_UP)
                    connection.execute(FAILED, {**values, "reason": str(answer)})
                else:
                    results.append(Called.FAILED)
                    due = now + pause_after(call.attempts)
                    connection.execute(AGAIN, {**values, "due": due, "reason": str(answer)})
        # Only now: while PostgreSQL is away they are kept.
        self._under_way = [call for call in self._under_way if call not in finished]
        if self._runtime.observer is not None:
            for result in results:
                self._runtime.observer.called(result)

    def _begin(self) -> None:
        runtime, settings, now = self._runtime, self._runtime.settings, self._runtime.clock.now()
        given = {
            "now": now,
            "claimed_until": now + timedelta(seconds=settings.webhook_timeout_seconds) + _CLAIM_MARGIN,
            "busy": [call.alert.client_id for call in self._under_way],
            "count": CALLS_MAX - len(self._under_way),
        }
        with postgres.reaching(settings), runtime.engine.begin() as connection:
            connection.execute(GIVE_UP, {"now": now, "attempts_max": settings.webhook_attempts_max})
            claimed = [dict(row) for row in connection.execute(CLAIM, given).mappings()]
            # Before the claims are committed: where no call can be made (say, certificates cannot be read), no attempt
            # is used up.
            if claimed:
                self._ready()
        for row in claimed:
            attempts, url, secret = row.pop("attempts"), row.pop("url"), row.pop("secret")
            alert = Alert(**row)
            body = body_of(alert)
            try:
                headers = headers_of(secret, message_id(alert), now, body)
            except ValueError:
                # Somebody wrote it past billing. It must not cost the others that were claimed with it (L10).
                answer: Future[Answer] = Future()
                answer.set_result(Answer(status=None, reason="its secret cannot be read: rotate it"))
            else:
                answer = self._post(Call(url=url, headers=headers, body=body))
            self._under_way.append(_UnderWay(alert=alert, attempts=attempts, answer=answer))

    def _post(self, call: Call) -> Future[Answer]:
        return self._ready().submit(call)

    def _ready(self) -> Courier:
        if self._courier is None:
            timeout = self._runtime.settings.webhook_timeout_seconds
            self._courier = Courier(timeout_seconds=timeout, calls_max=CALLS_MAX)
        return self._courier
