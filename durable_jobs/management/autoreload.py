"""Restart a command when the code changes, after a graceful stop.

A parent process starts a child, which does the work. If changed code cannot be loaded,
the parent waits for the next change instead of exiting.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.apps import apps
from django.utils import autoreload

from durable_jobs import clock

#: Exit codes of a child: the code changed; it cannot be loaded; a fatal error.
RELOAD, BROKEN, FATAL = 3, 1, 2
#: The variable with the time of the newest code at the start of the child.
NEWEST = "DURABLE_JOBS_NEWEST_CODE"


class _Reloader(autoreload.StatReloader):
    """Also detects changes between the start of the child and the first check."""

    def tick(self) -> Iterator[None]:
        ticks = super().tick()
        yield next(ticks)  # Django detects changes after this first check
        newest = float(os.environ.get(NEWEST, "inf"))
        for path, changed in _code().items():
            if changed > newest:
                self.notify_file_changed(path)
        yield from ticks


def run(work: Callable[[], None], stop: Callable[[], bool]) -> None:
    """Run ``work`` in a thread of a child process, and restart it on each change.

    ``stop`` stops the work, and returns whether all of it has stopped.
    """
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
        sys.exit(_run_children())
    code: Any = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        autoreload.start_django(_Reloader(), work)
    except KeyboardInterrupt:
        pass
    except SystemExit as exit:
        code = exit.code
    leave(stop, code)


def leave(stop: Callable[[], bool], code: Any = 0) -> None:
    """Stop the work and exit with ``code``. Exit at once on a second interrupt."""
    with suppress(KeyboardInterrupt):
        if stop():
            sys.exit(code)
    # A normal exit would wait for threads that execute steps. Their runs are requeued
    # at the next start.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _run_children() -> int:
    """Restart the child until it exits for good. Return its exit code."""
    environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    while True:
        children: list[subprocess.Popen[bytes]] = []
        _guard(children)
        before = _code()
        # ``before`` lacks apps that were added to the settings since this process
        # started. Their files are older than now.
        environment[NEWEST] = repr(max([clock.now().timestamp(), *before.values()]))
        child = subprocess.Popen(  # noqa: S603  # the same command again
            autoreload.get_child_arguments(), env=environment, close_fds=False
        )
        children.append(child)
        code = child.wait()
        if code == BROKEN:
            sys.stderr.write("The code cannot be loaded. Waiting for a change.\n")
            _unguard()
            if not _wait_for_change(before):
                return 0
        elif code != RELOAD:
            return code


def _guard(children: list[subprocess.Popen[bytes]]) -> None:
    """Let the child handle Ctrl-C, and forward SIGTERM to it."""

    def end(*args: Any) -> None:
        for child in children:
            child.terminate()

    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, end)


def _unguard() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _code() -> dict[Path, float]:
    """Return the modification time of each file of the project's code.

    This includes the settings, and apps that are not loaded yet.
    """
    paths = (Path(config.path) for config in apps.get_app_configs())
    packages = {path for path in paths if not path.is_relative_to(sys.prefix)}
    for place in {path.parent for path in packages}:
        packages |= {path.parent for path in place.glob("*/__init__.py")}
    found = {}
    for path in (path for package in packages for path in package.rglob("*.py")):
        with suppress(OSError):  # the file was deleted
            found[path] = path.stat().st_mtime
    return found


def _wait_for_change(before: dict[Path, float]) -> bool:
    """Wait for a change. Return True on a change, False on Ctrl-C."""
    try:
        while _code() == before:
            threading.Event().wait(autoreload.StatReloader.SLEEP_TIME)
    except KeyboardInterrupt:
        return False
    return True
