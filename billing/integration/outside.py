"""`billing.reserve` and `billing.quote`: which app's settings count in this process, and what it owes at its end.

Those of the app that billing was set up on; where there is none, those of the environment. Nothing connects until a
block is entered or a quote is asked for.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import celery

from billing.core.errors import Fatal
from billing.integration.configuration import read
from billing.task import quoting
from billing.task.attachment import Attachment, all_attachments, attachment_of, is_attached
from billing.task.block import Block
from billing.task.outside import Order
from billing.task.quoting import Quote
from billing.task.runtime import Runtime


def reserve(
    client_id: str,
    sku: str,
    quantity: int = 1,
    *,
    reserve: int | Mapping[str, int] | None = None,
    key: str | None = None,
    app: celery.Celery | None = None,
) -> Block:
    """Bill a block of code that is no task: `with billing.reserve("acme", "page", 3) as run: …`; `async with` too.

    The credits are held before the block begins, charged when it ends well, given back when it raises. `quantity` is
    charged unless `run.record(quantity=…)` or `billing.usage.record(…)` says what was used; `reserve` is the most it
    may use, when that is more: a whole number, or a mapping of SKU to quantity.

    With a `key` the client is charged for it once, for ever: the block does not begin a second time once it was
    charged, that raises `AlreadyCharged`. The key is no lock: two that are in the block at once both do the work,
    and one charge is made. Without a key each block is a run of its own.

    Raises before the block begins, and holds nothing: `InsufficientCredits`, `ClientInactive`, `UnknownClient`,
    `UnknownSku`, `InvalidValue`, `Conflict` (the key is in use for another SKU), `Recovering`, `OutboxFull`. And
    `Unreachable`: where it was the answer that was lost, the credits are held until the lease ends.
    """
    order = Order(client_id=client_id, sku=sku, quantity=quantity, most=reserve, key=key)
    return Block(lambda: _attachment(app).lifecycle, order)


def quote(
    client_id: str,
    sku: str,
    quantity: int = 1,
    *,
    reserve: int | Mapping[str, int] | None = None,
    app: celery.Celery | None = None,
) -> Quote:
    """Return what `reserve` with the same arguments would cost, and whether it would be admitted now.

    Changes nothing and promises nothing. That the client cannot pay, is suspended or closed, or would have to wait for
    the broker is an answer; anything else is raised as by `reserve`. A billable task answers for its own calls:
    `task.quote("acme", …)`.
    """
    order = Order(client_id=client_id, sku=sku, quantity=quantity, most=reserve, key=None)
    return quoting.quote(_attachment(app).runtime, order)


#: For a process in which billing is set up on no app: a script, a notebook, a web process without Celery.
_environment: Final = Attachment(Runtime(lambda: read({})))


def _attachment(app: celery.Celery | None) -> Attachment:
    """Return what bills here. Raises `Fatal` where several apps are set up and none of them is meant."""
    _pay_at_exit(os.getpid())
    if app is not None:
        return attachment_of(app)
    attached = all_attachments()
    if len(attached) > 1:
        proxy: Any = celery.current_app
        current = proxy._get_current_object()  # noqa: SLF001 - the app behind the proxy
        if not is_attached(current):
            raise Fatal(f"app: billing is set up on {len(attached)} apps of this process: say which: app=…")
        return attachment_of(current)
    return attached[0] if attached else _environment


@functools.cache
def _pay_at_exit(process: int) -> None:  # noqa: ARG001 - once for each process that bills, forked ones too
    atexit.register(_pay)
    # Not imported by anybody else here; in a child that it made it is there.
    process_module = sys.modules.get("multiprocessing.process")
    if process_module is not None and process_module.parent_process() is not None:
        # Forked, it ends without what `atexit` knows.
        from multiprocessing.util import Finalize  # noqa: PLC0415 - see above

        Finalize(None, _pay, exitpriority=0)


def _pay() -> None:
    """Make the charges that still wait for Redis, as a worker does at its end; a script has nobody else for it (L3)."""
    for attachment in [*all_attachments(), _environment]:
        lifecycle = attachment.lifecycle_if_used
        if lifecycle is not None:
            lifecycle.close()
    _environment.runtime.close()
