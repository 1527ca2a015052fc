"""``manage.py durable_demo``: an import is killed half-way, and finishes all the same.

It is the demo project's own command, not the app's: it shows this project's functions,
and an installation without them would have nothing to show.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from project.demo.parents import die_with_parent


class Command(BaseCommand):
    """The supervisor makes a room and clears it; its child plays the demo in it."""

    help = (
        "Import some 28,000 airports with web, worker and beat on SQLite, kill the "
        "worker half-way, and check that every row is there once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--exit", action="store_true", help="end when all is checked"
        )
        parser.add_argument(
            "--port", type=int, default=8000, help="of the web page (%(default)s)"
        )

    def handle(self, **options: Any) -> None:
        """Play the demo, in a temporary directory that nothing remains of."""
        if "DEMO_ROOM" in os.environ:
            # Imported late: it needs the room's settings.
            from project.demo.play import Play

            die_with_parent()
            signal.signal(signal.SIGTERM, _interrupt)
            Play(self.stdout.write, options["port"]).run(stay=not options["exit"])
            return
        with TemporaryDirectory(
            prefix="durable-demo-", ignore_cleanup_errors=True
        ) as room:
            code = _child(room, options)
        sys.exit(code if code >= 0 else 1)


def _child(room: str, options: dict[str, Any]) -> int:
    arguments = ["durable_demo", "--port", str(options["port"])]
    child = subprocess.Popen(  # noqa: S603  # this very command, once more
        [
            sys.executable,
            str(settings.BASE_DIR / "manage.py"),
            *arguments,
            *(["--exit"] if options["exit"] else []),
        ],
        env={
            **os.environ,
            "DEMO_ROOM": room,
            "DJANGO_SETTINGS_MODULE": "project.demo.settings",
            # Celery has opinions about root, which change nothing here.
            "PYTHONWARNINGS": "ignore",
        },
        cwd=settings.BASE_DIR,
    )
    # A terminal sends Ctrl-C to both, and the child is the one to end first.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


def _interrupt(*args: Any) -> None:
    raise KeyboardInterrupt
