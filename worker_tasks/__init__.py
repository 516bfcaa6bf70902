"""This fleet: billable tasks that do real work. Run a worker with `celery -A worker_tasks.app worker`."""
