"""`with billing.reserve(...) as run`: the life of a billed run around a block of code that is no task.

It reserves before the block, settles and publishes when the block ends well, and releases on any exception. What
refuses it is raised before the block begins. A process that dies in the block leaves a hold that expires (L5).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from billing.core.clock import to_milliseconds
from billing.core.errors import AlreadyCharged, BillingError, Rejected
from billing.task.lifecycle import Lifecycle
from billing.task.modes import is_dry
from billing.task.noting import of_run
from billing.task.outcome import Outcome
from billing.task.outside import Opened, Order
from billing.task.run import Call, Run
from billing.task.usage import NotInARun, Scope

#: The arguments of a task that takes none.
_NO_CALL: Final[Call] = ((), {})


class Block:
    """A billed block, for `with` or `async with`, entered once. Several may be open in one process, in any threads."""

    def __init__(self, find: Callable[[], Lifecycle], order: Order) -> None:
        self._find = find
        self._order = order
        self._begun: tuple[Lifecycle, Run] | None = None
        self._scope: Scope | None = None

    @property
    def run_id(self) -> uuid.UUID:
        """The id of the run, its reservation and its usage event."""
        return self._run.identity.run_id

    @property
    def client_id(self) -> str:
        """Who pays."""
        return self._order.client_id

    @property
    def outcome(self) -> Outcome:
        """How it stands: held in the block; then charged, late, pending (Redis was away: it is tried on), released.

        One that was outside the ceiling says its mode: dry_run, meter_only.
        """
        return self._run.outcome

    @property
    def credits_held(self) -> int:
        """The credits that were asked for before the block began."""
        return self._run.hold.credits

    @property
    def credits_charged(self) -> int | None:
        """The credits that were charged; None until then, and where another block of the key was charged first."""
        return self._run.credits_charged

    def record(self, quantity: int, *, sku: str | None = None) -> None:
        """Add to what is charged, as `billing.usage.record` does; callable from any thread of the block."""
        if self._scope is None or not self._scope.is_open:
            raise NotInARun
        self._scope.recorder.record(quantity, sku=sku)

    def __enter__(self) -> Self:
        """Reserve, or raise the reason why not."""
        self._begin()
        self._scope = Scope(self._run.recorder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Settle and publish, or release."""
        if self._leave():
            self._end(succeeded=kind is None)

    async def __aenter__(self) -> Self:
        """Reserve in a thread. Cancelled meanwhile, it waits for the answer, and gives back what that has reserved."""
        cancelled = await _to_the_end(self._begin)
        if cancelled is not None:
            await _to_the_end(lambda: self._end(succeeded=False))
            raise cancelled
        self._scope = Scope(self._run.recorder)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Settle and publish, or release, in a thread; a cancellation that comes meanwhile changes neither."""
        if self._leave():
            cancelled = await _to_the_end(lambda: self._end(succeeded=kind is None))
            if cancelled is not None:
                raise cancelled

    @property
    def _run(self) -> Run:
        if self._begun is None:
            raise NotInARun
        return self._begun[1]

    def _begin(self) -> None:
        if self._begun is not None:
            raise Rejected("run: was entered before: call billing.reserve(...) for each block")
        lifecycle, order = self._find(), self._order
        runtime = lifecycle.runtime
        identity = order.identity(to_milliseconds(runtime.clock.now()))
        name = str(identity.run_id) if order.key is None else order.key
        opened = Opened(id=name, root_id=name)
        if is_dry(order.definition, runtime.settings):
            read = order.definition, identity
            self._begun = lifecycle, lifecycle.modes.dry_run(order.definition, opened, _NO_CALL, lambda: read)
            return
        run = lifecycle.prepare_run(order.definition, identity, opened, _NO_CALL)
        # Whoever drops a block without ending it must not have its credits held for ever (L9).
        run.renewed_until = runtime.clock.monotonic() + runtime.settings.hold_age_max_seconds
        # First the log and then Redis: what settles between the two looks is still remembered there.
        if order.key is not None and runtime.records.is_charged(identity.run_id):
            raise AlreadyCharged(order.client_id, order.key)
        try:
            lifecycle.hold(run)
        except BillingError as refused:
            lifecycle.trail.add(of_run("refused", run, runtime.clock, refused))
            raise
        except BaseException:
            # Ctrl-C, or a web server's time limit: the credits may be held already, and nobody would end the run.
            lifecycle.end(run, None, None)
            raise
        if run.settled:
            raise AlreadyCharged(order.client_id, order.key or name)
        self._begun = lifecycle, run

    def _leave(self) -> bool:
        """Stop recording; return whether this process is the one that has to end the run, and not a child of it."""
        scope = self._scope
        if scope is None or not scope.is_open:
            return False
        scope.close()
        return True

    def _end(self, *, succeeded: bool) -> None:
        if self._begun is None:
            return
        lifecycle, run = self._begun
        if succeeded:
            lifecycle.succeed(run)
        else:
            lifecycle.end(run, None, None)


async def _to_the_end(step: Callable[[], None]) -> asyncio.CancelledError | None:
    """Run a bounded step in a thread until it ends, also when the caller is cancelled meanwhile; return that.

    A thread cannot be cancelled: whoever stopped to wait for it would not know what it has reserved.
    """
    thread = asyncio.get_running_loop().run_in_executor(None, step)
    cancelled: asyncio.CancelledError | None = None
    while not thread.done():
        try:
            await asyncio.wait({thread})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        thread.result()
    else:
        # The refusal of a step that nobody waits for any more is nobody's business.
        thread.exception()
    return cancelled
