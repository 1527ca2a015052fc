"""``manage.py durable_demo``: kill the worker of an import and show that it finishes.

The command belongs to the demo project, not to the app, because it runs the functions
of this project.
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
    """Create a temporary directory, run the demo in a child process, and clean up.

    The child process runs the same command with ``DEMO_DIRECTORY`` in its environment.
    """

    help = (
        "Import some 28,000 airports with web, worker and beat on SQLite, kill the "
        "worker half-way, and check that every row exists once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--exit", action="store_true", help="end after the check")
        parser.add_argument(
            "--port", type=int, default=8000, help="port of the web page (%(default)s)"
        )

    def handle(self, **options: Any) -> None:
        if "DEMO_DIRECTORY" in os.environ:
            # Imported late: the module needs the settings of the demo.
            from project.demo.run_demo import Demo

            die_with_parent()
            signal.signal(signal.SIGTERM, _interrupt)
            Demo(self.stdout.write, options["port"]).run(stay=not options["exit"])
            return
        with TemporaryDirectory(
            prefix="durable-demo-", ignore_cleanup_errors=True
        ) as directory:
            code = _run_child(directory, options)
        sys.exit(code if code >= 0 else 1)


def _run_child(directory: str, options: dict[str, Any]) -> int:
    """Run this command in a child process and return its exit code."""
    arguments = ["durable_demo", "--port", str(options["port"])]
    child = subprocess.Popen(  # noqa: S603  # this command again
        [
            sys.executable,
            str(settings.BASE_DIR / "manage.py"),
            *arguments,
            *(["--exit"] if options["exit"] else []),
        ],
        env={
            **os.environ,
            "DEMO_DIRECTORY": directory,
            "DJANGO_SETTINGS_MODULE": "project.demo.settings",
            # Celery's warning about the root user does not matter here.
            "PYTHONWARNINGS": "ignore",
        },
        cwd=settings.BASE_DIR,
    )
    # A terminal sends Ctrl-C to both processes. The child ends first.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


def _interrupt(*args: Any) -> None:
    raise KeyboardInterrupt
