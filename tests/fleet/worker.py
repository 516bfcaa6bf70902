"""What a worker process of the fleet under test is started with: `celery -A tests.fleet.worker`."""

from __future__ import annotations

import os
from pathlib import Path

from tests.fleet import admissions, alerts, deliveries
from tests.fleet.tasks import make_app

app = make_app(os.environ)
alerts.connect(Path(os.environ["FLEET_DIRECTORY"]))
deliveries.add_tasks(app, Path(os.environ["FLEET_DIRECTORY"]))
if admissions.VARIABLE in os.environ:
    admissions.connect(Path(os.environ["FLEET_DIRECTORY"]))
