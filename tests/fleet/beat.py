"""What a beat of the fleet under test is started with: `celery -A tests.fleet.beat beat`. It is seen each second."""

from __future__ import annotations

import os

from billing.integration.schedule import build_schedule
from tests.fleet.tasks import make_app

app = make_app(os.environ)
_NAME = "billing.beat.seen"
app.conf.beat_schedule = {_NAME: {**build_schedule()[_NAME], "schedule": 1.0}}
