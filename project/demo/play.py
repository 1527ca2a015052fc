"""The play: send a file, kill the worker half-way, and watch the import end well."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from django.contrib.auth import get_user_model
from django.core.files import File
from django.core.management import CommandError, call_command
from django.db import transaction
from django.urls import NoReverseMatch, reverse

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.durations import format_duration
from durable_jobs.management.dev_server import Beat, DevServer, Web
from durable_jobs.models import Run
from durable_jobs.queries.timeline import render_text
from durable_jobs.statuses import RunStatus
from project.celery import app
from project.demo import proof
from project.demo.settings import ROOM, TRAIL
from project.demo.worker import Worker
from project.shop.models import Airport, ImportSummary, Upload

#: How long any one thing may take, in seconds, and how often is looked.
PATIENCE = 45.0
LOOK = 0.005
USER = PASSWORD = "demo"  # noqa: S105  # of a database that ends with the demo


class Play:
    """One performance, in an empty room."""

    def __init__(self, write: Callable[[str], object], port: int) -> None:
        self._write = write
        self._port = port
        self._began = clock.monotonic()
        self._workers: list[Worker] = []
        self._dead = 0
        self._recorded: set[int] = set()

    def run(self, *, stay: bool) -> None:
        """Play it; then serve until Ctrl-C, if asked to stay."""
        file = airports()
        call_command("migrate", verbosity=0)
        _make_user()
        web = self._web()
        tree = DevServer(web, Beat(app))
        try:
            tree.start()
            self._say(f"Web at {web.url}, beat beside it; SQLite, a broker of files.")
            run = self._act(file)
            self._check(file, run)
            self._say(f"The run: {web.url.rstrip('/')}{_page(run)} ({USER}/{PASSWORD})")
            if stay:
                self._say("Serving until Ctrl-C.")
                threading.Event().wait()
        except KeyboardInterrupt:
            self._write("")
        finally:
            tree.stop()
            for worker in self._workers:
                worker.kill()

    # The acts

    def _act(self, file: Path) -> Run:
        worker = self._hire()
        run = self._send(file)
        self._recorded = self._kill(worker, run)
        self._dead = worker.pid
        worker = self._hire()
        self._until(
            lambda: _fresh(run).worker.startswith(_name(worker)), "a new worker"
        )
        self._say(
            f"The lease has run out: worker {worker.pid} has the run, and goes on "
            f"after the {len(self._recorded)} recorded chunks."
        )
        self._until(lambda: not _fresh(run).is_live, "the import to end")
        self._until(lambda: ImportSummary.objects.exists(), "the second function")
        self._until(lambda: not Run.objects.live().exists(), "all runs to end")
        self._say("Both functions have ended.")
        return _fresh(run)

    def _send(self, file: Path) -> Run:
        with transaction.atomic(), file.open("rb") as content:
            upload = Upload.objects.create(file=File(content, name=file.name))
            event_id = upload.announce()
        run = Run.objects.get(event_id=event_id)
        self._say(f"Uploaded {file.name}, sent file/uploaded: it started {run}.")
        return run

    def _kill(self, worker: Worker, run: Run) -> set[int]:
        """Kill a worker half-way; return the chunks that were recorded by then."""
        total = 0

        def half_way() -> bool:
            nonlocal total
            total = total or proof.total(run)
            return bool(total) and 2 * len(proof.validated(run)) >= total

        self._until(half_way, "half of the validation")
        number = worker.kill()
        recorded, now = proof.validated(run), _fresh(run)
        self._say(
            f"Half-way. kill -9 {worker.pid}: the worker died of signal {number} with "
            f"{len(recorded)} of {total} chunks recorded as validated."
        )
        self._say(
            f"The run is still {now.status!r}, leased to the dead "
            f"for {format_duration(settings.LEASE_DURATION)} at most; "
            "then the tick queues it "
            f"again."
        )
        return recorded

    def _hire(self) -> Worker:
        number = len(self._workers) + 1
        worker = Worker(ROOM / f"worker-{number}.log")
        self._workers.append(worker)
        self._say(f"Worker {worker.pid} started, a process of its own.")
        return worker

    # The proof

    def _check(self, file: Path, run: Run) -> None:
        """Print the traces, and compare what is there with what should be."""
        for each in Run.objects.order_by("pk"):
            self._write(f"\n{render_text(each)}")
        self._write("")
        wrong = [*proof.differences(file)]
        wrong += proof.repetitions(TRAIL, run, self._recorded, self._dead)
        if run.status != RunStatus.COMPLETED:
            wrong.append(f"the run is {run.status}")
        if wrong:
            msg = "The check FAILED:\n  " + "\n  ".join(wrong[:20])
            raise CommandError(msg)
        again = proof.again(TRAIL, self._dead)
        self._say(
            f"Check passed: the table has the {Airport.objects.count()} rows of the "
            f"file, each once. No chunk that was recorded was validated twice; {again} "
            f"that the kill cut off were validated again."
        )

    # Around it

    def _web(self) -> Web:
        """Take the port, or any other one when that is taken."""
        web = Web(port=self._port)
        try:
            web.bind()
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            web = Web(port=0)
        return web

    def _until(self, done: Callable[[], bool], what: str) -> None:
        deadline = clock.monotonic() + PATIENCE
        while not done():
            current = self._workers[-1]
            if clock.monotonic() > deadline or not current.alive:
                log = current.log.read_text(errors="replace")[-2000:]
                msg = f"Waited in vain for {what}. The worker said:\n{log}"
                raise CommandError(msg)
            time.sleep(LOOK)

    def _say(self, text: str) -> None:
        self._write(f"[{clock.monotonic() - self._began:5.1f} s] {text}")


def airports() -> Path:
    """Return the file of airports that the package ``airportsdata`` brings along."""
    found = find_spec("airportsdata")
    if found is None or found.origin is None:
        msg = "The demo needs the package airportsdata: pip install -e '.[demo]'"
        raise CommandError(msg)
    return Path(found.origin).with_name("airports.csv")


def _make_user() -> None:
    get_user_model().objects.create_superuser(USER, password=PASSWORD)


def _fresh(run: Run) -> Run:
    return Run.objects.get(pk=run.pk)


def _name(worker: Worker) -> str:
    """Return how the runs that a process executes name it."""
    return f"{socket.gethostname()}:{worker.pid}"


def _page(run: Run) -> str:
    try:
        return reverse("admin:durable_jobs_run_change", args=[run.pk])
    except NoReverseMatch:
        return reverse("admin:index")
