"""``manage.py durable_dev``: the site, a worker and beat in one process."""

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
    Worker,
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
    """Everything a project needs for development, until Ctrl-C."""

    help = (
        "Serve the site and execute durable functions: web, a Celery worker and beat "
        "in one process, which starts again when the code changes. Without a broker in "
        "the settings it needs none."
    )

    # By each child, once the database is prepared.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "addrport", nargs="?", default="8000", help="port, or address:port"
        )
        parser.add_argument(
            "--noreload", action="store_true", help="do not watch the code"
        )
        parser.add_argument(
            "--memory",
            action="store_true",
            help="use a broker in memory, whatever the settings say",
        )
        parser.add_argument(
            "--concurrency", type=int, default=4, help="threads of the worker (4)"
        )

    def handle(self, **options: Any) -> None:
        """Serve until Ctrl-C, or until the code changes."""
        self._options = options
        self._tree: DevServer | None = None
        if not options["noreload"]:
            autoreload.run(self._work, self._rest)
            return
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            self._work()
        except KeyboardInterrupt:
            self.stdout.write("")
        autoreload.leave(self._rest)

    def _work(self) -> None:
        """Start all the parts, and stay."""
        address, port = _place(self._options["addrport"])
        _steady_sqlite()
        self.check()
        self.check_migrations()
        if Run._meta.db_table not in db.connection().introspection.table_names():
            self._refuse("The database has no tables for runs: run manage.py migrate.")
        app = project_app()
        broker = choose_broker(app, memory=self._options["memory"])
        web, worker = Web(address, port), Worker(app, self._options["concurrency"])
        tree = DevServer(web, worker, Beat(app))
        run_created.connect(self._created, weak=False, dispatch_uid="durable_dev.new")
        run_changed.connect(self._changed, weak=False, dispatch_uid="durable_dev.run")
        self._tree = tree
        try:
            tree.start()
        except OSError as error:
            self._refuse(f"Cannot serve at {address}:{port}: {error.strerror}.")
        self._greet(web, broker)
        if not worker.ready:
            self.stderr.write(
                f"The broker {broker} does not answer, and nothing is executed until "
                f"it does. With --memory none is needed."
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
        self._tell(run_id, function, status, "")

    def _changed(
        self, run_id: Any, function: str, status: str, reason: str = "", **kwargs: Any
    ) -> None:
        self._tell(run_id, function, status, reason)

    def _tell(self, run_id: Any, function: str, status: str, reason: str) -> None:
        time = clock.now().astimezone().strftime("%H:%M:%S")
        why = f" ({reason})" if reason else ""
        self.stdout.write(f"{time} {function} {run_id} {status}{why}")
        self.stdout.flush()

    def _rest(self) -> bool:
        return self._tree is None or self._tree.stop()

    def _refuse(self, message: str) -> None:
        """Say what is wrong, and end; from a thread that takes more than an exit."""
        if threading.current_thread() is threading.main_thread():
            raise CommandError(message)
        self.stderr.write(self.style.ERROR(message))
        sys.stderr.flush()
        os._exit(autoreload.FATAL)


def _place(text: str) -> tuple[str, int]:
    """Return the address and port that ``addrport`` names."""
    address, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        msg = f"Expected a port or address:port, got {text!r}."
        raise CommandError(msg)
    return address.strip("[]") or "127.0.0.1", int(port)


def _steady_sqlite() -> None:
    """Let a SQLite database without options of its own bear several threads.

    With Django's defaults, concurrent writers fail with "database is locked" (system
    check durable_jobs.W001 says so too).
    """
    connection = connections[settings.DATABASE]
    if connection.vendor != "sqlite":
        return
    options = connection.settings_dict.setdefault("OPTIONS", {})
    if "transaction_mode" not in options:
        connection.close()
        # The dict is shared by the connections of all threads.
        options.update({**STEADY_SQLITE, **options})


def _interrupt(*args: Any) -> None:
    raise KeyboardInterrupt
