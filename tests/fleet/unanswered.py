"""A worker whose result backend answers nothing, once: `celery -A tests.fleet.unanswered`.

The file `unanswered` in the directory of the fleet says how: `stored`: the success is stored, and the reply is lost;
`lost`: it is not stored either.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Final

import redis
from celery.backends.base import Backend

from tests.fleet.worker import app

__all__ = ["app"]

_PATH: Final = Path(os.environ["FLEET_DIRECTORY"]) / "unanswered"


def _cut_off(store: Any) -> Any:
    @functools.wraps(store)
    def mark_as_done(*args: Any, **kwargs: Any) -> Any:
        if not _PATH.exists():
            return store(*args, **kwargs)
        order = _PATH.read_text()
        _PATH.unlink()
        if order == "stored":
            store(*args, **kwargs)
        raise redis.ConnectionError("the reply is lost")

    return mark_as_done


setattr(Backend, "mark_as_done", _cut_off(Backend.mark_as_done))  # noqa: B010 - for the type checker
