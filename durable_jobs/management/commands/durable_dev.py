"""``manage.py durable_dev``: web server, worker and beat in one process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from django.urls import NoReverseMatch, reverse

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry
from durable_jobs.management import autoreload
from durable_jobs.management.dev_server import (
    Beat,
    DevServer,
    Web,
    WorkerService,
    choose_broker,
)
from durable_jobs.models import Run
from durable_jobs.signals import run_changed, run_created
from durable_jobs.store import db
from durable_jobs.worker import orphans
from durable_jobs.worker.celery_app import project_app

STEADY_SQLITE = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL",
}


class Command(BaseCommand):
    """Runs web server, worker and beat until Ctrl-C."""

    help = (
        "Serve the site and execute durable functions: web server, Celery worker and "
        "beat in one process, which restarts when the code changes. Needs no broker."
    )

    # Each child runs the checks after it has prepared the database.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "addrport", nargs="?", default="8000", help="port, or address:port"
        )
        parser.add_argument(
            "--noreload",
            action="store_true",
            help="do not restart when the code changes",
        )
        parser.add_argument(
            "--memory",
            action="store_true",
            help="use a broker in memory instead of the configured one",
        )
        parser.add_argument(
            "--concurrency", type=int, default=4, help="threads of the worker (4)"
        )

    def handle(self, **options: Any) -> None:
        """Serve until Ctrl-C, or until the code changes."""
        self._options = options
        self._server: DevServer | None = None
        if not options["noreload"]:
            autoreload.run(self._work, self._stop)
            return
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            self._work()
        except KeyboardInterrupt:
            self.stdout.write("")
        autoreload.leave(self._stop)

    def _work(self) -> None:
        """Start all services and wait."""
        address, port = _place(self._options["addrport"])
        _steady_sqlite()
        self.check()
        self.check_migrations()
        if Run._meta.db_table not in db.connection().introspection.table_names():
            self._fail("The database has no tables for runs: run manage.py migrate.")
        app = project_app()
        broker = choose_broker(app, memory=self._options["memory"])
        web, worker = (
            Web(address, port),
            WorkerService(app, self._options["concurrency"]),
        )
        server = DevServer(web, worker, Beat(app))
        run_created.connect(self._created, weak=False, dispatch_uid="durable_dev.new")
        run_changed.connect(self._changed, weak=False, dispatch_uid="durable_dev.run")
        self._server = server
        try:
            server.start()
        except OSError as error:
            self._fail(f"Cannot serve at {address}:{port}: {error.strerror}.")
        self._greet(web, broker)
        if not worker.ready:
            self.stderr.write(
                f"The broker {broker} does not answer. Runs execute when it is back. "
                f"Use --memory to run without a broker."
            )
        threading.Event().wait()

    def _greet(self, web: Web, broker: str) -> None:
        taken = orphans.requeue_orphans()
        functions = (
            ", ".join(sorted(function.id for function in registry)) or "none yet"
        )
        lines = [
            f"Web at {web.url}, worker and beat beside it (broker {broker}).",
            f"Functions: {functions}",
        ]
        with suppress(NoReverseMatch):
            lines.insert(1, f"Admin at {web.url}{reverse('admin:index').lstrip('/')}")
        if taken:
            lines.append(f"{taken} runs that were cut off go on.")
        lines.append("Quit with Ctrl-C.")
        self.stdout.write("\n".join(lines))
        self.stdout.flush()

    def _created(self, run_id: Any, function: str, status: str, **kwargs: Any) -> None:
        self._print(run_id, function, status, "")

    def _changed(
        self, run_id: Any, function: str, status: str, reason: str = "", **kwargs: Any
    ) -> None:
        self._print(run_id, function, status, reason)

    def _print(self, run_id: Any, function: str, status: str, reason: str) -> None:
        time = clock.now().astimezone().strftime("%H:%M:%S")
        why = f" ({reason})" if reason else ""
        self.stdout.write(f"{time} {function} {run_id} {status}{why}")
        self.stdout.flush()

    def _stop(self) -> bool:
        return self._server is None or self._server.stop()

    def _fail(self, message: str) -> None:
        """Print an error and exit the process, from any thread."""
        if threading.current_thread() is threading.main_thread():
            raise CommandError(message)
        self.stderr.write(self.style.ERROR(message))
        sys.stderr.flush()
        os._exit(autoreload.FATAL)


def _place(text: str) -> tuple[str, int]:
    """Return the address and port of ``addrport``."""
    address, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        msg = f"Expected a port or address:port, got {text!r}."
        raise CommandError(msg)
    return address.strip("[]") or "127.0.0.1", int(port)


def _steady_sqlite() -> None:
    """Set options with which several threads can write to a SQLite database.

    With Django's defaults, concurrent writers fail with "database is locked" (see the
    system check durable_jobs.W001). Existing options are kept.
    """
    connection = connections[settings.DATABASE]
    if connection.vendor != "sqlite":
        return
    options = connection.settings_dict.setdefault("OPTIONS", {})
    if "transaction_mode" not in options:
        connection.close()
        # The connections of all threads share this dict.
        options.update({**STEADY_SQLITE, **options})


def _interrupt(*args: Any) -> None:
    raise KeyboardInterrupt
