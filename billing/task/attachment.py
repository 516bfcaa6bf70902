"""Which app is billed by what: `billing.setup(app)` attaches, a task finds its lifecycle here."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import celery

from billing.connections.per_process import PerProcess
from billing.core.errors import Fatal
from billing.task.lifecycle import Lifecycle
from billing.task.runtime import Runtime


class Attachment:
    """An app's runtime, and its lifecycle: one per process, made anew after a fork."""

    def __init__(self, runtime: Runtime, make: Callable[[Runtime], Lifecycle] = Lifecycle) -> None:
        self.runtime = runtime
        #: Whether this process is a fulfillment worker, which writes the log.
        self.fulfills = False
        self._lifecycle = PerProcess(lambda: make(runtime))

    @property
    def lifecycle(self) -> Lifecycle:
        """Return this process's lifecycle."""
        return self._lifecycle.get()

    @property
    def lifecycle_if_used(self) -> Lifecycle | None:
        """Return this process's lifecycle, or None when nothing was billed in it."""
        return self._lifecycle.made


_attachments: weakref.WeakKeyDictionary[celery.Celery, Attachment] = weakref.WeakKeyDictionary()
#: What bills for all apps instead, under test; the last one counts.
_instead: list[Attachment] = []


def attach(app: celery.Celery, runtime: Runtime) -> Attachment:
    """Make `runtime` the one that bills for `app`."""
    attachment = Attachment(runtime)
    _attachments[app] = attachment
    return attachment


def is_attached(app: celery.Celery) -> bool:
    """Return whether `billing.setup(app)` was called."""
    return app in _attachments


def attachment_of(app: celery.Celery) -> Attachment:
    """Return the app's attachment, or raise `Fatal` when `billing.setup(app)` was not called."""
    attachment = _attachments.get(app)
    if attachment is None:
        message = f"app {app.main!r}: bills nothing yet: call billing.setup(app) where the app is made"
        raise Fatal(message)
    return _instead[-1] if _instead else attachment


def all_attachments() -> list[Attachment]:
    """Return the attachments of every app of this process."""
    return _instead[-1:] or list(_attachments.values())


@contextmanager
def bill_instead(attachment: Attachment) -> Iterator[None]:
    """Bill by one attachment for every app that is set up, and for what has none: for tests."""
    _instead.append(attachment)
    try:
        yield
    finally:
        _instead.remove(attachment)
