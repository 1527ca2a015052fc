"""Restarting a command when the code changes, as ``runserver`` does, but gently.

The parent only watches over a child, which does the work. A child that changed code has
broken is not the end: the parent waits for the next change.
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

#: What a child exits with: the code has changed; it does not load; it must not go on.
RELOAD, BROKEN, FATAL = 3, 1, 2
#: The variable that tells a child how new the newest code was when it was started.
NEWEST = "DURABLE_JOBS_NEWEST_CODE"


class _Reloader(autoreload.StatReloader):
    """Sees also what has changed between the child's start and its own first look."""

    def tick(self) -> Iterator[None]:
        ticks = super().tick()
        yield next(ticks)  # what changes after this first look is its own affair
        newest = float(os.environ.get(NEWEST, "inf"))
        for path, changed in _code().items():
            if changed > newest:
                self.notify_file_changed(path)
        yield from ticks


def run(work: Callable[[], None], rest: Callable[[], bool]) -> None:
    """Do ``work`` in a thread of a child process; start a new one on each change.

    ``rest`` stops the work and tells whether all of it has come to rest.
    """
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
        sys.exit(_watch_over_children())
    code: Any = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        autoreload.start_django(_Reloader(), work)
    except KeyboardInterrupt:
        pass
    except SystemExit as exit:
        code = exit.code
    leave(rest, code)


def leave(rest: Callable[[], bool], code: Any = 0) -> None:
    """Come to rest and exit with ``code``; at once when it is interrupted again."""
    with suppress(KeyboardInterrupt):
        if rest():
            sys.exit(code)
    # Python would wait for the threads whose bodies still run; their runs are taken
    # back at the next start.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _watch_over_children() -> int:
    """Start child after child until one ends for good; return its exit code."""
    environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    while True:
        children: list[subprocess.Popen[bytes]] = []
        _guard(children)
        before = _code()
        # An app that came into the settings since this parent began is not in
        # ``before``: its files are older than now, however new they are.
        environment[NEWEST] = repr(max([clock.now().timestamp(), *before.values()]))
        child = subprocess.Popen(  # noqa: S603  # this very command, once more
            autoreload.get_child_arguments(), env=environment, close_fds=False
        )
        children.append(child)
        code = child.wait()
        if code == BROKEN:
            sys.stderr.write("The code does not load: waiting for a change.\n")
            _unguard()
            if not _wait_for_change(before):
                return 0
        elif code != RELOAD:
            return code


def _guard(children: list[subprocess.Popen[bytes]]) -> None:
    """Leave Ctrl-C, which a terminal sends to both, to the child; pass on the rest."""

    def end(*args: Any) -> None:
        for child in children:
            child.terminate()

    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, end)


def _unguard() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _code() -> dict[Path, float]:
    """Return the project's own code, loaded or not, and when each file changed.

    Beside the apps there are the settings, and apps that are new to the settings.
    """
    paths = (Path(config.path) for config in apps.get_app_configs())
    own = {path for path in paths if not path.is_relative_to(sys.prefix)}
    for place in {path.parent for path in own}:
        own |= {path.parent for path in place.glob("*/__init__.py")}
    found = {}
    for path in (path for package in own for path in package.rglob("*.py")):
        with suppress(OSError):  # it has just gone
            found[path] = path.stat().st_mtime
    return found


def _wait_for_change(before: dict[Path, float]) -> bool:
    """Return True when a file differs from ``before``, False on Ctrl-C."""
    try:
        while _code() == before:
            threading.Event().wait(autoreload.StatReloader.SLEEP_TIME)
    except KeyboardInterrupt:
        return False
    return True
