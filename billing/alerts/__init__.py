"""Tells clients and operators that credits run out: a Celery signal and a signed webhook."""
