"""A scripted remote app: each request gets the next response, byte by byte."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from durable_jobs import clock
from durable_jobs.remote import signing

SDK = {
    "x-inngest-sdk": "inngest-test:v1",
    "x-inngest-req-version": "2",
    "content-type": "application/json",
}

#: Called with the connection, which is closed afterwards.
Answer = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Request:
    """A received request."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The decoded body."""
        return json.loads(self.raw)


def http(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Answer:
    """Return a response with a whole body."""
    found = {"content-length": str(len(body)), "connection": "close", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in found.items())
    return lambda peer: peer.sendall(
        f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body
    )


def json_reply(status: int, value: Any, **headers: str) -> Answer:
    """Return a response as an SDK does."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return http(status, json.dumps(value).encode(), {**SDK, **named})


def signed(key: str, status: int, value: Any, **headers: str) -> Answer:
    """Return a signed response, at the time of the test."""
    raw = json.dumps(value).encode()
    signature = signing.signature(raw, key, int(clock.now().timestamp()))
    return http(status, raw, {**SDK, signing.HEADER: signature, **headers})


def returns(value: Any) -> Answer:
    """Return a response that ends the function."""
    return json_reply(200, value)


def op(kind: str, name: str, **more: Any) -> dict[str, Any]:
    """Return a step as an SDK reports it."""
    known = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    shown = {"displayName": name, "userland": {"id": name, "index": None}}
    return {"op": kind, "id": known, **shown, **more}


def at(*ops: dict[str, Any], **headers: str) -> Answer:
    """Return a response in which the function has reached these steps."""
    return json_reply(206, list(ops), **headers)


def ran(name: str, data: Any) -> Answer:
    """Return a response in which the function has run a step."""
    return at(op("StepRun", name, data=data))


def reset(after: bytes) -> Answer:
    """Send some bytes and reset the connection, as a crashing machine does."""

    def answer(peer: socket.socket) -> None:
        peer.sendall(after)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


class Elsewhere:
    """The app: the requests it received, and its remaining responses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self._answers: list[Answer] = []
        self._by_step: dict[str, Answer] = {}

    def answers(self, *answers: Answer) -> None:
        """Respond to the next requests in this order."""
        self._answers += answers

    def runs(self, name: str, answer: Answer) -> None:
        """Respond to each request for a planned step in this way."""
        self._by_step[op("", name)["id"]] = answer

    @property
    def left(self) -> int:
        """The number of unused responses."""
        return len(self._answers)

    def serve(self, peer: socket.socket) -> None:
        """Respond to one request."""
        with peer:
            request = _read(peer)
            self.requests.append(request)
            planned = self._by_step.get(request.query.get("stepId", ""))
            answer = planned or self._answers.pop(0)
            try:
                answer(peer)
            except OSError:
                return  # the client has gone


def _read(peer: socket.socket) -> Request:
    stream = peer.makefile("rb")
    target = stream.readline().decode().split(" ")[1]
    headers: dict[str, str] = {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0")))
    query = {k: v[0] for k, v in parse_qs(urlsplit(target).query).items()}
    return Request(headers, query, body)


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """Yield an app that listens inside the block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        app = Elsewhere(f"http://127.0.0.1:{server.getsockname()[1]}/api/inngest")
        threads: list[threading.Thread] = []

        def listen() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=app.serve, args=(peer,)))
                threads[-1].start()

        listener = threading.Thread(target=listen)
        listener.start()
        yield app
        server.shutdown(socket.SHUT_RDWR)
    listener.join()
    for thread in threads:
        thread.join()
