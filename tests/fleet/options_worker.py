"""A worker whose app makes every task billable, Celery's own included: `celery -A tests.fleet.options_worker`.

Chords are joined by the task `celery.chord_unlock`, as on every result backend that cannot count them itself.
"""

from __future__ import annotations

import os
from typing import Any

import celery
from celery.backends.redis import RedisBackend

from tests.fleet.options import Sold, register
from tests.fleet.tasks import make_app

_classes: Any = celery.Celery
_classes.task_cls = Sold
_backend: Any = RedisBackend
_backend.on_chord_part_return = lambda *_, **__: None

app = make_app(os.environ)
register(app, os.environ)
