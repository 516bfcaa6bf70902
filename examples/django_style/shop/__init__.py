"""The project. Whoever imports it has its Celery app as the current one, so that `shared_task` finds it."""

from shop.celery import app as celery_app

__all__ = ["celery_app"]
