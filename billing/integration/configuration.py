"""Reads the settings of a Celery app: environment, then the app's configuration, then the connection file.

A URL with a password does not stay in the app's configuration, where `celery report` and `inspect conf` would print it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import celery

from billing.connections import connection_file
from billing.core.settings import FIELDS, Settings, load, without_password

_PREFIX: Final = "billing_"


def read_settings(app: celery.Celery) -> Settings:
    """Return the app's settings, and take passwords out of its configuration. Raises `InvalidValue`."""
    configuration = _billing_keys(app)
    settings = read(configuration)
    for name in FIELDS:
        if name.endswith("_url") and _PREFIX + name in configuration:
            app.conf[_PREFIX + name] = without_password(str(configuration[_PREFIX + name]))
    return settings


def read(configuration: Mapping[str, Any]) -> Settings:
    """Return the settings of a configuration under this process's environment and connection file."""
    environment = {
        variable: value for variable, value in connection_file.read().items() if variable.lower() not in configuration
    }
    return load(configuration, environment | os.environ)


def _billing_keys(app: celery.Celery) -> dict[str, Any]:
    """Return the app's `billing_*` keys in lower case, whatever namespace its configuration uses."""
    prefix = (app.conf.prefix or "").lower()
    names = {str(key).lower().removeprefix(prefix) for key in app.conf}
    return {name: app.conf.get(name) for name in sorted(names) if name.startswith(_PREFIX)}
