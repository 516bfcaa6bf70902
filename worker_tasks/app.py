"""The fleet's Celery app: plain Celery, with billing attached by one call."""

from __future__ import annotations

from celery import Celery

import billing

app = Celery("worker_tasks", include=["worker_tasks.capture", "worker_tasks.search"])
app.config_from_object("celeryconfig")
billing.setup(app)
