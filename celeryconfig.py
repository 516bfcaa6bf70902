"""Celery's settings for this fleet, a reason per line. Addresses come from `BILLING_*` or the connection file."""

from beat_schedule import BEAT_SCHEDULE
from billing.integration.configuration import read_or_exit

_settings = read_or_exit()

broker_url = _settings.broker_url
result_backend = _settings.result_url

# JSON only: a pickle in a message would run code.
task_serializer = result_serializer = event_serializer = "json"
accept_content = ["json"]

# A charge follows the work, so a worker that dies must have its message redelivered, or the work is lost (L3).
task_acks_late = True
task_reject_on_worker_lost = True
# One message per child: a client's burst does not sit in one worker's memory while others are idle (L10).
worker_prefetch_multiplier = 1
# After a lost broker connection the message is redelivered: end the stale copy instead of running both.
worker_cancel_long_running_tasks_on_connection_loss = True
# The reaper reads stored results to finish what a dead worker left, so they outlive every hold.
result_expires = 2 * 86_400
# Flower shows what runs.
worker_send_task_events = True
task_send_sent_event = True
# Maintenance has its queue, served by the worker with --fulfillment.
task_routes = {"billing.*": {"queue": "billing.maintenance"}}
task_create_missing_queues = True
# RabbitMQ 4 denies transient non-exclusive queues: task queues are durable and replicated.
task_default_queue = "tasks"
broker_connection_retry_on_startup = True
# A running task gets this long to end at a soft shutdown before it is given back.
worker_soft_shutdown_timeout = 10.0
timezone = "UTC"
beat_schedule = BEAT_SCHEDULE
