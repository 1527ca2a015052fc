"""Publish wake-up messages in a thread, so that no sender waits for the broker.

A sender waits at most ``NOTIFY_TIMEOUT``, even if the broker is stopped, packets are
dropped or the name server is slow. Socket timeouts cannot guarantee that: each limits
one call on the socket, and some transports have none. So a separate thread publishes,
and the sender waits for that thread with a deadline.

After a failure, no message is sent for a while. Then one message is published as a
probe, and its sender does not wait for the result.
"""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from celery import Celery
from django.db import connections
from kombu import Connection, Producer

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.notifier import BrokerUnavailable, seconds_left

#: Seconds without messages after the first failure.
FIRST_PAUSE = 5.0
#: The pause doubles with each failed probe, up to this many seconds.
LONGEST_PAUSE = 30.0
#: The publishing thread ends after this many idle seconds.
IDLE = 10.0

#: Publishes a message through a producer.
Send = Callable[[Producer], object]


class _Job:
    """One call of ``send``, in the context of its caller."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.context = contextvars.copy_context()
        self.done = threading.Event()
        self.error: BaseException | None = None

    def end(self, error: BaseException | None = None) -> None:
        self.error = error
        self.done.set()


class Publisher:
    """Publishes in its own thread, over its own connection.

    ``connect`` creates the connection, which opens with the first message.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        #: Connections of the parent process. This process shares their sockets, so it
        #: neither uses nor closes them.
        self._inherited: list[Connection] = []
        self._connection: Connection | None = None
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        if self._connection is not None:
            self._inherited.append(self._connection)
        self._connection = None
        self._producer: Producer | None = None
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._busy = False
        # None: the broker is assumed to be reachable.
        self._probe_at: float | None = None
        self._pause = FIRST_PAUSE

    def publish(self, send: Send) -> None:
        """Call ``send`` within ``NOTIFY_TIMEOUT``.

        Raise ``BrokerUnavailable`` while the broker is assumed to be unreachable, and
        ``TimeoutError`` if publishing takes too long.
        """
        job = _Job(send)
        with self._changed:
            is_probe = self._probe_at is not None
            if is_probe and not self._probe_is_due():
                raise BrokerUnavailable
            has_thread = self._wake_thread()
            if has_thread:
                self._jobs.append(job)
            else:
                self._busy = True
        if not has_thread:
            self._process(job)
        elif is_probe:
            raise BrokerUnavailable
        else:
            self._wait(job)
        if isinstance(job.error, Exception):
            raise job.error
        if job.error is not None:  # SystemExit and the like must not end the sender
            name = type(job.error).__name__
            raise RuntimeError(f"{name} was raised while publishing.") from job.error

    def _wait(self, job: _Job) -> None:
        """Wait for a job until the deadline. Then it counts as failed."""
        seconds = max(0.0, seconds_left(settings.NOTIFY_TIMEOUT.total_seconds()))
        if job.done.wait(seconds):
            return
        with self._changed:
            if not job.done.is_set():
                job.end(TimeoutError(f"The broker did not answer in {seconds:.3g} s."))
                self._failed()

    def _probe_is_due(self) -> bool:
        """Return whether a message may be a probe now. The lock is held."""
        assert self._probe_at is not None, "the caller checked this"
        idle = not self._busy and not self._jobs
        return idle and clock.monotonic() >= self._probe_at

    def _wake_thread(self) -> bool:
        """Wake or start the thread. Return whether there is one. The lock is held."""
        if self._thread is None:
            thread = threading.Thread(
                target=self._loop, name="durable-publisher", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the program is ending, or has too many threads
                return False
            self._thread = thread
        self._changed.notify()
        return True

    def _loop(self) -> None:
        try:
            while (job := self._next()) is not None:
                self._process(job)
                del job
        finally:
            # A receiver of Celery's signals may have used the database in this thread.
            connections.close_all()

    def _next(self) -> _Job | None:
        """Return the next job, or None after ``IDLE`` seconds without a job."""
        with self._changed:
            if not self._jobs:
                self._changed.wait(IDLE)
            if not self._jobs:
                self._thread = None
                return None
            self._busy = True
            return self._jobs.popleft()

    def _process(self, job: _Job) -> None:
        error = self._publish(job)
        with self._changed:
            self._busy = False
            if error is not None:
                self._failed()
            else:
                self._probe_at, self._pause = None, FIRST_PAUSE
            if not job.done.is_set():
                job.end(error)

    def _publish(self, job: _Job) -> BaseException | None:
        """Publish. After an error, drop the connection and return the error."""
        try:
            if self._producer is None:
                self._connection = self._connect()
                self._producer = Producer(self._connection, auto_declare=False)
            job.context.run(job.send, self._producer)
        except BaseException as error:  # noqa: BLE001  # signal receivers may raise anything
            self._producer = None
            if self._connection is not None:
                with suppress(Exception):  # it is broken
                    self._connection.collect()
            self._connection = None
            return error
        return None

    def _failed(self) -> None:
        """Pause, and fail all queued jobs. The lock is held."""
        if self._probe_at is not None:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._probe_at = clock.monotonic() + self._pause
        while self._jobs:
            self._jobs.popleft().end(BrokerUnavailable())


#: All publishers of this process.
_all: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _after_fork() -> None:
    for publisher in list(_all):
        publisher._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def impatient_connection(app: Celery) -> Connection:
    """Return a connection to the app's broker with short timeouts.

    These timeouts override those that the project has set for its own messages.
    """
    seconds = settings.NOTIFY_TIMEOUT.total_seconds()
    connection = app.connection_for_write(connect_timeout=seconds)
    connection.transport_options = {
        **(connection.transport_options or {}),
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0,
        "connect_retries_timeout": seconds,
        **_socket_timeouts(connection, seconds),
    }
    return connection


def _socket_timeouts(connection: Connection, seconds: float) -> dict[str, object]:
    """Return the options that limit each call on a socket of the connection."""
    match connection.get_transport_cls().driver_type:
        case "redis":
            return {
                "socket_timeout": seconds,
                "socket_connect_timeout": seconds,
                "retry_on_timeout": False,
            }
        case "amqp":
            return {"read_timeout": seconds, "write_timeout": seconds}
    return {}
