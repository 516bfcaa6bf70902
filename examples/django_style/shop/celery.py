"""The project's Celery app, as Django's documentation and Celery's have it, and billing attached by one call."""

from celery import Celery

import billing

app = Celery("shop")
app.config_from_object("shop.settings", namespace="CELERY")
# Now, while the directory that the command was called in is on the path; with Django installed it stays there.
app.autodiscover_tasks(["reports"], force=True)
billing.setup(app)
