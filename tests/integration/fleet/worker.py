"""What a worker process of the fleet under test is started with: `celery -A tests.integration.fleet.worker`."""

from __future__ import annotations

import os

from tests.integration.fleet.tasks import make_app

app = make_app(os.environ)
