"""What a worker process of the fleet under test is started with: `celery -A tests.fleet.worker`."""

from __future__ import annotations

import os

from tests.fleet.tasks import make_app

app = make_app(os.environ)
