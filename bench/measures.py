"""What is measured. What is compared takes turns, so that a busy machine slows both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from celery import Celery

from bench import commits
from bench.marks import Marks, Trail
from bench.server import Counts, Server
from bench.workers import QUEUE, Memory, Worker, beat, worker

SECONDS = 300.0
WARM_UP = 40

Start = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measure works with."""

    app: Celery
    server: Server
    marks: Marks

    def start_run(self) -> None:
        """Start one durable run."""
        from bench.durable import five_steps

        five_steps.enqueue({"order": 7})

    def start_task(self) -> None:
        """Start one plain task."""
        from bench.tasks import five_calls

        five_calls.apply_async(queue=QUEUE)

    def wait(self, count: int) -> list[Trail]:
        """Wait for what was started, to the last commit, and return what it left."""
        self.marks.wait(count, SECONDS)
        deadline = time.monotonic() + SECONDS
        while self._unfinished():
            if time.monotonic() > deadline:
                raise TimeoutError("Runs were left unfinished.")
            time.sleep(0.002)
        return self.marks.trails()

    def warm(self, running: Worker) -> None:
        """Let every process do some of both first, and forget it."""
        for start in (self.start_task, self.start_run):
            for _ in range(WARM_UP):
                start()
        self.wait(2 * WARM_UP)
        running.wait_until_quiet()
        self.marks.clear()

    def _unfinished(self) -> bool:
        from durable_jobs.models import Run

        return Run.objects.live().exists()


@dataclass(slots=True)
class Rate:
    """How fast runs or tasks were done, and at what cost, over all the turns."""

    count: int = 0
    #: From the first body's beginning to the last one's end, out of a full queue.
    seconds: float = 0.0
    #: Until also the last doorbell was answered.
    quiet_seconds: float = 0.0
    #: From the first start to the last end, when they are started meanwhile.
    live_seconds: float = 0.0
    #: Of the worker's processes, out of a full queue.
    processor_seconds: float = 0.0
    gaps: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Compared:
    """A kind of work beside another, and commits beside both."""

    runs: Rate = field(default_factory=Rate)
    tasks: Rate = field(default_factory=Rate)
    one_connection: list[float] = field(default_factory=list)
    two_connections: list[float] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)


def loaded(bench: Bench, count: int, turns: int) -> Compared:
    """Fill the queue, let it be emptied; fill it while it is emptied; in turns."""
    found, each = Compared(), count // turns
    with worker(bench.app) as running:
        bench.warm(running)
        for _ in range(turns):
            for rate, start in _both(bench, found):
                _full(bench, running, rate, start, each)
                _meanwhile(bench, running, rate, start, each)
            found.one_connection += commits.measure(bench.server, 1)
            found.two_connections += commits.measure(bench.server, 2)
        found.memory = running.memory()
    return found


def _both(bench: Bench, found: Compared) -> list[tuple[Rate, Start]]:
    return [(found.tasks, bench.start_task), (found.runs, bench.start_run)]


def _full(bench: Bench, running: Worker, rate: Rate, start: Start, count: int) -> None:
    """Put everything in the queue, then let the worker hear of it."""
    running.turn_deaf()
    for _ in range(count):
        start()
    used, began = running.processor_seconds(), time.monotonic()
    running.hear()
    trails = bench.wait(count)
    rate.processor_seconds += running.processor_seconds() - used
    running.wait_until_quiet()
    rate.quiet_seconds += time.monotonic() - began
    bench.marks.clear()
    rate.count += count
    rate.seconds += max(t.ended for t in trails) - min(t.began for t in trails)
    rate.gaps += [gap for trail in trails for gap in trail.gaps]


def _meanwhile(
    bench: Bench, running: Worker, rate: Rate, start: Start, count: int
) -> None:
    """Start them while the worker works."""
    began = time.monotonic()
    for _ in range(count):
        start()
    trails = bench.wait(count)
    rate.live_seconds += max(trail.ended for trail in trails) - began
    running.wait_until_quiet()
    bench.marks.clear()


def alone(bench: Bench, count: int) -> Compared:
    """Start each when the one before has ended and all is quiet."""
    found = Compared()
    with worker(bench.app) as running:
        bench.warm(running)
        for _ in range(count):
            for rate, start in _both(bench, found):
                _single(bench, rate, start)
            found.one_connection += commits.measure(bench.server, 1, 10)
    return found


def _single(bench: Bench, rate: Rate, start: Start) -> None:
    sent = time.monotonic()
    start()
    bench.marks.wait(1, SECONDS)
    [trail] = bench.marks.trails()
    bench.marks.clear()
    rate.starts.append(trail.began - sent)
    rate.gaps += trail.gaps
    time.sleep(0.02)  # for its last commit; asking would count


@dataclass(frozen=True, slots=True)
class Counted:
    """What the server counted, for one of each."""

    starting: Counts
    loaded: Counts
    alone: Counts
    idle: Counts


def counted(bench: Bench, count: int, seconds: float) -> Counted:
    """Count what starting, a full queue, single runs and idleness ask of the server."""
    with worker(bench.app) as running:
        bench.warm(running)
        running.turn_deaf()
        bench.server.reset()
        for _ in range(count):
            bench.start_run()
        starting = bench.server.counts(count)
        bench.server.reset()
        running.hear()
        bench.wait(count)
        running.wait_until_quiet()
        loaded = bench.server.counts(count)
        bench.marks.clear()
        bench.server.reset()
        for _ in range(count // 5):
            _single(bench, Rate(), bench.start_run)
        single = bench.server.counts(count // 5)
        with beat():
            time.sleep(3)
            bench.server.reset()
            time.sleep(seconds)
            idle = bench.server.counts(seconds)
    return Counted(starting, loaded, single, idle)
