"""Parser of the messages between a client and PostgreSQL.

It parses only what shows which statement is executed and when its reply is complete:
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

from collections.abc import Iterator

#: Requests before the start-up message: SSL, GSS encryption, cancelling.
REQUESTS = {80877102, 80877103, 80877104}


class Messages:
    """Splits a stream into messages; an incomplete message waits for more bytes."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the type and body of each message that is complete now."""
        self._buffer += data
        while len(self._buffer) >= 5:
            end = 1 + int.from_bytes(self._buffer[1:5], "big")
            if len(self._buffer) < end:
                return
            message, self._buffer = self._buffer[:end], self._buffer[end:]
            yield message[:1], message[5:]


class Statements:
    """Extracts the SQL of the statements that a client executes."""

    def __init__(self) -> None:
        self._messages = Messages()
        self._start = b""
        self._started = False
        self._prepared: dict[bytes, bytes] = {}

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the SQL of each statement that these bytes complete."""
        for kind, body in self._messages.feed(self._after_start(data)):
            if kind == b"Q":
                yield body.rstrip(b"\0")
            elif kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                self._prepared[name] = text
            elif kind == b"B":
                _, name, _ = body.split(b"\0", 2)
                yield self._prepared.get(name, b"")

    def _after_start(self, data: bytes) -> bytes:
        """Remove the messages at the beginning, which have no type."""
        if self._started:
            return data
        self._start += data
        while len(self._start) >= 8 and not self._started:
            end = int.from_bytes(self._start[:4], "big")
            if len(self._start) < end:
                return b""
            self._started = int.from_bytes(self._start[4:8], "big") not in REQUESTS
            self._start = self._start[end:]
        rest, self._start = (self._start, b"") if self._started else (b"", self._start)
        return rest


class Replies:
    """Detects when the server has answered all requests."""

    def __init__(self) -> None:
        self._messages = Messages()

    def complete(self, data: bytes) -> bool:
        """Return whether these bytes complete a reply: the server is ready again."""
        return any(kind == b"Z" for kind, _ in self._messages.feed(data))
