"""`billing doctor`: looks at every part that billing stands on, and says for each finding what to do.

It only reads. A part that does not answer is a finding, not an error. All parts are looked at at once, each in a thread
of its own and for so long at most: one that hangs hides no other, and is not begun again before it has ended (L9).
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

from billing.core.errors import BillingError, NotMigrated
from billing.observability.doctor.allowances import examine_allowances
from billing.observability.doctor.broker import examine_broker
from billing.observability.doctor.buckets import examine_buckets
from billing.observability.doctor.clocks import examine_clocks
from billing.observability.doctor.corruptions import examine_corruptions
from billing.observability.doctor.finding import Finding, Verdict, fail
from billing.observability.doctor.laws import examine_laws
from billing.observability.doctor.liveness import examine_liveness
from billing.observability.doctor.postgres import examine_postgres
from billing.observability.doctor.reconciliation import examine_reconciler, examine_reconciliation
from billing.observability.doctor.redis import examine_redis
from billing.observability.doctor.signing import examine_signing
from billing.observability.doctor.stripe import examine_stripe
from billing.observability.doctor.tasks import examine_tasks
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: How long a part may take. Its calls have bounds of their own: servers that say nothing cost 10 s under the settings'
#: defaults. This one is for what nobody has thought of, on a machine that is busy with other things.
PART_SECONDS: Final = 30.0
#: How long what Stripe said is said again: whoever looks every few seconds must not use up its rate (L9).
STRIPE_SECONDS: Final = 30.0

Check = Callable[[Runtime], Iterator[Finding]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part by its name in findings. `keep_seconds`: for how long its last findings stand, unless one failed."""

    name: str
    check: Check
    keep_seconds: float = 0.0


PARTS: Final = (
    Part(name="Redis", check=examine_redis),
    Part(name="PostgreSQL", check=examine_postgres),
    Part(name="clocks", check=examine_clocks),
    Part(name="buckets", check=examine_buckets),
    Part(name="buckets", check=examine_corruptions),
    Part(name="broker", check=examine_broker),
    Part(name="broker", check=examine_signing),
    Part(name="Stripe", check=examine_stripe, keep_seconds=STRIPE_SECONDS),
    Part(name="reconciliation", check=examine_reconciliation),
    Part(name="reconciliation", check=examine_reconciler),
    Part(name="allowances", check=examine_allowances),
    Part(name="liveness", check=examine_liveness),
    Part(name="laws", check=examine_laws),
)


def examine(
    runtime: Runtime, app: Any = None, *, seconds: float = PART_SECONDS, parts: tuple[Part, ...] = PARTS
) -> list[Finding]:
    """Check every part, for about `seconds` at most; `app` adds the checks of its tasks. Raises `InvalidValue`."""
    _ = runtime.settings  # what is wrong with them is no part's finding
    looks = _looks_of(runtime)
    begun = [looks.begin(part) for part in parts]
    findings = [finding for look in begun for finding in look.findings(seconds)]
    return findings + ([] if app is None else list(examine_tasks(app)))


class _Look:
    """One part being looked at, in a thread that nobody waits for at the end of the process."""

    def __init__(self, runtime: Runtime, part: Part) -> None:
        self._runtime, self._part = runtime, part
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._run, name=f"billing-doctor-{part.name}", daemon=True)
        self.began = runtime.clock.monotonic()
        self._thread.start()

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    @property
    def failed(self) -> bool:
        return any(finding.verdict is Verdict.FAIL for finding in self._found)

    def findings(self, seconds: float) -> list[Finding]:
        """Return what was found; that it did not end, if it has not so long after its beginning."""
        self._thread.join(max(0.0, self.began + seconds - self._runtime.clock.monotonic()))
        if self._thread.is_alive():
            seen = f"what was asked is not answered within {seconds:g} s"
            return [fail(self._part.name, seen, "see which server hangs: the other parts, and its own log")]
        return self._found

    def _run(self) -> None:
        found, part = list[Finding](), self._part
        try:
            found.extend(part.check(self._runtime))
        except NotMigrated as error:
            found.append(fail(part.name, str(error), "run: billing migrate"))
        except BillingError as error:
            found.append(fail(part.name, str(error), "start the server, or mend the setting"))
        except Exception as error:
            logger.exception("billing: doctor could not look at %s", part.name)
            seen = f"could not be looked at ({type(error).__name__})"
            found.append(fail(part.name, seen, "the log has the reason: please report it"))
        self._found = found


class _Looks:
    """The last look at each part, of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = weakref.ref(runtime)
        self._lock = threading.Lock()
        self._last: dict[Check, _Look] = {}

    def begin(self, part: Part) -> _Look:
        """Look at a part, unless somebody does, or did so lately enough."""
        runtime = self._runtime()
        assert runtime is not None  # noqa: S101 - the caller has it
        with self._lock:
            last = self._last.get(part.check)
            kept = last is not None and not last.failed and runtime.clock.monotonic() - last.began < part.keep_seconds
            if last is None or not (last.runs or kept):
                last = self._last[part.check] = _Look(runtime, part)
            return last


_looks: Final[weakref.WeakKeyDictionary[Runtime, _Looks]] = weakref.WeakKeyDictionary()
_lock: Final = threading.Lock()


def _looks_of(runtime: Runtime) -> _Looks:
    with _lock:
        found = _looks.get(runtime)
        if found is None:
            found = _looks[runtime] = _Looks(runtime)
        return found
