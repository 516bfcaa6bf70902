"""What a worker of the matrix is started with: `celery -A tests.endings.worker`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.endings import noting, tasks
from tests.endings.worker_options import CONFIGURATION
from tests.fleet import admissions
from tests.fleet.tasks import make_app

app = make_app(os.environ)
app.conf.update(json.loads(os.environ.get(CONFIGURATION, "{}")))
directory = Path(os.environ["FLEET_DIRECTORY"])
tasks.add(app, directory)
tasks.add_kill_points(directory)
admissions.connect(directory)
noting.connect(directory)
