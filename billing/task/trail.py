"""What is kept of deliveries that were not charged: refused, put off, parked, given back, expired. For `explain`.

Best effort, bounded, and never on the path of a success: a note is put into a buffer, and `Pending`'s thread adds it to
the trail of its client's shard within a second. A client that is refused all the time leaves a few notes in ten
minutes and process, and how many more there were: a process alone does not fill a trail with it, twenty may (L10).
"""

from __future__ import annotations

import collections
import logging
import threading
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from billing.core.errors import BillingError
from billing.core.shards import shard_of
from billing.task.pending import Pending

if TYPE_CHECKING:
    from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: L9: notes that one process has in hand; past it the oldest goes.
WAITING_MAX: Final = 1_000
#: L10: notes of one client that one process writes in a window; the others are counted.
OF_ONE_CLIENT_MAX: Final = 50
WINDOW_SECONDS: Final = 600.0
#: Clients that are counted apart in a window; past it, notes of further ones are counted together.
CLIENTS_MAX: Final = 10_000
#: Redis did not take them: it is asked again after this long.
PAUSE_SECONDS: Final = 5.0
_TEXT_MAX: Final = 300
#: The latest that a note may be of: the end of the year 9999, in milliseconds since the Unix epoch.
AT_MAX: Final = 253_402_300_799_000
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

#: What happened: `attempt` is a delivery that took over the hold of one that ended without a word, `settled` a charge
#: that the reaper made from the stored result.
Kind = Literal["refused", "waits", "parked", "given_back", "released", "retries", "attempt", "expired", "settled"]


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened to one delivery. `at` is in milliseconds by the writer's clock; `worker` names the writer.

    `credits` is what it needed or held; `available` what its client could have had. `error` is the class of the error
    whose text `reason` is, if it is one's. `more`: how many notes of this client were not written before this one.
    """

    kind: Kind
    at: Annotated[int, msgspec.Meta(ge=0, le=AT_MAX)]
    task_id: str
    run_id: uuid.UUID | None = None
    client_id: str = ""
    task: str = ""
    sku: str = ""
    credits: Count | None = None
    available: int | None = None
    attempt: Count = 1
    waits: Count = 0
    reason: str = ""
    error: str = ""
    worker: str = ""
    more: Count = 0


def encode_note(note: Note) -> bytes:
    """Return a note as the trail keeps it; long texts are cut, but for the task id, by which it is found."""
    short = {
        name: getattr(note, name)[:_TEXT_MAX] for name in ("client_id", "task", "sku", "reason", "error", "worker")
    }
    return msgspec.json.encode(msgspec.structs.replace(note, **short))


def decode_note(data: bytes) -> Note | None:
    """Read what `encode_note` wrote; None for what it cannot have written."""
    try:
        return msgspec.json.decode(data, type=Note)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


class Trail:
    """The notes of one process on their way to the trail. Threads may share it."""

    def __init__(self, runtime: Runtime, pending: Pending) -> None:
        self._runtime, self._pending = runtime, pending
        self._waiting: collections.deque[tuple[int, bytes]] = collections.deque(maxlen=WAITING_MAX)
        self._written: collections.Counter[str] = collections.Counter()
        self._dropped: collections.Counter[str] = collections.Counter()
        self._window_ends = 0.0
        self._paused_until = 0.0
        self._lock = threading.Lock()
        pending.also(self.write)

    def add(self, note: Note) -> None:
        """Have a note written. Never waits, never raises."""
        try:
            with self._lock:
                more = self._admit(note.client_id)
                if more is None:
                    return
                shard = shard_of(note.client_id, self._runtime.settings.shards)
                self._waiting.append((shard, encode_note(msgspec.structs.replace(note, more=more))))
            self._pending.wake()
        except Exception:
            logger.exception("billing: what became of task %s is not noted", note.task_id)

    def drops(self, client_id: str) -> bool:
        """Return whether a note of this client would be dropped, which then is counted: it need not be made."""
        with self._lock:
            is_full = self._written[client_id] >= OF_ONE_CLIENT_MAX
            if is_full and self._runtime.clock.monotonic() < self._window_ends:
                self._dropped[client_id] += 1
                return True
        return False

    def write(self) -> None:
        """Add what waits to the trails. What fails is kept, within the bound, and never raised."""
        now = self._runtime.clock.monotonic()
        if not self._waiting or now < self._paused_until:
            return
        with self._lock:
            notes = list(self._waiting)
            self._waiting.clear()
        try:
            left: Sequence[tuple[int, bytes]] = self._runtime.buckets.add_notes(notes)
        except BillingError as error:
            logger.warning("billing: notes on %d deliveries wait for Redis: %s", len(notes), error)
            left = notes
        if left:
            self._paused_until = now + PAUSE_SECONDS
            with self._lock:
                # Those that came meanwhile are newer.
                self._waiting.extendleft(reversed(left[: WAITING_MAX - len(self._waiting)]))

    def _admit(self, client_id: str) -> int | None:
        """Return how many notes of a client were dropped since its last one; None: so is this one."""
        now = self._runtime.clock.monotonic()
        if now >= self._window_ends:
            self._window_ends = now + WINDOW_SECONDS
            self._written.clear()
            if len(self._dropped) > CLIENTS_MAX:
                self._dropped.clear()
        who = client_id if client_id in self._written or len(self._written) < CLIENTS_MAX else ""
        if self._written[who] >= OF_ONE_CLIENT_MAX:
            self._dropped[who] += 1
            return None
        self._written[who] += 1
        return self._dropped.pop(who, 0)
