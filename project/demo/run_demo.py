"""The demo: upload a file, kill the worker half-way, and check the finished import."""

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
from project.demo import verification
from project.demo.settings import CHUNK_LOG, DIRECTORY
from project.demo.worker import Worker
from project.shop.models import Airport, ImportSummary, Upload

#: Seconds to wait for each condition, and between two checks of a condition.
TIMEOUT = 45.0
POLL_INTERVAL = 0.005
#: Characters of the worker's log in an error message, and lines of problems.
LOG_CHARACTERS = 2000
PROBLEMS = 20
USER = PASSWORD = "demo"  # noqa: S105  # the database is deleted with the demo


class Demo:
    """One execution of the demo, in an empty directory."""

    def __init__(self, write: Callable[[str], object], port: int) -> None:
        self._write = write
        self._port = port
        self._started_at = clock.monotonic()
        self._workers: list[Worker] = []
        self._killed_pid = 0
        self._recorded: set[int] = set()

    def run(self, *, stay: bool) -> None:
        """Run the demo. If ``stay`` is true, then serve the pages until Ctrl-C."""
        file = airports_file()
        call_command("migrate", verbosity=0)
        _create_user()
        web = self._bind_web()
        server = DevServer(web, Beat(app))
        try:
            server.start()
            self._print(f"Web at {web.url} with beat, SQLite and a file-based broker.")
            run = self._import(file)
            self._check(file, run)
            page = f"{web.url.rstrip('/')}{_admin_path(run)}"
            self._print(f"See the run at {page} (user {USER}, password {PASSWORD}).")
            if stay:
                self._print("Serving until Ctrl-C.")
                threading.Event().wait()
        except KeyboardInterrupt:
            self._write("")
        finally:
            server.stop()
            for worker in self._workers:
                worker.kill()

    # The import

    def _import(self, file: Path) -> Run:
        worker = self._start_worker()
        run = self._upload(file)
        self._recorded = self._kill_half_way(worker, run)
        self._killed_pid = worker.pid
        worker = self._start_worker()
        self._wait_until(
            lambda: _reload(run).worker.startswith(_worker_name(worker)),
            "the new worker to claim the run",
        )
        self._print(
            f"The lease expired. Worker {worker.pid} claimed the run and continues "
            f"after the {len(self._recorded)} recorded chunks."
        )
        self._wait_until(lambda: not _reload(run).is_live, "the import to end")
        self._wait_until(ImportSummary.objects.exists, "the import summary")
        self._wait_until(lambda: not Run.objects.live().exists(), "all runs to end")
        self._print("Both functions have ended.")
        return _reload(run)

    def _upload(self, file: Path) -> Run:
        with transaction.atomic(), file.open("rb") as content:
            upload = Upload.objects.create(file=File(content, name=file.name))
            event_id = upload.announce()
        run = Run.objects.get(event_id=event_id)
        self._print(f"Uploaded {file.name}. The event file/uploaded started {run}.")
        return run

    def _kill_half_way(self, worker: Worker, run: Run) -> set[int]:
        """Kill the worker half-way. Return the chunks whose validation is recorded."""
        total = 0

        def half_way() -> bool:
            nonlocal total
            total = total or verification.chunk_count(run)
            return bool(total) and 2 * len(verification.validated_chunks(run)) >= total

        self._wait_until(half_way, "half of the validation")
        signum = worker.kill()
        recorded, now = verification.validated_chunks(run), _reload(run)
        self._print(
            f"Half-way. kill -9 {worker.pid}: signal {signum} ended the worker; "
            f"{len(recorded)} of {total} chunks are recorded as validated."
        )
        self._print(
            f"The run is still {now.status!r}. The lease of the killed worker expires "
            f"in at most {format_duration(settings.LEASE_DURATION)}; then the tick "
            f"queues the run again."
        )
        return recorded

    def _start_worker(self) -> Worker:
        number = len(self._workers) + 1
        worker = Worker(DIRECTORY / f"worker-{number}.log")
        self._workers.append(worker)
        self._print(f"Started worker {worker.pid} in a separate process.")
        return worker

    # The check

    def _check(self, file: Path, run: Run) -> None:
        """Print the timelines. Raise ``CommandError`` if the import is not exact."""
        for each in Run.objects.order_by("pk"):
            self._write(f"\n{render_text(each)}")
        self._write("")
        problems = [*verification.table_differences(file)]
        problems += verification.repeated_work(
            CHUNK_LOG, run, self._recorded, self._killed_pid
        )
        if run.status != RunStatus.COMPLETED:
            problems.append(f"the run is {run.status}")
        if problems:
            msg = "Check failed:\n  " + "\n  ".join(problems[:PROBLEMS])
            raise CommandError(msg)
        again = verification.revalidated_count(CHUNK_LOG, self._killed_pid)
        self._print(
            f"Check passed: the table has the {Airport.objects.count()} rows of the "
            f"file, each once. No recorded chunk was validated twice. Chunks that the "
            f"kill interrupted and the new worker validated again: {again}."
        )

    # Helpers

    def _bind_web(self) -> Web:
        """Bind the web server to the chosen port, or to a free port if it is in use."""
        web = Web(port=self._port)
        try:
            web.bind()
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            web = Web(port=0)
        return web

    def _wait_until(self, done: Callable[[], bool], what: str) -> None:
        """Wait for a condition.

        Raise ``CommandError`` after ``TIMEOUT`` seconds or if the worker has ended.
        """
        deadline = clock.monotonic() + TIMEOUT
        while not done():
            current = self._workers[-1]
            if clock.monotonic() > deadline or not current.alive:
                log = current.log.read_text(errors="replace")[-LOG_CHARACTERS:]
                problem = "Timed out" if current.alive else "The worker ended"
                msg = f"{problem} while waiting for {what}. Log of the worker:\n{log}"
                raise CommandError(msg)
            time.sleep(POLL_INTERVAL)

    def _print(self, text: str) -> None:
        self._write(f"[{clock.monotonic() - self._started_at:5.1f} s] {text}")


def airports_file() -> Path:
    """Return the CSV file of airports in the package ``airportsdata``."""
    found = find_spec("airportsdata")
    if found is None or found.origin is None:
        msg = "The demo needs the package airportsdata: pip install -e '.[demo]'"
        raise CommandError(msg)
    return Path(found.origin).with_name("airports.csv")


def _create_user() -> None:
    get_user_model().objects.create_superuser(USER, password=PASSWORD)


def _reload(run: Run) -> Run:
    return Run.objects.get(pk=run.pk)


def _worker_name(worker: Worker) -> str:
    """Return the start of ``Run.worker`` for runs that the worker executes."""
    return f"{socket.gethostname()}:{worker.pid}"


def _admin_path(run: Run) -> str:
    try:
        return reverse("admin:durable_jobs_run_change", args=[run.pk])
    except NoReverseMatch:
        return reverse("admin:index")
