"""Web server, worker and beat in one process, for development and demonstrations.

Each is a thread with ``start()`` and ``stop()``. In production, they are separate
processes, as in any project with Celery.
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
from durable_jobs.worker.celery_notifier import CeleryNotifier
from durable_jobs.worker.queues import project_queues
from durable_jobs.worker.watchdog import Watchdog

#: A broker in the memory of this process, without a server.
MEMORY = "memory://localhost/"
POLLING = {"polling_interval": 0.05}
#: Seconds to wait for the broker at the start, and for running steps at the stop.
START = 5.0
GRACE = 8.0


class Service(Protocol):
    """A service that runs in the background until it is stopped."""

    def start(self) -> None:
        """Start. Return when the service is running."""

    def stop(self) -> bool:
        """Stop. Return whether everything has stopped."""


def choose_broker(app: Celery, *, memory: bool = False) -> str:
    """Return the URL of the app's broker. Set a broker in memory if there is none.

    Without this, Celery would use a RabbitMQ on this host. A configured broker is used
    unless ``memory`` is true.
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
    # Kombu masks a password even if there is none.
    return str(address if connection.password else address.replace(":**@", ""))


class Web:
    """Django's development server."""

    def __init__(self, address: str = "127.0.0.1", port: int = 8000) -> None:
        self._place = (address, port)
        self._server: ThreadedWSGIServer | None = None

    @property
    def url(self) -> str:
        """The URL of the server, after its start."""
        assert self._server is not None, "it was started"
        host, port = self._server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{shown}:{port}/"

    def bind(self) -> None:
        """Bind the port. Raise ``OSError`` if that fails."""
        ipv6 = ":" in self._place[0]
        self._server = ThreadedWSGIServer(self._place, WSGIRequestHandler, ipv6=ipv6)

    def start(self) -> None:
        """Bind the port if necessary, and serve."""
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


class WorkerService:
    """A Celery worker with a thread pool, which serves every durable queue.

    One Celery queue carries the wake-up messages of all queues, including queues that
    only a step names.
    """

    def __init__(self, app: Celery, concurrency: int = 4) -> None:
        self.app = app
        self._concurrency = concurrency
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._watchdog: Watchdog | None = None

    @property
    def ready(self) -> bool:
        """Whether the worker consumes messages."""
        return self._ready.is_set()

    def queues(self) -> Sequence[str]:
        """Return the queues to consume: your project's and those of this package."""
        return sorted({*self.app.amqp.queues.consume_from, *project_queues()})

    def start(self) -> None:
        """Start the worker. Return when it consumes, or after ``START`` seconds."""
        self.app.finalize()
        notifier.install(CeleryNotifier(channel=settings.QUEUE))
        # celery.apps.worker would change signal handlers and logging, which belong to
        # the main thread and to your project.
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
        # This watchdog never shuts down. It only records heartbeats.
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._watchdog = Watchdog(self.queues(), lambda: False, lambda: None, name)
        self._watchdog.start()

    def _work(self, controller: Any) -> None:
        self.app.set_current()
        controller.start()

    def stop(self) -> bool:
        """Start no further step, and wait up to ``GRACE`` seconds for running steps."""
        if self._thread is None:
            return True
        if self._watchdog is not None:
            self._watchdog.stop()
        shutdown.request()
        state.should_stop = 0  # type: ignore[assignment]  # the stubs type it by its first value
        notifier.notify_now(
            settings.QUEUE
        )  # wakes the worker if it waits for a message
        self._thread.join(GRACE)
        if self._thread.is_alive():
            return False
        state.should_stop = None
        shutdown.clear()
        return True


class Beat:
    """Celery's beat with your project's schedule, without a schedule file."""

    def __init__(self, app: Celery) -> None:
        install_beat(app)
        self._service: Any = EmbeddedService(app, thread=True, scheduler_cls=Scheduler)

    def start(self) -> None:
        """Start ticking."""
        self._service.start()

    def stop(self) -> bool:
        """Stop ticking, without waiting for a message that cannot be sent."""
        self._service.service.stop()
        return True


class DevServer:
    """Services that start in order and stop in reverse order."""

    def __init__(self, *services: Service) -> None:
        self._services = services
        self._started: list[Service] = []

    def start(self) -> None:
        """Start all services. If one fails, stop the started ones and raise."""
        try:
            for service in self._services:
                service.start()
                self._started.append(service)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> bool:
        """Stop the started services. Return whether all have stopped."""
        stopped = True
        while self._started:
            stopped = self._started.pop().stop() and stopped
        return stopped
