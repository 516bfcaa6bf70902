"""Reads the settings of a Celery app: environment, then the app's configuration, then the connection file.

A URL with a password, an API key, or a signing key does not stay in the app's configuration, where `celery report` and
`inspect conf` would print it.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from typing import Any, Final

import celery

from billing.connections import connection_file, setting_files
from billing.core.errors import InvalidValue
from billing.core.settings import FIELDS, Settings, load, without_password
from billing.core.signing_keys import showable

_PREFIX: Final = "billing_"
_API_KEY: Final = "billing_stripe_api_key"
_SIGNING: Final = frozenset({"billing_signing_key", "billing_verifying_keys"})
#: What is shown of an API key: its kind, as sk_test_.
_KIND_LENGTH: Final = 8

#: What was taken out of an app's configuration: setting → what is shown there now, and what it was.
_hidden: Final[weakref.WeakKeyDictionary[celery.Celery, dict[str, tuple[str, str]]]] = weakref.WeakKeyDictionary()


def read_settings(app: celery.Celery) -> Settings:
    """Return the app's settings, and take passwords out of its configuration. Raises `InvalidValue`."""
    settings = read(_billing_keys(app))
    hide_passwords(app)
    return settings


def hide_passwords(app: celery.Celery, conf: Any = None) -> None:
    """Take passwords out of the app's configuration, remembering them for whoever reads the settings again.

    What hides them is a change on top of the configuration: its source, which other apps may share, stays as it is.
    """
    conf = _loaded(app) if conf is None else conf
    hidden = _hidden.setdefault(app, {})
    for key, name in _our_keys(conf):
        value = conf.get(key)
        if value and hidden.get(name, ("", ""))[0] != value:
            shown = _shown(name, value)
            if shown != value:
                hidden[name] = shown, value
                conf[key] = shown


def read(configuration: Mapping[str, Any]) -> Settings:
    """Return the settings of a configuration under this process's environment and connection file.

    What `BILLING_X_FILE` names counts as `BILLING_X` does.
    """
    environment = {
        variable: value for variable, value in connection_file.read().items() if variable.lower() not in configuration
    }
    return load(configuration, environment | os.environ | setting_files.read(os.environ, FIELDS))


def read_or_exit() -> Settings:
    """Return the settings of this process's environment and connection file, or end it with one line.

    For a configuration module: what it raises while Celery imports it would come out as a traceback.
    """
    try:
        return read({})
    except InvalidValue as error:
        message = f"billing: {error}"
        raise SystemExit(message) from error


def _billing_keys(app: celery.Celery) -> dict[str, Any]:
    """Return the app's `billing_*` keys in lower case, whatever namespace its configuration uses, and unhidden."""
    conf = _loaded(app)
    hidden = _hidden.get(app, {})
    found: dict[str, Any] = {}
    for key, name in _our_keys(conf):
        value = conf.get(key)
        shown, real = hidden.get(name, (None, None))
        found[name] = real if shown is not None and value == shown else value
    return found


def _loaded(app: celery.Celery) -> Any:
    """Return the app's configuration. Celery loads it at the first access to a key, not when its keys are listed."""
    app.conf.get("broker_url")
    return app.conf


def _our_keys(conf: Any) -> list[tuple[str, str]]:
    """Return the `billing_*` keys of a configuration as they are written there, each with its setting's name."""
    prefix = (conf.prefix or "").lower()
    names = ((str(key), str(key).lower().removeprefix(prefix)) for key in conf)
    return sorted((key, name) for key, name in names if name.startswith(_PREFIX))


def _shown(name: str, value: Any) -> Any:
    """Return what may be shown of a setting: itself, unless it may hold a secret."""
    if name in _SIGNING:
        return showable(value)
    if not isinstance(value, str):
        return value
    if name == _API_KEY:
        return f"{value[:_KIND_LENGTH]}…"
    return _showable(value) if "://" in value else value


def _showable(url: str) -> str:
    try:
        return without_password(url)
    except ValueError:  # it is refused when the settings are read; until then nothing of it is shown
        return "…"
