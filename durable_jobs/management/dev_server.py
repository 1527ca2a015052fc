"""Web, worker and beat inside one process, for development and demonstrations.

Each is a thread with ``start()`` and ``stop()``. In production they are processes of
their own, started as in any other project with Celery.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from celery import Celery
from celery.beat import EmbeddedService, Scheduler
from celery.worker import state
from django.apps import apps
from django.conf import settings as django_settings
from django.core.servers.basehttp import (
    ThreadedWSGIServer,
    WSGIRequestHandler,
    get_internal_wsgi_application,
)

from durable_jobs import notifier
from durable_jobs.conf import settings
from durable_jobs.worker import shutdown
from durable_jobs.worker.celery_app import install_beat
from durable_jobs.worker.celery_tasks import CeleryNotifier
from durable_jobs.worker.queues import own_queues
from durable_jobs.worker.watchdog import Watchdog

#: A broker inside the process: it needs no service, and nobody else hears it.
MEMORY = "memory://localhost/"
POLLING = {"polling_interval": 0.05}
#: How many seconds are given to reach the broker, and to what is executed to rest.
START = 5.0
GRACE = 8.0


class Service(Protocol):
    """Something that runs in the background until it is stopped."""

    def start(self) -> None:
        """Begin; return when it is at work."""

    def stop(self) -> bool:
        """End; tell whether all of it has come to rest."""


def choose_broker(app: Celery, *, memory: bool = False) -> str:
    """Return the address of the app's broker, one in memory when it names none.

    Celery's own fallback, a RabbitMQ on this machine, is what nobody asked for. A
    broker that the host names is used, unless ``memory`` overrules it.
    """
    if memory or not app.conf.broker_read_url:
        app.conf.update(
            broker_url=MEMORY,
            broker_read_url=MEMORY,
            broker_write_url=MEMORY,
            broker_transport_options=POLLING,
        )
    connection = app.connection_for_read()
    address = connection.as_uri()
    # Kombu hides a password also where there is none.
    return str(address if connection.password else address.replace(":**@", ""))


class Web:
    """Django's development server."""

    def __init__(self, address: str = "127.0.0.1", port: int = 8000) -> None:
        self._place = (address, port)
        self._server: ThreadedWSGIServer | None = None

    @property
    def url(self) -> str:
        """Where it serves; known once it has started."""
        assert self._server is not None, "it was started"
        host, port = self._server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{shown}:{port}/"

    def bind(self) -> None:
        """Take the port; raise ``OSError`` when that is not possible."""
        ipv6 = ":" in self._place[0]
        self._server = ThreadedWSGIServer(self._place, WSGIRequestHandler, ipv6=ipv6)

    def start(self) -> None:
        """Take the port, if that is not done, and serve."""
        if self._server is None:
            self.bind()
        assert self._server is not None, "it was bound"
        handler: Any = get_internal_wsgi_application()
        if django_settings.DEBUG and apps.is_installed("django.contrib.staticfiles"):
            from django.contrib.staticfiles.handlers import StaticFilesHandler

            handler = StaticFilesHandler(handler)
        self._server.set_app(handler)
        threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="web",
            daemon=True,
        ).start()

    def stop(self) -> bool:
        """Accept no more requests."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        return True


class Worker:
    """A Celery worker with a pool of threads, which serves every durable queue.

    The wake-ups of all queues go through one of its own: also those of queues that a
    step alone names, and that nobody knows before it is met.
    """

    def __init__(self, app: Celery, concurrency: int = 4) -> None:
        self.app = app
        self._concurrency = concurrency
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._patrol: Watchdog | None = None

    @property
    def ready(self) -> bool:
        """Tell whether it has begun to consume."""
        return self._ready.is_set()

    def queues(self) -> Sequence[str]:
        """Return the queues to consume: the host's and ours."""
        return sorted({*self.app.amqp.queues.consume_from, *own_queues()})

    def start(self) -> None:
        """Start consuming; return when it does, or the broker lets it wait."""
        self.app.finalize()
        notifier.install(CeleryNotifier(channel=settings.QUEUE))
        # Not celery.apps.worker: as a program it would take over signals and logging,
        # which belong to the main thread and to the host.
        controller = self.app.WorkController(
            pool="threads",
            concurrency=self._concurrency,
            queues=self.queues(),
            ready_callback=lambda consumer: self._ready.set(),
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
        )
        self._thread = threading.Thread(
            target=self._work, args=(controller,), name="worker", daemon=True
        )
        self._thread.start()
        self._ready.wait(START)
        # It ends with this program, whatever it hears: it only leaves its heartbeat.
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._patrol = Watchdog(self.queues(), lambda: False, lambda: None, name)
        self._patrol.start()

    def _work(self, controller: Any) -> None:
        self.app.set_current()
        controller.start()

    def stop(self) -> bool:
        """Begin no further step, and wait a little for those that were begun."""
        if self._thread is None:
            return True
        if self._patrol is not None:
            self._patrol.stop()
        shutdown.request()
        state.should_stop = 0  # type: ignore[assignment]  # the stubs know its first value
        notifier.notify_now(settings.QUEUE)  # it may be waiting for a message
        self._thread.join(GRACE)
        if self._thread.is_alive():
            return False
        state.should_stop = None
        shutdown.clear()
        return True


class Beat:
    """Celery's beat, with the host's schedule; it keeps no file of it."""

    def __init__(self, app: Celery) -> None:
        install_beat(app)
        self._service: Any = EmbeddedService(app, thread=True, scheduler_cls=Scheduler)

    def start(self) -> None:
        """Start ticking."""
        self._service.start()

    def stop(self) -> bool:
        """Stop ticking; a message that cannot be sent is not waited for."""
        self._service.service.stop()
        return True


class DevServer:
    """Parts that start in order and stop in the opposite one."""

    def __init__(self, *parts: Service) -> None:
        self._parts = parts
        self._started: list[Service] = []

    def start(self) -> None:
        """Start them all; when one cannot, stop those that have begun."""
        try:
            for part in self._parts:
                part.start()
                self._started.append(part)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> bool:
        """Stop what was started; tell whether all of it has come to rest."""
        rests = True
        while self._started:
            rests = self._started.pop().stop() and rests
        return rests
