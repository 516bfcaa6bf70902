"""A setting from anywhere is its parsed value, or one line that names key and rule and shows no password."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final

from billing.core.errors import InvalidValue
from billing.core.settings import FIELDS, Settings, load, without_password
from billing.core.signing_keys import SigningKey
from tests.fuzz.laws import SECRET, as_json, as_text, hold, parts_of, refusing
from tests.fuzz.target import Target

_NAMES: Final = tuple(FIELDS)
_SECRET_ONES: Final = frozenset(name for name, field in FIELDS.items() if not field.repr)


def check(data: bytes) -> None:
    """Read bytes as a setting's number, its text in the environment, its JSON as a Python value, an unknown key."""
    number, text, value, key = parts_of(data, 4)
    name = _NAMES[(number[0] if number else 0) % len(_NAMES)]
    variable = f"BILLING_{name.upper()}"
    given = as_text(text)
    _check(name, {}, {variable: given})
    _check(name, {f"billing_{name}": as_json(value)}, {})
    with refusing():
        load({f"billing_{as_text(key)}": given}, {})


def _check(name: str, configuration: dict[str, object], environment: dict[str, str]) -> None:
    given = [*configuration.values(), *environment.values()][0]
    # Elsewhere a password has no place, and a value is shown, so that its mistake can be seen.
    if name not in _SECRET_ONES and SECRET in repr(given):
        return
    # What stands before :// is shown as the scheme that was typed.
    with refusing(secret=SECRET not in str(given).partition("://")[0] or "://" not in str(given)):
        settings = load(configuration, environment)
        hold(that=SECRET not in repr(settings), but=settings)
        found = getattr(settings, name)
        if name.endswith("_url"):
            hold(that=SECRET not in without_password(found) or f":{SECRET}@" not in found, but=found)
        _check_again(name, found, settings)


def _check_again(name: str, found: object, settings: Settings) -> None:
    """Raise unless what was parsed, written as a variable, is parsed to the same."""
    environment = {f"BILLING_{name.upper()}": _written(found)}
    if name == "stripe_api_key" and settings.stripe_live:
        environment["BILLING_STRIPE_LIVE"] = "true"
    try:
        again = load({}, environment)
    except InvalidValue as error:
        hold(that=False, but=("is taken, and refused when it is written out", found, str(error)))
    else:
        hold(that=getattr(again, name) == found, but=(found, again))


def _written(found: object) -> str:
    match found:
        case None:
            return ""
        case tuple():
            return ",".join(map(_written, found))
        case SigningKey():
            return f"{found.sender}:{base64.b64encode(found.secret).decode()}"
        case _:
            return str(found)


def seeds() -> Iterator[bytes]:
    """Yield every default, and URLs with passwords."""
    for number, field in enumerate(FIELDS.values()):
        default = field.default
        text = _written(default)
        yield bytes([number]) + b"\xff" + text.encode() + b"\xff5\xffshards"
        if field.name.endswith("_url"):
            for url in (f"redis://u:{SECRET}@h:1/0", f"postgresql://u:{SECRET}@h/x", f"amqp://u:{SECRET}@h:1//"):
                yield bytes([number]) + b"\xff" + url.encode() + b'\xff"redis://h"\xffredis_ulr'
    key = b"worker-1:" + base64.b64encode(bytes(range(32)))
    for name, written in (("signing_key", key), ("verifying_keys", key + b", " + key.replace(b"-1", b"-2"))):
        yield bytes([_NAMES.index(name)]) + b"\xff" + written + b'\xff["' + key + b'"]\xffsigning_kye'
    yield bytes([_NAMES.index("redis_url")]) + f"\xffredis+sentinel://u:{SECRET}@a:1,b:2/main/0".encode("latin-1")


TARGET = Target(
    check=check, seeds=seeds, words=(b"\xff", b"redis+cluster://", b"rediss+sentinel://", b"[::1]:", b"unix://")
)
