"""What a command works with: the settings of an app, or of the environment and the connection file."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from billing.core.errors import BillingError, InvalidValue
from billing.core.settings import Settings
from billing.integration.configuration import read, read_settings


def settings() -> Settings:
    """Return the settings of this call: of `-A` where it is given, else of the environment and the connection file."""
    # First, since the configuration module of an app may end the process over a bad variable.
    without_app = read({})
    app = find_app()
    return without_app if app is None else read_settings(app)


def find_app() -> Any:
    """Return the Celery app of this call, or None. Raises `InvalidValue` for one that cannot be imported."""
    app = click.get_current_context().meta.get("billing.app")
    if not isinstance(app, str):
        return app
    # As the celery command does: an app is looked for in the working directory first.
    sys.path.insert(0, str(Path.cwd()))
    try:
        from celery.app.utils import find_app as celery_find_app  # noqa: PLC0415 - slow, and rarely needed

        found = celery_find_app(app, imp=importlib.import_module)
    except BillingError:
        raise
    except Exception as error:  # a module of the user's may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InvalidValue("--app", app, f"cannot be imported: {reason}") from error
    if not hasattr(found, "conf"):
        raise InvalidValue("--app", app, f"must be a Celery app, is of type {type(found).__name__}")
    return found
