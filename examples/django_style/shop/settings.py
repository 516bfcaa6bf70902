"""The project's settings: Celery's begin with CELERY_, billing's with CELERY_BILLING_. Addresses come from outside."""

import os

INSTALLED_APPS = ["reports"]

CELERY_BROKER_URL = os.environ["SHOP_BROKER_URL"]
CELERY_RESULT_BACKEND = os.environ["SHOP_RESULT_URL"]
CELERY_TASK_DEFAULT_QUEUE = "reports"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True

CELERY_BILLING_REDIS_URL = os.environ["SHOP_REDIS_URL"]
CELERY_BILLING_DATABASE_URL = os.environ["SHOP_DATABASE_URL"]
CELERY_BILLING_BROKER_URL = CELERY_BROKER_URL
CELERY_BILLING_RESULT_URL = CELERY_RESULT_BACKEND
# A report takes milliseconds: what a dead worker held is free again soon.
CELERY_BILLING_LEASE_SECONDS = 15
CELERY_BILLING_ON_EXHAUSTED = "fail"
