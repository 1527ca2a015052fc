"""Actions on runs, without permission checks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from durable_jobs import clock, ids, notifier, serialization
from durable_jobs.conf import settings
from durable_jobs.definitions.events import (
    ReceivedEvent,
    check_mapping,
    check_moment,
)
from durable_jobs.definitions.flow_control import Throttle
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.exceptions import ConfigurationError, RunNotFinished
from durable_jobs.failpoints import failpoint
from durable_jobs.flow_control import rates
from durable_jobs.lifecycle import causation, event_windows, finish, run_event, start
from durable_jobs.lifecycle.start import NewRun
from durable_jobs.maintenance import timers
from durable_jobs.models import STEP_PAYLOADS, Run, Step, Wait, WaitKind
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.signals import announce, run_changed
from durable_jobs.statuses import STEP_ENDED, RunStatus, StepStatus
from durable_jobs.store import db, run_changes, runs, waits
from durable_jobs.store import event_windows as window_rows
from durable_jobs.store.waits import WaitOutcome

#: Kinds of waits that a person may answer. Approvals are excluded, because only users
#: with the permission of the step may decide them.
ANSWERABLE = frozenset(
    {
        WaitKind.CALLBACK,
        WaitKind.CHILD,
        WaitKind.EVENT,
        WaitKind.MODEL,
        WaitKind.POLL,
        WaitKind.RETRY,
        WaitKind.SIGNAL,
    }
)
FIRST_PAUSE = 0.01
LONGEST_PAUSE = 0.5


def cancel(run: Run, reason: str) -> bool:
    """Cancel a live run; return whether this call did it."""
    failpoint("cancel.begin", run.function)
    done = finish.cancel(_fresh(run), reason)
    failpoint("cancel.committed", run.function)
    run.refresh_from_db()
    return done


def pause(run: Run, reason: str) -> bool:
    """Pause a live run; return whether this call did it."""
    failpoint("pause.begin", run.function)
    done = run_changes.pause(run.pk, reason)
    failpoint("pause.committed", run.function)
    return _announced(run, done)


def resume(run: Run) -> bool:
    """Resume a paused run; return whether this call did it."""
    failpoint("resume.begin", run.function)
    resumed = run_changes.resume(run.pk)
    failpoint("resume.committed", run.function)
    done = _announced(run, resumed)
    if done:
        notifier.notify(run.queue)
    return done


def _announced(run: Run, done: bool) -> bool:
    run.refresh_from_db()
    if done:
        announce(
            run_changed,
            run_id=run.pk,
            function=run.function,
            status=run.status,
            reason=run.reason,
        )
    return done


def rerun(
    run: Run, from_step: str | None, data: Any, new: uuid.UUID | None = None
) -> Run:
    """Start a run again as a new run, with the steps recorded before ``from_step``.

    ``new`` is the id of the new run. Raise ``IntegrityError`` if the id is taken.
    """
    function = registry.get(run.function)
    check_mapping(data, f"the data of {function.id!r}")
    causation.check(f"run {run.pk} again")
    source = _fresh(run)
    if data is None:
        text = run_changes.stored_data(source.pk)
    else:
        text = start.payload(function, source.trigger, data)
        # New data replaces the whole batch of events of the run.
        (source.event_meta or {}).pop(event_windows.COUNT, None)
    kept = _before(source, from_step) if from_step is not None else []
    now = clock.now()
    origin = {**(source.event_meta or {}), "ts": now.isoformat()}
    made = NewRun(
        function=function,
        data=text,
        event_meta=origin
        if source.event_meta
        else run_event.build_event_meta(source.trigger, now),
        due_at=now,
        id=new or ids.new_id(),
        event_id=source.event_id,
        parent=source,
        parent_relation=runs.RERUN,
        subjects=tuple(source.subjects.values_list("model", "object_pk")),
    )
    with db.atomic():
        begun = start.start([made])[0]
        run_changes.copy_steps(source, begun, kept)
        if event_windows.COUNT in (begun.event_meta or {}):
            window_rows.copy(window_rows.events_of_run(source.pk), begun.pk)
    return db.rows(Run).get(pk=begun.pk)


def _before(run: Run, from_step: str) -> list[str]:
    """Return the keys of the ended steps recorded before a step, given by id or key."""
    found = db.rows(Step).filter(run=run).order_by("position")
    rows = list(found.defer(*STEP_PAYLOADS))
    positions = [row.position for row in rows if from_step in (row.name, row.key)]
    if not positions:
        names = ", ".join(sorted({repr(row.name) for row in rows})) or "none"
        msg = f"Run {run.pk} has no step {from_step!r}; it has {names}."
        raise ConfigurationError(msg)
    # The parents of the step are open again when the step starts again.
    by_pk, around = {row.pk: row for row in rows}, set()
    parent = next(row.parent_id for row in rows if row.position == positions[0])
    while parent in by_pk:
        around.add(parent)
        parent = by_pk[parent].parent_id
    return [
        row.key
        for row in rows
        if row.position < positions[0]
        and row.status in STEP_ENDED - {StepStatus.CANCELLED}
        and row.pk not in around
    ]


def redrive_all(chosen: Iterable[Run], rate: Throttle | None) -> int:
    """Redrive ended runs at a rate; return the number of redriven runs."""
    limit = rate.limit if rate is not None else 0
    if callable(limit):
        msg = "Expected a number as the limit of the rate to redrive at."
        raise ConfigurationError(msg)
    now, arrives, count = clock.now(), None, 0
    for run in chosen:
        due_at = None
        if rate is not None:
            interval = rate.interval(limit)
            due_at, after = rates.conform(arrives, now, interval, rate.burst)
        if redrive(run, due_at):
            count += 1
            arrives = None if rate is None else after
    return count


def redrive(run: Run, due_at: datetime | None = None) -> bool:
    """Continue a failed or cancelled run where it ended, with new retries."""
    source = _fresh(run)
    if source.children.filter(parent_relation=runs.BATCH).exists():
        return False  # other runs have processed its events
    function = registry.get(source.function)
    failed = str((source.error or {}).get("step", ""))
    source.due_at = due_at or clock.now()
    limits = start.early_ends(function, source, run_changes.stored_data(source.pk))
    failpoint("redrive.begin", run.function)
    done = run_changes.redrive(source, _chain(source, failed), function.queue, limits)
    failpoint("redrive.committed", run.function)
    _announced(run, done)
    if done:
        notifier.notify(function.queue)
    return done


def _chain(run: Run, key: str) -> list[str]:
    """Return a failed step with its failed parents and its failed children.

    If a branch failed, its parallel step is executed again. If a parallel step failed,
    only its failed branches are executed again.
    """
    if not key:
        return []
    every = db.rows(Step).filter(run=run).defer(*STEP_PAYLOADS)
    rows = {row.pk: row for row in every}
    found = {row.pk for row in rows.values() if row.key == key}
    around = [rows[pk].parent_id for pk in found]
    while around:
        parent = around.pop()
        if parent in rows and rows[parent].status == StepStatus.FAILED:
            found.add(parent)
        if parent in rows:
            around.append(rows[parent].parent_id)
    grown = True
    while grown:
        below = {
            row.pk
            for row in rows.values()
            if row.parent_id in found
            and row.status == StepStatus.FAILED
            and row.pk not in found
        }
        found |= below
        grown = bool(below)
    return [rows[pk].key for pk in found]


def retry_now(run: Run) -> bool:
    """Start the next attempt of a run now; return whether it was waiting for one."""
    return _make_due_now(run, {WaitKind.RETRY}, retries=True)


def wake(run: Run) -> bool:
    """End the sleeps or the delay of a run now; return whether there were any."""
    return _make_due_now(run, {WaitKind.SLEEP, WaitKind.POLL}, retries=False)


def _make_due_now(run: Run, kinds: set[WaitKind], *, retries: bool) -> bool:
    done = run_changes.make_due_now(run.pk, kinds, retries=retries)
    if done:
        db.after_commit(timers.sweep)
        notifier.notify(run.queue)
    run.refresh_from_db()
    return done


def answer(run: Run, step: str, value: Any) -> bool:
    """End the wait of an open step with a value as its result.

    ``step`` is the key of the step. For a wait for an event, the value is the data of
    the event. For ``wait_for_any``, the first alternative is answered. A step that
    waits for a retry is skipped.
    """
    rows = db.rows(Wait).filter(run_id=run.pk, step=step)
    wait = rows.filter(kind__in=sorted(ANSWERABLE)).order_by("pk").first()
    if wait is None or not step:
        return False
    outcome = WaitOutcome(StepStatus.COMPLETED, output=_encoded_answer(wait, value))
    woken = waits.resolve(wait, outcome)
    run.refresh_from_db()
    if woken is None:
        return False
    notifier.notify(woken.queue)
    return True


def _encoded_answer(wait: Wait, value: Any) -> EncodedJSON:
    inner = value
    if wait.kind == WaitKind.EVENT:
        event = ReceivedEvent(str(ids.new_id()), wait.name, value, clock.now())
        inner = event.as_dict() | {"data": value, "ts": event.ts}
    text = serialization.dumps(
        [wait.branch, inner] if wait.branch else inner,
        what="the answer to a step",
        limit=settings.MAX_STEP_BYTES,
        limit_setting="MAX_STEP_BYTES",
    )
    return EncodedJSON(text)


def wait(run: Run, timeout: float | None) -> None:
    """Wait until a run has ended, and refresh it; raise ``RunNotFinished``."""
    if db.created_here(run.pk):
        msg = (
            f"Run {run.pk} of {run.function} starts when the transaction that created "
            f"it commits, so waiting for the run inside that transaction would never "
            f"end. Wait after the commit. Under ATOMIC_REQUESTS, a view is one "
            f"transaction."
        )
        raise ConfigurationError(msg)
    deadline = None if timeout is None else clock.monotonic() + timeout
    pause, tried = FIRST_PAUSE, False
    while True:
        run.refresh_from_db()
        if not run.is_live:
            return
        late = deadline is not None and clock.monotonic() >= deadline
        if not (late and tried):
            tried = True
            if notifier.installed().run_pending():
                continue
        if late or notifier.installed().manual_clock:
            when = f"after {timeout} s" if late else "and no run can continue now"
            msg = f"Run {run.pk} of {run.function} is {run.status} {when}."
            raise RunNotFinished(msg, run_id=str(run.pk))
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def replay(
    function: Function,
    since: datetime | None,
    until: datetime | None,
    statuses: Iterable[str] | None,
) -> list[Run]:
    """Rerun the runs of a function that were queued in a time range."""
    check_moment(since, "since")
    check_moment(until, "until")
    rows = db.rows(Run).filter(function=function.id)
    if since is not None:
        rows = rows.filter(queued_at__gte=since)
    if until is not None:
        rows = rows.filter(queued_at__lt=until)
    if statuses is not None:
        rows = rows.filter(status__in=_statuses(statuses))
    return [rerun(run, None, None) for run in list(rows.order_by("pk"))]


def _statuses(wanted: Iterable[str]) -> list[str]:
    found = [wanted] if isinstance(wanted, str) else list(wanted)
    if isinstance(wanted, str) or not set(found) <= set(RunStatus.values):
        msg = f"Expected a list of statuses among {RunStatus.values}, got {wanted!r}."
        raise ConfigurationError(msg)
    return found


def _fresh(run: Run) -> Run:
    return db.rows(Run).get(pk=run.pk)
