"""``manage.py durable_tick``: run the tick once, or continuously."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import CommandParser
from django.db import connections

from durable_jobs.conf import settings
from durable_jobs.error_text import summary_of
from durable_jobs.maintenance import tick
from durable_jobs.management.database_command import DatabaseCommand
from durable_jobs.store import db


class Command(DatabaseCommand):
    """Ticks once, or continuously with ``--forever``."""

    help = "Process due timers, expired leases, lost wake-up messages, crons, pruning."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--forever",
            action="store_true",
            help="tick every TICK_INTERVAL (a setting) until stopped, instead of beat",
        )

    def handle(self, **options: Any) -> None:
        """Tick."""
        if options["forever"]:
            self._forever()
            return
        done = tick.tick()
        self.stdout.write(
            ", ".join(f"{name} {count}" for name, count in done.items())
            or "Nothing was due."
        )

    def _forever(self) -> None:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        self.stdout.write("Ticking. Quit with Ctrl-C.")
        self.stdout.flush()
        while not stop.wait(settings.TICK_INTERVAL.total_seconds()):
            try:
                tick.tick()
                db.outage.end()
            except Exception as error:  # noqa: BLE001  # the loop must survive database errors
                if not db.is_outage(error):
                    self.stderr.write(f"The tick failed: {summary_of(error)}")
                connections.close_all()
