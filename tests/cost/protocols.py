"""Reads what a client and a server say to each other, as it passes, and counts it: one class per protocol. No I/O.

Each counts the bytes both ways. What a connection begins with is no command and no statement of anybody's work: how
many connections a pool opens is a matter of time.
"""

from __future__ import annotations

import collections
import re
import struct
from typing import Final

import hiredis


class Speech:
    """What is said on one connection."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()

    def passing(self, data: bytes, *, to_server: bool) -> None:
        """Count bytes that pass, and what they say."""
        self.counts["bytes_sent" if to_server else "bytes_received"] += len(data)
        if to_server:
            self.said(data)
        else:
            self.heard(data)

    def said(self, data: bytes) -> None:
        """Read on in what the client says."""

    def heard(self, data: bytes) -> None:
        """Read on in what the server says."""


_MORE: Final = object()
_GREETINGS: Final = (b"HELLO", b"AUTH", b"CLIENT", b"SELECT")
#: How such a command begins on the wire.
GREETING: Final = re.compile(rb"\*\d+\r\n\$\d+\r\n(?:" + b"|".join(_GREETINGS) + rb")\r\n")


class Redis(Speech):
    """Commands. Their round trips are counted where they are sent (`wires`)."""

    def __init__(self) -> None:
        super().__init__()
        self._asked = hiredis.Reader(notEnoughData=_MORE)

    def said(self, data: bytes) -> None:
        """Count commands."""
        self._asked.feed(data)
        while (command := self._asked.gets()) is not _MORE:
            self.counts["commands"] += command[0] not in _GREETINGS


class Messages:
    """Cuts bytes into messages of a type, a length that counts itself, and a body, as PostgreSQL has them."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Return the messages that are whole by now."""
        found, text = [], self._left + data
        while len(text) >= 5 and len(text) >= (end := 1 + struct.unpack_from(">i", text, 1)[0]):
            found.append((text[:1], text[5:end]))
            text = text[end:]
        self._left = text
        return found


_PROTOCOL_3: Final = 196_608


class Postgres(Speech):
    """Statements that were carried out, COMMIT and its like among them, and transactions that were committed.

    A round trip is a moment when the server waits for its client: it is ready for the next query, or for COPY's data.
    """

    def __init__(self) -> None:
        super().__init__()
        self._first = b""
        self._has_begun = self._is_ready = False
        self._messages = Messages()

    def said(self, data: bytes) -> None:
        """Wait for the client's greeting: questions for encryption before it are answered by one byte each."""
        if not self._has_begun:
            self._first += data
            while len(self._first) >= 8:
                length, code = struct.unpack_from(">ii", self._first)
                if len(self._first) < length:
                    return
                self._has_begun = code == _PROTOCOL_3
                self._first = self._first[length:]

    def heard(self, data: bytes) -> None:
        """Count what is done."""
        if not self._has_begun:
            return
        for kind, body in self._messages.feed(data):
            if kind == b"C":
                self.counts["statements"] += 1
                self.counts["commits"] += body.startswith(b"COMMIT")
            self.counts["round_trips"] += self._is_ready and kind in b"ZG"
            self._is_ready |= kind == b"Z"


_PUBLISH: Final = b"\x00\x3c\x00\x28"
_FRAME_END: Final = 8
_HEARTBEAT: Final = 8
_METHOD: Final = 1


class Amqp(Speech):
    """Frames both ways but for heartbeats, whose number is a matter of time, and publishes."""

    def __init__(self) -> None:
        super().__init__()
        self._left = {True: b"", False: b""}

    def passing(self, data: bytes, *, to_server: bool) -> None:
        """Cut into frames; count them, their bytes, and what is published."""
        text = self._left[to_server] + data
        if to_server and text.startswith(b"AMQP"):
            text = text[8:]
        while len(text) >= 7:
            kind, size = text[0], struct.unpack_from(">i", text, 3)[0]
            if len(text) < size + _FRAME_END:
                break
            if kind != _HEARTBEAT:
                side = "sent" if to_server else "received"
                self.counts[f"frames_{side}"] += 1
                self.counts[f"bytes_{side}"] += size + _FRAME_END
                self.counts["publishes"] += kind == _METHOD and text[7:11] == _PUBLISH
            text = text[size + _FRAME_END :]
        self._left[to_server] = text


_REQUEST: Final = re.compile(rb"(?:GET|POST|DELETE) /\S* HTTP/1\.1\r\n")


class Http(Speech):
    """Requests. Of bytes nothing is said: dates and the SDK's own headers are among them."""

    def passing(self, data: bytes, *, to_server: bool) -> None:
        """Count requests."""
        if to_server:
            self.counts["requests"] += len(_REQUEST.findall(data))
