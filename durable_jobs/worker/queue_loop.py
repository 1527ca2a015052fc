"""Serving a queue: claim, advance, and claim again until nothing is eligible."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from django.db import connections, reset_queries

from durable_jobs import clock, notifier
from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry
from durable_jobs.engine import attempt, time_limits
from durable_jobs.engine.isolation import apart, isolated
from durable_jobs.events import routing
from durable_jobs.lifecycle import admission
from durable_jobs.maintenance import timers
from durable_jobs.models import Run
from durable_jobs.store import item_errors, leases, pending_work
from durable_jobs.store.connection_state import Guard
from durable_jobs.worker.background import ClaimedBatch, keeper, release_batch
from durable_jobs.worker.shutdown import stopping

logger = logging.getLogger("durable_jobs")

#: Runs that take longer than this are claimed one at a time.
SHORT = 0.05
#: How far apart the clocks of two processes may be, in seconds.
SLACK = 0.25

#: A queue is behind when all that a claim finds was due so many seconds ago.
BEHIND = 1.0
#: For how many seconds a function that was alone in a queue is taken to be.
ALONE = 0.1

#: How many seconds a process serves one queue before it looks at others (again).
ELSEWHERE = 0.1

#: When this process last looked at other queues than the one that it serves.
_elsewhere_at = float("-inf")
#: When this process last began a look at a queue that left nothing eligible in it.
_served_at: dict[str, float] = {}


class BatchSizer:
    """How long runs take here lately; it decides how many to claim at once."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def took(self, seconds: float) -> None:
        """Note how long a run took; the latest count most."""
        self._seconds += 0.3 * (seconds - self._seconds)

    def batch(self) -> int:
        """Return how many runs to claim."""
        return settings.CLAIM_BATCH if self._seconds < SHORT else 1


_pace = BatchSizer()


class FairClaiming:
    """Whether a claim takes the oldest runs, or the oldest of each function.

    A queue is first in, first out as long as it keeps up. Where it is behind, the
    claims take turns, so that no function waits until the backlog of another is done.
    """

    def __init__(self) -> None:
        self.one_per_function = False
        self._alone_until = 0.0

    def took(self, claimed: list[Run], *, behind: bool) -> None:
        """Note what a claim has found, and whether the queue is behind."""
        now = clock.monotonic()
        if self.one_per_function and len(claimed) < 2:
            self._alone_until = now + ALONE
        self.one_per_function = (
            behind and not self.one_per_function and now >= self._alone_until
        )


def worker_name() -> str:
    """Return who executes: host, process, and thread where there are several."""
    thread = threading.current_thread()
    suffix = "" if thread is threading.main_thread() else f":{thread.name}"
    return f"{socket.gethostname()}:{os.getpid()}{suffix}"[:255]


@apart
def drain_queue(
    queue: str,
    *,
    finished: Callable[[], bool] = lambda: False,
    others: Sequence[str] = (),
    timers_first: bool = False,
) -> int:
    """Execute what is eligible in a queue until nothing is, or ``finished``.

    Returns how many runs were advanced. Work that is left when it stops early is rung
    for again. The wake-ups of ``others`` may wait behind this one, so where it takes
    long, some of their work is done now and then. A wake-up is mostly for a run that
    was sent, so that is claimed before anything else is looked at, but for
    ``timers_first`` and where runs take so long that all the rest would wait for one.
    """
    began, since = clock.now().timestamp(), clock.monotonic()
    looked = timers_first or _pace.batch() == 1
    due = looked and _look()[1]
    count = 0
    turns = FairClaiming()
    guard = Guard()
    with keeper().serving(queue):
        while True:
            if finished() or stopping():
                notifier.notify_now(queue)
                return count
            _restore(guard)
            size = _pace.batch()
            if keeper().alarmed(queue) or due:
                due = isolated(timers.end_due, size, queue) >= size
            advanced, last = _serve_batch(queue, size, turns, more=due, first=not count)
            count += advanced
            count += _serve_other_queues(others, since)
            if not looked:
                looked = True
                routed, due = _look()
                last = last and not routed
            if last and not due and not _another(queue):
                break
    _served_at[queue] = began
    return count


