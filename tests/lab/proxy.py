"""A proxy before PostgreSQL or the broker, which loses, delays and cuts on demand.

It listens on a loopback port or a given socket, in threads of the test. Every fault is
counted, so that a test can prove that its fault took effect.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.lab.pgwire import Replies, Statements

Address = str | tuple[str, int]

CHUNK = 65536
#: Closing such a socket sends RST: the peer sees a reset, not an end.
ABRUPT = struct.pack("ii", 1, 0)


class Mode(Enum):
    """What the proxy does with the bytes it receives."""

    #: Forward everything.
    PASS = "pass"
    #: Accept connections and bytes, and forward nothing in either direction.
    BLACKHOLE = "blackhole"
    #: Reset every connection, also new ones.
    RESET = "reset"


class Proxy:
    """Forwards connections to ``target``, a unix socket's path or a host and port.

    ``counts`` has ``connections``, ``lost`` (chunks in a black hole), ``reset``,
    ``cut`` (after so many bytes), ``delayed`` and ``swallowed`` (replies).
    """

    def __init__(self, target: Address, listener: socket.socket | None = None) -> None:
        self.target = target
        self.counts: Counter[str] = Counter()
        self.mode = Mode.PASS
        self.delay = 0.0
        self._cut_after: int | None = None
        self._swallow: tuple[re.Pattern[bytes], re.Pattern[bytes]] | None = None
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.host: str = self._listener.getsockname()[0]
        self.port: int = self._listener.getsockname()[1]
        self._closed = threading.Event()
        _thread(self._accept)

    # Faults that a test asks for

    def blackhole(self) -> None:
        """Lose all bytes from now on, without any sign to either side."""
        self.mode = Mode.BLACKHOLE

    def silence(self) -> int:
        """Lose all further bytes of the current connections; return their number.

        New connections work. Only a client that waits for a reply notices.
        """
        links = self._every()
        for link in links:
            link.silent = True
        return len(links)

    def reset(self) -> None:
        """Reset all connections from now on."""
        self.mode = Mode.RESET
        for link in self._every():
            self._note("reset")
            link.close(abrupt=True)

    def heal(self) -> None:
        """Forward again; connections that lost bytes end, as TCP would end them."""
        self.mode, self.delay, self._cut_after, self._swallow = Mode.PASS, 0, None, None
        for link in self._every():
            if link.lossy:
                link.close(abrupt=True)

    def cut(self) -> int:
        """Cut the current connections, once; return how many."""
        links = self._every()
        for link in links:
            self._note("cut")
            link.close(abrupt=True)
        return len(links)

    def cut_after(self, count: int) -> None:
        """Cut the connection that sends the ``count``-th byte from now."""
        self._cut_after = count

    def swallow(self, pattern: str = "^COMMIT$", *, after: str = "") -> None:
        """Cut the connection after a statement is executed, before its reply.

        ``pattern`` is searched for in the statement, once ``after`` was in a statement
        of the same connection. It happens once for each call.
        """
        self._swallow = (re.compile(pattern.encode()), re.compile(after.encode()))

    @property
    def armed(self) -> bool:
        """Return whether a requested cut or swallowed reply is still to come."""
        return self._swallow is not None or self._cut_after is not None

    def close(self) -> None:
        """Stop listening, and end all connections."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        for link in self._every():
            link.close()

    # Forwarding

    def _note(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _every(self) -> list[_Link]:
        with self._lock:
            return list(self._links)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._note("connections")
            if self.mode is Mode.RESET:
                self._note("reset")
                _close(client, abrupt=True)
                continue
            try:
                server = _connect(self.target)
            except OSError:
                _close(client, abrupt=True)
                continue
            link = _Link(self, client, server)
            with self._lock:
                self._links.add(link)
            _thread(link.upwards)
            _thread(link.downwards)

    def forget(self, link: _Link) -> None:
        """Remove a connection that has ended."""
        with self._lock:
            self._links.discard(link)

    def loses(self, link: _Link) -> bool:
        """Wait as long as chunks are delayed; return whether they are lost instead."""
        if self.mode is Mode.BLACKHOLE or link.silent:
            self._note("lost")
            return True
        if self.delay:
            self._note("delayed")
            time.sleep(self.delay)
        return False

    def cuts(self, length: int) -> bool:
        """Return whether the client's connection is cut at this chunk."""
        with self._lock:
            if self._cut_after is None:
                return False
            self._cut_after -= length
            if self._cut_after > 0:
                return False
            self._cut_after = None
            self.counts["cut"] += 1
            return True

    def swallows(self, statement: bytes, link: _Link) -> bool:
        """Return whether the reply to this statement is swallowed."""
        with self._lock:
            if self._swallow is None:
                link.ripe = False
                return False
            pattern, after = self._swallow
            link.ripe = link.ripe or after.search(statement) is not None
            if not (link.ripe and pattern.search(statement)):
                return False
            self._swallow = None
            self.counts["swallowed"] += 1
            return True


class _Link:
    """One connection through the proxy."""

    def __init__(
        self, proxy: Proxy, client: socket.socket, server: socket.socket
    ) -> None:
        self.lossy = False
        self.silent = False
        self.ripe = False
        self._proxy = proxy
        self._client = client
        self._server = server
        self._statements = Statements()
        self._swallowing: Replies | None = None

    def upwards(self) -> None:
        """Forward bytes from the client."""
        with suppress(OSError):
            while data := self._client.recv(CHUNK):
                if self._proxy.loses(self):
                    self.lossy = True
                    continue
                if self._proxy.cuts(len(data)):
                    break
                for statement in self._statements.feed(data):
                    if self._proxy.swallows(statement, self):
                        self._swallowing = Replies()
                self._server.sendall(data)
        self.close()

    def downwards(self) -> None:
        """Forward bytes from the server."""
        with suppress(OSError):
            while data := self._server.recv(CHUNK):
                if self._swallowing is not None:
                    if self._swallowing.complete(data):
                        break
                elif self._proxy.loses(self):
                    self.lossy = True
                else:
                    self._client.sendall(data)
        self.close(abrupt=self._swallowing is not None)

    def close(self, *, abrupt: bool = False) -> None:
        """Close both sides."""
        self._proxy.forget(self)
        _close(self._client, abrupt=abrupt)
        _close(self._server)


def _thread(target: object) -> None:
    threading.Thread(target=target, name="proxy", daemon=True).start()


def _connect(target: Address) -> socket.socket:
    if isinstance(target, tuple):
        return socket.create_connection(target, timeout=None)
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(target)
    except OSError:
        server.close()
        raise
    return server


def _close(one: socket.socket, *, abrupt: bool = False) -> None:
    with suppress(OSError):
        if abrupt:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPT)
        else:
            one.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
    with suppress(OSError):
        if abrupt:
            one.shutdown(socket.SHUT_RD)
    one.close()


