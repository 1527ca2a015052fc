"""Drain a queue: claim runs and execute them until no run is eligible."""

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
from durable_jobs.engine.isolation import isolate, isolated
from durable_jobs.events import routing
from durable_jobs.lifecycle import admission
from durable_jobs.maintenance import timers
from durable_jobs.models import Run
from durable_jobs.store import item_errors, leases, pending_work
from durable_jobs.store.connection_state import Guard
from durable_jobs.worker import shutdown
from durable_jobs.worker.background import background_thread
from durable_jobs.worker.claimed_batch import ClaimedBatch, release_batch

logger = logging.getLogger("durable_jobs")

#: If runs take longer than this, they are claimed one at a time.
SHORT_RUN = 0.05
#: The greatest difference between the clocks of two processes, in seconds.
MAX_CLOCK_SKEW = 0.25

#: A queue is behind if all runs of a claim have been due for this many seconds.
BEHIND = 1.0
#: How many seconds a queue is assumed to hold runs of one function only.
ALONE = 0.1

#: Seconds between two batches from the other queues of this worker.
OTHER_QUEUES_INTERVAL = 0.1

#: When this process last executed a batch from other queues.
_other_queues_at = float("-inf")
#: When this process last began to drain a queue, if it drained the queue fully.
_drained_at: dict[str, float] = {}


class BatchSizer:
    """Chooses how many runs to claim at once, by how long recent runs took."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def record(self, seconds: float) -> None:
        """Record how long a run took. Recent runs weigh most."""
        self._seconds += 0.3 * (seconds - self._seconds)

    def size(self) -> int:
        """Return how many runs to claim."""
        return settings.CLAIM_BATCH if self._seconds < SHORT_RUN else 1


_batch_sizer = BatchSizer()


class FairClaiming:
    """Chooses whether a claim takes the oldest runs, or the oldest of each function.

    A queue that keeps up is first in, first out. If the queue is behind, the two kinds
    of claims alternate, so that no function waits for the runs of another.
    """

    def __init__(self) -> None:
        self.one_per_function = False
        self._alone_until = 0.0

    def record(self, claimed: list[Run], *, behind: bool) -> None:
        """Record the result of a claim, and whether the queue is behind."""
        now = clock.monotonic()
        if self.one_per_function and len(claimed) < 2:
            self._alone_until = now + ALONE
        self.one_per_function = (
            behind and not self.one_per_function and now >= self._alone_until
        )


def worker_name() -> str:
    """Return the host, the process id, and the thread unless it is the main thread."""
    thread = threading.current_thread()
    suffix = "" if thread is threading.main_thread() else f":{thread.name}"
    return f"{socket.gethostname()}:{os.getpid()}{suffix}"[:255]


@isolate
def drain_queue(
    queue: str,
    *,
    finished: Callable[[], bool] = lambda: False,
    others: Sequence[str] = (),
    timers_first: bool = False,
) -> int:
    """Execute the eligible runs of a queue until there are none, or ``finished``.

    Return how many runs were advanced. If the loop stops early, it sends a wake-up
    message for the remaining runs. Wake-up messages for the queues ``others`` may be
    waiting behind this task, so the loop executes a batch from them now and then.

    Most wake-up messages announce a new run. So the loop claims first, and checks
    events and timers afterwards. It checks them first with ``timers_first``, or if
    runs take long.
    """
    began, since = clock.now().timestamp(), clock.monotonic()
    checked = timers_first or _batch_sizer.size() == 1
    due = checked and _route_events()[1]
    count = 0
    fairness = FairClaiming()
    guard = Guard()
    alarms = background_thread().alarms
    with alarms.draining(queue):
        while True:
            if finished() or shutdown.requested():
                notifier.notify_now(queue)
                return count
            _restore(guard)
            size = _batch_sizer.size()
            if alarms.take_due(queue) or due:
                due = isolated(timers.end_due, size, queue) >= size
            advanced, last = _serve_batch(
                queue, size, fairness, more=due, first=not count
            )
            count += advanced
            count += _serve_other_queues(others, since)
            if not checked:
                checked = True
                routed, due = _route_events()
                last = last and not routed
            if last and not due and not _wait_for_alarm(queue):
                break
    _drained_at[queue] = began
    return count


def _restore(guard: Guard) -> None:
    """Restore the connections that code outside of any step's body has changed."""
    problem = guard.end("Code of your project outside of a step's body")
    if problem is not None:
        logger.error("%s", problem)