def _restore(guard: Guard) -> None:
    """Restore the connections that code outside of any body has changed."""
    trouble = guard.end("Code of your project outside of a step's body")
    if trouble is not None:
        logger.error("%s", trouble)


def _look() -> tuple[bool, bool]:
    """Offer new events to the waits; tell whether there were any, and due timers."""
    pending, due = pending_work.look()
    if pending:
        isolated(routing.route)
    return pending, due


def _serve_other_queues(others: Sequence[str], since: float) -> int:
    """Advance a batch of each of the others, unless that was done a moment ago."""
    global _elsewhere_at
    if not others or clock.monotonic() < max(since, _elsewhere_at) + ELSEWHERE:
        return 0
    _elsewhere_at = clock.monotonic()
    size = _pace.batch()
    return sum(
        _serve_batch(queue, size, FairClaiming(), more=False, first=False)[0]
        for queue in others
    )


def _serve_batch(
    queue: str, size: int, turns: FairClaiming, *, more: bool, first: bool
) -> tuple[int, bool]:
    """Claim and execute; return how many were advanced, and whether they were all.

    ``more``: there are timers that are due beside what can be claimed.
    """
    admit = partial(isolated, admission.admit, queue, size)
    item_errors.guarded("admission", queue, admit, pauses=False)
    heads = turns.one_per_function
    claimed = leases.claim(queue, size, worker_name(), one_per_function=heads)
    full = len(claimed) == size
    turns.took(claimed, behind=full and (more or _late(claimed)))
    if not claimed:
        return 0, not heads
    if full and first:
        notifier.notify_now(queue)  # there may be more than one worker can take
    chosen = _isolate_crash_suspect(isolated(admission.recheck_limits, claimed))
    if chosen:
        _advance_all(ClaimedBatch(chosen))
    # What became eligible since then has rung.
    all_of_it = not full and not heads and chosen == claimed
    return len(chosen), all_of_it and not registry.controlled


def _late(claimed: list[Run]) -> bool:
    """Tell whether even the run that was due last has waited for long."""
    due = max(run.due_at for run in claimed)
    return (clock.now() - due).total_seconds() > BEHIND


def _another(queue: str) -> bool:
    """Wait for a timer that is due so soon that a wake-up for it would be late."""
    left = keeper().soon(queue)
    if left is None:
        return False
    time.sleep(left)
    return True


def already_served(queue: str, rung_at: float) -> bool:
    """Tell whether all that a wake-up was rung for has been found here since.

    A look that is still to come was before the clock went back: it answers nothing.
    """
    looked_at = _served_at.get(queue, 0.0)
    return rung_at + SLACK < looked_at <= clock.now().timestamp() + SLACK


def _isolate_crash_suspect(claimed: list[Run]) -> list[Run]:
    """Return what to execute now: a run that has lost its worker before, by itself.

    What is claimed with it would share its crashes, and end for them. The rest goes
    back before it begins.
    """
    suspect = next((run for run in claimed if run.crash_count > 1), None)
    if suspect is None or len(claimed) == 1:
        return claimed
    release_batch([run for run in claimed if run is not suspect])
    return [suspect]


def _advance_all(batch: ClaimedBatch) -> None:
    own = keeper()
    with own.watching(batch):
        while (run := batch.next()) is not None:
            if stopping() or time_limits.near():
                release_batch([run, *batch.rest()])
                return
            item_errors.guarded(
                "run",
                run.pk,
                partial(_advance, run),
                # Its crash stays counted, so that this ends.
                put_off=partial(leases.requeue_dead_holder, run),
                run_id=run.pk,
            )


def _advance(run: Run) -> None:
    own = keeper()
    began = clock.monotonic()
    with own.holding(run):
        attempt.execute_attempt(
            run,
            threads=settings.BRANCH_THREADS,
            lost=partial(own.lost, run.pk),
            stopping=stopping,
        )
    _pace.took(clock.monotonic() - began)
    _tidy()


def _tidy() -> None:
    """Leave no broken connection, and no log of queries, to the next run."""
    reset_queries()
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()