@contextmanager
def proxied_database(
    url: str, listener: socket.socket | None = None, **options: str
) -> Iterator[tuple[Proxy, str]]:
    """Yield a proxy before the database of ``url``, and the address through it.

    ``listener`` is a socket of another network. ``options`` are libpq's, as
    ``connect_timeout``.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    directory, port = query.pop("host", None), query.pop("port", parts.port or 5432)
    target: Address = (str(parts.hostname), int(port))
    if directory:
        target = f"{directory}/.s.PGSQL.{port}"
    with _opened(target, listener) as proxy:
        user = (parts.netloc.rpartition("@")[0] or "postgres") + "@"
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        through = parts._replace(
            netloc=f"{user}{proxy.host}:{proxy.port}",
            query=urlencode(query | plain | options),
        )
        yield proxy, through.geturl()


@contextmanager
def proxied_broker(url: str) -> Iterator[tuple[Proxy, str]]:
    """Yield a proxy before a Redis-protocol broker, and the address through it."""
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        number = dict(parse_qsl(parts.query)).get("virtual_host", "0")
        target: Address = parts.path
    else:
        number = parts.path.strip("/") or "0"
        target = (str(parts.hostname), parts.port or 6379)
    with _opened(target) as proxy:
        yield proxy, f"redis://127.0.0.1:{proxy.port}/{number}"


@contextmanager
def _opened(target: Address, listener: socket.socket | None = None) -> Iterator[Proxy]:
    proxy = Proxy(target, listener)
    try:
        yield proxy
    finally:
        proxy.close()
