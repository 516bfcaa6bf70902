"""The receiver that users copy: what nobody signed is a `ValueError` and does nothing; what is, is done once."""

from __future__ import annotations

import importlib
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from standardwebhooks.webhooks import Webhook

from tests.fuzz.laws import as_text, hold, parts_of
from tests.fuzz.places import fresh_place
from tests.fuzz.target import Target

_EXAMPLE: Final = Path(__file__).parents[3] / "examples" / "webhook_receiver"
sys.path.append(str(_EXAMPLE))
_RECEIVER: Final = importlib.import_module("receiver")
_SECRET: Final = "whsec_" + "BBBB" * 8
_BODY: Final = json.dumps({"type": "billing.debt", "data": {"client_id": "acme", "owed": 5}})
_ACTED: Final[list[dict[str, Any]]] = []


@cache
def _inbox() -> tuple[Any, Path]:
    place = fresh_place() / "taken.sqlite"
    _RECEIVER.__dict__["act"] = _ACTED.append
    return _RECEIVER.Inbox(str(place), _SECRET), place


def check(data: bytes) -> None:
    """Take a message with headers and body of bytes' choice; a first byte `s` has it signed as billing does."""
    inbox, place = _inbox()
    kind, name, timestamp, signature, body = parts_of(data, 5)
    headers = {
        "webhook-id": as_text(name), "webhook-timestamp": as_text(timestamp), "webhook-signature": as_text(signature)
    }  # fmt: skip
    signed = kind.startswith(b"s")
    if signed:
        now = datetime.now(UTC)
        body = _BODY.encode()
        sign = Webhook(_SECRET).sign("fuzz", now, _BODY)
        headers = {"webhook-id": "fuzz", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": sign}
    with closing(sqlite3.connect(place)) as books:
        (before,) = books.execute("SELECT count(*) FROM taken").fetchone()
        _ACTED.clear()
        try:
            said = inbox.take(headers, body)
        except ValueError:
            hold(that=not signed, but="what billing signed was refused")
            said = "refused"
        (after,) = books.execute("SELECT count(*) FROM taken").fetchone()
    hold(that=signed or said == "refused", but=("taken without a signature", headers, body))
    hold(that=len(_ACTED) == after - before == (said == "taken"), but=(said, len(_ACTED), before, after))


def seeds() -> Iterator[bytes]:
    """Yield signed messages and forgeries."""
    yield b"s"
    yield b"f\xffmsg_1\xff1795305600\xffv1,AAAA\xff" + _BODY.encode()
    yield b"f\xffmsg_1\xffnan\xffv1,\xff{}"
    yield b"f\xff\xff-1\xffv1a v2,= v1,===\xff"
    yield b"f\xff\xff1e400\xff\xff\x00"


TARGET = Target(check=check, seeds=seeds, words=(b"v1,", b"\xff", b"s", b"v1a,", b" v1,"))
