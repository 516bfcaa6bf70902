"""Publishes the messages of parked tasks: to the app's broker, whence they came, confirmed, mandatory, bounded in time.

Guarantee: that of `events/task_link.py`. After any error the link is thrown away; the next publish makes another.
"""

from __future__ import annotations

import celery

from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.events.confirms import Blocked, Unconfirmed
from billing.events.task_link import Refused, TaskLink
from billing.events.task_message import TaskMessage


class NotTaken(Unconfirmed):
    """The broker is well, but this message did not get into a queue: nobody else's need wait."""


class HandingOver:
    """A publisher of task messages, for one thread."""

    def __init__(self, app: celery.Celery, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._link: TaskLink | None = None

    def publish(self, message: TaskMessage) -> None:
        """Publish one message. Raises `NotTaken` where it alone is refused, else `Unreachable`."""
        # One that broke while it was idle says so at once, and is worth a new one.
        for reused in (self._link is not None, False):
            try:
                self._publish(message)
            except Blocked:
                self.close()
                raise
            except (Unconfirmed, Refused) as error:
                self.close()
                raise NotTaken(str(error)) from error
            except Unreachable:
                self.close()
                if not reused:
                    raise
            except BaseException:
                self.close()
                raise
            else:
                return

    def close(self) -> None:
        """Throw the connection away."""
        link, self._link = self._link, None
        if link is not None:
            link.throw_away()

    def _publish(self, message: TaskMessage) -> None:
        if self._link is None:
            self._link = TaskLink(self._app, self._settings)
            self._link.open()
        self._link.publish(message)
