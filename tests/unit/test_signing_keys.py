"""Keys that sign usage events: what is taken, what is refused, and that no secret shows."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

import pytest
from celery import Celery

from billing.connections import setting_files
from billing.core.errors import InvalidValue
from billing.core.settings import FIELDS, load
from billing.core.signing_keys import SECRET_BYTES_MAX, SECRET_BYTES_MIN, SigningKey
from billing.integration.configuration import read_settings

SECRET = b"hunter2" * 5
TEXT = base64.b64encode(SECRET).decode()


def key(sender: str = "workers", secret: bytes = SECRET) -> str:
    """Return a key as a setting has it."""
    return f"{sender}:{base64.b64encode(secret).decode()}"


@pytest.mark.parametrize("length", [SECRET_BYTES_MIN, SECRET_BYTES_MAX])
def test_a_key_of_enough_bytes_is_taken(length: int) -> None:
    found = load({}, {"BILLING_SIGNING_KEY": key("shop.eu-1", bytes(length))}).signing_key
    assert found == SigningKey(sender="shop.eu-1", secret=bytes(length))


@pytest.mark.parametrize("between", [",", " ", "\n", ", ", "\n\n"])
def test_several_keys_are_told_apart_by_what_a_file_or_a_variable_has_between_them(between: str) -> None:
    both = between.join((key("one"), key("two", bytes(32))))
    found = load({"billing_signing_key": key("one")}, {"BILLING_VERIFYING_KEYS": both}).verifying_keys
    assert [each.sender for each in found] == ["one", "two"]


def test_without_keys_there_are_none() -> None:
    settings = load({"billing_signing_key": "", "billing_verifying_keys": []}, {})
    assert (settings.signing_key, settings.verifying_keys) == (None, ())


@pytest.mark.parametrize(
    "value",
    [
        TEXT,
        f":{TEXT}",
        f" a b:{TEXT}",
        f"a/b:{TEXT}",
        f"{'n' * 65}:{TEXT}",
        f"workers:{TEXT[:-3]}",
        f"workers:{TEXT[:40]}",  # 30 bytes
        f"workers:{TEXT}=",
        f"workers:{TEXT}\x00",
        "workers:",
        key(secret=bytes(SECRET_BYTES_MIN - 1)),
        key(secret=bytes(SECRET_BYTES_MAX + 1)),
        key().encode(),
        5,
    ],
)
@pytest.mark.parametrize("name", ["signing_key", "verifying_keys"])
def test_what_is_no_key_is_refused_in_one_line_without_its_secret(name: str, value: object) -> None:
    with pytest.raises(InvalidValue, match=rf"^billing_{name}: .*must be ") as refused:
        load({f"billing_{name}": [value] if name == "verifying_keys" else value}, {})
    assert TEXT[:12] not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_one_name_has_one_key() -> None:
    with pytest.raises(InvalidValue, match=r"^billing_verifying_keys: 'one:…': must be there once"):
        load({"billing_verifying_keys": [key("one"), key("one", bytes(32))]}, {})


@pytest.mark.parametrize("own", ["", key("other"), key("workers", bytes(32))])
def test_a_process_that_would_refuse_its_own_markers_is_refused(own: str) -> None:
    """L6: a consumer's process publishes recovery's markers and what the relay takes; a rebuild waits for the first."""
    with pytest.raises(InvalidValue, match=r"^billing_signing_key: .*must be set where billing_verifying_keys is"):
        load({"billing_verifying_keys": [key()], "billing_signing_key": own}, {})


def test_a_file_holds_keys_as_it_holds_passwords(tmp_path: Path) -> None:
    for name, text in (("one", f"{key()}\n"), ("all", f"{key()}\n{key('other', bytes(32))}\n")):
        (tmp_path / name).write_text(text)
    environment = {
        "BILLING_SIGNING_KEY_FILE": str(tmp_path / "one"),
        "BILLING_VERIFYING_KEYS_FILE": str(tmp_path / "all"),
    }
    found = load({}, setting_files.read(environment, FIELDS))
    assert found.signing_key is not None
    assert found.signing_key.sender == "workers"
    assert [each.sender for each in found.verifying_keys] == ["workers", "other"]


@pytest.mark.parametrize("keys", [[key(), key("other", bytes(32))], f"{key()},{key('other', bytes(32))}"])
def test_neither_a_repr_nor_the_apps_configuration_shows_a_secret(keys: object) -> None:
    """Celery's report and `inspect conf` print the configuration; the settings can be read from it all the same."""
    app = Celery("shop", broker="memory://")
    app.conf.update(billing_signing_key=key(), billing_verifying_keys=keys)
    first = read_settings(app)
    shown = repr(first) + repr(first.signing_key) + repr(first.verifying_keys)
    shown += "".join(f"{name}={value!r}" for name, value in app.conf.items()) + app.bugreport()
    for secret in (TEXT[:12], repr(SECRET), base64.b64encode(bytes(32)).decode()[:12]):
        assert secret not in shown
    assert app.conf["billing_signing_key"] == "workers:…"
    assert app.conf["billing_verifying_keys"] == "workers:…,other:…"
    assert dataclasses.asdict(read_settings(app)) == dataclasses.asdict(first)