def _route_events() -> tuple[bool, bool]:
    """Route pending events. Return whether there were events, and due timers."""
    pending, due = pending_work.check()
    if pending:
        isolated(routing.route)
    return pending, due


def _serve_other_queues(others: Sequence[str], since: float) -> int:
    """Execute a batch from each other queue, unless the last time is recent."""
    global _other_queues_at
    if (
        not others
        or clock.monotonic() < max(since, _other_queues_at) + OTHER_QUEUES_INTERVAL
    ):
        return 0
    _other_queues_at = clock.monotonic()
    size = _batch_sizer.size()
    return sum(
        _serve_batch(queue, size, FairClaiming(), more=False, first=False)[0]
        for queue in others
    )


def _serve_batch(
    queue: str, size: int, fairness: FairClaiming, *, more: bool, first: bool
) -> tuple[int, bool]:
    """Claim and execute. Return how many runs were advanced, and whether that was all.

    ``more``: there are due timers besides the runs to claim.
    """
    admit = partial(isolated, admission.admit, queue, size)
    item_errors.guarded("admission", queue, admit, pauses=False)
    one_per_function = fairness.one_per_function
    claimed = leases.claim(
        queue, size, worker_name(), one_per_function=one_per_function
    )
    full = len(claimed) == size
    fairness.record(claimed, behind=full and (more or _late(claimed)))
    if not claimed:
        return 0, not one_per_function
    if full and first:
        notifier.notify_now(queue)  # there may be more runs than this worker can take
    chosen = _isolate_crash_suspect(isolated(admission.recheck_limits, claimed))
    if chosen:
        _execute_all(ClaimedBatch(chosen))
    # Runs that became eligible since have sent a message of their own.
    all_claimed = not full and not one_per_function and chosen == claimed
    return len(chosen), all_claimed and not registry.needs_admission


def _late(claimed: list[Run]) -> bool:
    """Return whether every run of the claim has waited for long."""
    due = max(run.due_at for run in claimed)
    return (clock.now() - due).total_seconds() > BEHIND


def _wait_for_alarm(queue: str) -> bool:
    """Wait for a timer that is due too soon for a wake-up message.

    Return whether there is one.
    """
    left = background_thread().alarms.seconds_to_next(queue)
    if left is None:
        return False
    time.sleep(left)
    return True


def already_served(queue: str, sent_at: float) -> bool:
    """Return whether this process has drained the queue since a message was sent.

    A time in the future does not count: the clock was set back since.
    """
    drained_at = _drained_at.get(queue, 0.0)
    return (
        sent_at + MAX_CLOCK_SKEW
        < drained_at
        <= clock.now().timestamp() + MAX_CLOCK_SKEW
    )


def _isolate_crash_suspect(claimed: list[Run]) -> list[Run]:
    """Return the runs to execute now: a crash suspect alone, else all of them.

    A suspect is a run whose worker has died more than once. Runs that were claimed with
    it would share its crashes and fail. They are released before the suspect starts.
    """
    suspect = next((run for run in claimed if run.crash_count > 1), None)
    if suspect is None or len(claimed) == 1:
        return claimed
    release_batch([run for run in claimed if run is not suspect])
    return [suspect]


def _execute_all(batch: ClaimedBatch) -> None:
    with background_thread().batches.watching(batch):
        while (run := batch.next()) is not None:
            if shutdown.requested() or time_limits.nearly_over():
                release_batch([run, *batch.take_rest()])
                return
            item_errors.guarded(
                "run",
                run.pk,
                partial(_execute, run),
                # It counts as a crash, so MAX_CRASHES bounds such attempts.
                postpone=partial(leases.requeue_dead_holder, run),
                run_id=run.pk,
            )


def _execute(run: Run) -> None:
    background = background_thread()
    background.alarms.record_activity()
    began = clock.monotonic()
    with background.leases.renewing(run):
        attempt.execute_attempt(
            run,
            threads=settings.BRANCH_THREADS,
            lease_lost=partial(background.leases.lost, run.pk),
            shutting_down=shutdown.requested,
        )
    _batch_sizer.record(clock.monotonic() - began)
    _tidy()


def _tidy() -> None:
    """Close broken connections and clear the query log before the next run."""
    reset_queries()
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()
