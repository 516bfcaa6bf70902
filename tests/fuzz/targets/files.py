"""What a setting's file holds is the setting or one line without it; a connection file that is none is no file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from billing.connections import connection_file, setting_files
from tests.fuzz.laws import as_text, hold, parts_of, refusing
from tests.fuzz.nasty import SECRETS
from tests.fuzz.places import fresh_place
from tests.fuzz.target import Target


@cache
def _place() -> Path:
    return fresh_place()


def check(data: bytes) -> None:
    """Read bytes as the content of both files, and as the path of one."""
    path = _place() / "file"
    content, name = parts_of(data, 2)
    path.write_bytes(content)
    with refusing(secret=True):
        found = setting_files.read({"BILLING_DATABASE_URL_FILE": str(path)}, ("database_url",))
        value = found["BILLING_DATABASE_URL"]
        hold(that=bool(value.strip()) and len(value) <= setting_files.SIZE_LIMIT_BYTES, but=len(value))
        hold(that=content.decode().replace("\r\n", "\n").replace("\r", "\n").startswith(value), but=value)
    # What begins at the root may be a device that never ends.
    if name and not name.startswith(b"/") and b".." not in name:
        with refusing():
            setting_files.read({"BILLING_SHARDS_FILE": f"{path}/{as_text(name)}"}, ("shards",))
    variables = connection_file.read(path)
    hold(
        that=all(key.startswith("BILLING_") and isinstance(text, str) for key, text in variables.items()), but=variables
    )
    connection_file.remove(_copied(path))


def _copied(path: Path) -> Path:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    return copy


def seeds() -> Iterator[bytes]:
    """Yield a URL, and connection files of this process and of others."""
    yield from SECRETS
    yield b"postgresql://billing@db/billing\r\n\xffshards"
    written = connection_file.write({"BILLING_SHARDS": "64"}, _place() / "seed")
    yield written.read_bytes()
    yield json.dumps({"pid": os.getpid(), "started": "", "variables": {"BILLING_X": 5, "y": "z"}}).encode()
    yield json.dumps({"pid": 10**30, "variables": {}}).encode()
    yield b"[" * 60_000


TARGET = Target(
    check=check, seeds=seeds, words=(b'"pid":', b'"variables":{', b'"started":', *SECRETS), length_max=70_000
)
