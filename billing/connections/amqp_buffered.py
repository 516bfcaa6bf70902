"""A RabbitMQ connection that reads from its socket in larger pieces.

py-amqp asks the kernel nine times for each message, exactly as many bytes as it needs next, and with a timeout each
of these is two calls and a release of the interpreter's lock. Here one call brings several messages. Over TLS nothing
changes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from amqp.transport import TCPTransport
from kombu.transport import pyamqp

#: Some messages; small enough that cutting one off the front costs nothing.
READ_BYTES: Final = 8_192


class BufferedTransport(TCPTransport):
    """TCP, with a buffer. What was read and not used stays in the buffer that py-amqp has for reads cut short."""

    _read_buffer: bytes
    _quick_recv: Callable[[int], bytes]

    def _read(self, n: int, initial: bool = False) -> bytes:  # noqa: FBT001, FBT002 -- py-amqp's signature
        """Return exactly `n` bytes, reading ahead."""
        buffer = self._read_buffer
        while len(buffer) < n:
            try:
                piece = self._quick_recv(max(READ_BYTES, n - len(buffer)))
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EINTR):
                    if initial and self.raise_on_initial_eintr:
                        raise TimeoutError from error
                    continue
                raise
            if not piece:
                message = "Server unexpectedly closed connection"
                raise OSError(message)
            # Kept at once: when the next read times out, nothing that has come is lost.
            buffer = self._read_buffer = buffer + piece
        self._read_buffer = buffer[n:]
        return buffer[:n]


class Connection(pyamqp.Connection):
    """A connection over that transport."""

    def Transport(self, host: str, connect_timeout: float | None, ssl: Any = False, *rest: Any, **options: Any) -> Any:  # noqa: FBT002, N802 -- py-amqp's
        """Return the transport for a server."""
        if ssl:
            return super().Transport(host, connect_timeout, ssl, *rest, **options)
        names = ("read_timeout", "write_timeout")
        given = dict(zip(names, rest, strict=False)) | options
        return BufferedTransport(host, connect_timeout=connect_timeout, **given)


class Transport(pyamqp.Transport):
    """Kombu's transport with that connection."""

    Connection = Connection
