"""Admission: short transactions, one at a time, that apply flow control.

Workers run an admission before they claim. The tick runs one for idle workers. See
``flow_control``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from django.db.models import Exists, QuerySet

from durable_jobs import clock, notifier
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.failpoints import failpoint
from durable_jobs.flow_control import keys, limits, promotion, screening
from durable_jobs.flow_control import pauses as pause_state
from durable_jobs.flow_control.keys import KeyedLimit
from durable_jobs.flow_control.screening import Screening
from durable_jobs.lifecycle import event_windows, finish, run_event
from durable_jobs.models import Backlog, Limit, Pause, Run, Slot
from durable_jobs.statuses import RunStatus
from durable_jobs.store import backlogs, db, exists_probe, item_errors, leases
from durable_jobs.store import event_windows as window_rows
from durable_jobs.store import limits as limit_rows
from durable_jobs.store.runs import End

#: Rounds that one admission runs while more work is left.
MAX_ADMISSION_ROUNDS = 50
#: Backlogs, or runs of old backlogs, that one sweep restarts.
BACKLOG_BATCH = 500
#: Runs of a paused function that one transaction moves.
PAUSED_BATCH = 1000
#: Seconds for one transaction's worth of paused runs; the next tick continues.
LONGEST = 1.0
#: The work that the next tick of this process continues.
unfinished: set[str] = set()


def work_queries(now: datetime, known: Iterable[str]) -> dict[str, Exists]:
    """Return the queries that show whether an admission has work.

    ``known``: the functions that are declared in this process.
    """
    fresh, due = window_rows.unassigned(now), window_rows.due(now)
    return {
        "new_runs": Exists(backlogs.awaiting_admission(known, now).order_by()),
        "unassigned_events": Exists(fresh.filter(function__in=known).order_by()),
        "due_windows": Exists(due.filter(function__in=known).order_by()),
        "eligible_backlogs": Exists(backlogs.eligible(known, now)),
        "released_slots": Exists(db.rows(Slot).filter(limit_rows.is_released())),
    }


_probe = exists_probe.Probe(work_queries)


def pending_work() -> set[str]:
    """Return the kinds of work that an admission has."""
    results = _probe.evaluate([clock.now()], tuple(registry.ids()))
    return {name for name, there in results.items() if there}


def admit(queue: str | None = None, wanted: int = 0) -> int:
    """Screen new runs, and promote up to ``wanted`` runs of a queue; return how many.

    No query is made if no function has flow control.
    """
    if not registry.needs_admission:
        return 0
    if queue is not None and wanted:
        # Promoted runs that are not claimed yet count.
        wanted -= backlogs.promoted_in(queue)[:wanted].count()
    work = pending_work()
    return run_rounds(queue, wanted, work) if work else 0


#: All kinds of work of an admission.
ALL_WORK = frozenset(
    {
        "new_runs",
        "unassigned_events",
        "due_windows",
        "eligible_backlogs",
        "released_slots",
    }
)


def run_rounds(
    queue: str | None = None, wanted: int = 0, work: Set[str] = ALL_WORK
) -> int:
    """Run rounds of admission until there is no more work; return the promoted runs."""
    promoted = 0
    for _ in range(MAX_ADMISSION_ROUNDS):
        if work & {"unassigned_events", "due_windows"}:
            _fill_windows()
        done = _round(queue, wanted - promoted, work)
        work = ALL_WORK
        promoted += done.promoted
        if not done.again or 0 < wanted <= promoted:
            break
    return promoted


def acquire_more_slots(run: Run, wanted: int) -> list[int]:
    """Acquire more slots for parallel steps of a run; return their ids.

    As many as its limits have room for, but none while other runs wait for a limit. One
    slot at each limit allows one more step.
    """
    function = registry.find(run.function)
    if function is None or run.flow is None:
        return []
    keyed_limits = keys.keyed_limits(function, run.flow, starting=False)
    held = db.rows(Run).filter(
        pk=run.pk, lease_token=run.lease_token, lease_token__isnull=False
    )
    with limit_rows.locked():
        if not held.exists():
            return []
        slots = promotion.extra_slots(run, keyed_limits, wanted)
        limit_rows.acquire(slots)
    return [slot.pk for slot in slots]


def recheck_limits(claimed: Sequence[Run]) -> list[Run]:
    """Return the claimed runs that may execute; send the others back to admission.

    The others were queued before a limit was declared that applies to them now. A run
    that has started is subject to limits on steps alone.
    """
    if not registry.needs_admission:
        return list(claimed)
    unlimited: dict[uuid.UUID, keys.Flow] = {}
    postponed: set[uuid.UUID] = set()
    for run in claimed:
        function = registry.find(run.function)
        if function is None:
            continue
        item_errors.guarded(
            "run",
            run.pk,
            partial(_add_missing_limits, run, function, unlimited),
            postpone=partial(_postpone, run, postponed),
            run_id=run.pk,
        )
    if unlimited:
        backlogs.requeue_claimed(
            [run for run in claimed if run.pk in unlimited], unlimited
        )
        failpoint("claim.returned")
    return [
        run for run in claimed if run.pk not in unlimited and run.pk not in postponed
    ]


def _add_missing_limits(
    run: Run, function: Function, unlimited: dict[uuid.UUID, keys.Flow]
) -> None:
    missing = keys.missing_limits(
        function, run.flow, starting=not backlogs.has_executed(run)
    )
    if missing:
        event = run_event.event_of(run)
        unlimited[run.pk] = keys.with_missing_keys(function, run.flow, missing, event)


def _postpone(run: Run, postponed: set[uuid.UUID], until: datetime) -> None:
    postponed.add(run.pk)
    leases.requeue_dead_holder(run, until)


def sweep() -> int:
    """Run the admission that workers did not run; return how many queues have work."""
    run_rounds()
    waiting = backlogs.eligible_queues(registry.ids())
    if not registry.needs_admission:
        # No worker runs admissions without declared limits. Empty the old backlogs.
        return sum(run_rounds(queue, BACKLOG_BATCH) for queue in sorted(waiting))
    return len(waiting)


def set_aside_paused() -> int:
    """Move runs of paused functions to where workers do not claim; return how many.

    If the pause skips runs, the runs end. Otherwise they are kept in a backlog.
    """
    count = 0
    for pause in db.rows(Pause).exclude(kind=Pause.KEY):
        moved: list[int] = []
        item_errors.guarded("pause", pause.pk, partial(_set_aside, pause, moved))
        count += sum(moved)
    return count


def _set_aside(pause: Pause, moved: list[int]) -> None:
    until = clock.monotonic() + LONGEST
    while True:
        moved.append(_set_aside_batch(pause))
        if moved[-1] < PAUSED_BATCH:
            return
        if clock.monotonic() > until:
            unfinished.add("paused")
            return


def _set_aside_batch(pause: Pause) -> int:
    """Move a batch of runs, unless the pause has ended."""
    with db.atomic():
        held = pause_state.lock_pause(pause)
        if held is None:
            return 0
        if held.kind == Pause.QUEUE:
            return backlogs.requeue_promoted(
                backlogs.promoted_in(held.name), PAUSED_BATCH
            )
        if not held.skip:
            return pause_state.set_aside_paused(held.name, PAUSED_BATCH)
        new_runs = backlogs.ready_unstarted(held.name).filter(
            queued_at__gte=held.paused_at
        )
        chosen = list(new_runs.values_list("pk", flat=True)[:PAUSED_BATCH])
        # A run that is queued in between is for the next batch.
        before = held.paused_at
        moved = (
            0
            if chosen
            else pause_state.set_aside_paused(held.name, PAUSED_BATCH, before=before)
        )
    reason = pause_state.skips(pause_state.load(), held.name, (), clock.now())
    _skip(dict.fromkeys(chosen, reason) if reason is not None else {})
    return moved + (len(chosen) if reason is not None else 0)


def restart_function(function: str) -> None:
    """Restart the backlogs of a function whose pause has ended."""
    rows = db.rows(Backlog).filter(function=function)
    inactive = rows.filter(active=False, blocked_on__isnull=True)
    unlimited = rows.filter(active=True, eligible_at__gt=clock.now())
    with limit_rows.locked():
        pause_state.restart_backlogs(rows.filter(pk__in=_first_batch(inactive)))
        backlogs.make_eligible(rows.filter(pk__in=_first_batch(unlimited)))


def restart_queue(queue: str) -> None:
    """Restart the blocked backlogs of a queue whose pause has ended."""
    rows = db.rows(Backlog).filter(queue=queue)
    blocked = rows.filter(blocked_on__isnull=False)
    with limit_rows.locked():
        backlogs.activate(rows.filter(pk__in=_first_batch(blocked)))


def _first_batch(rows: QuerySet[Backlog]) -> list[int]:
    """Return the backlogs of one batch; the tick restarts the others."""
    return list(
        rows.order_by("eligible_at").values_list("pk", flat=True)[:BACKLOG_BATCH]
    )


def reopen(name: str, limit: int) -> None:
    """Restart as many backlogs as a limit has room for after its value has grown.

    Backlogs that wait for a throttle use its new rate.
    """
    limit_row = db.rows(Limit).filter(name=name).first()
    if limit_row is None:
        return
    with limit_rows.locked():
        backlogs.unblock(limit_row.pk, limit)
        if limit_row.control == keys.THROTTLE:
            rows = db.rows(Backlog).filter(function=limit_row.function)
            backlogs.make_eligible(rows)


@dataclass(slots=True)
class _AdmissionRound:
    """The result of one round of admission."""

    promoted: int = 0
    more: bool = False
    due_at: datetime | None = None
    unknown: list[KeyedLimit] = field(default_factory=list)
    again: bool = False


def _round(queue: str | None, wanted: int, work: Set[str]) -> _AdmissionRound:
    done = _AdmissionRound()
    queue_name = queue or ""
    promotion_result = promotion.Promotion()
    with limit_rows.locked():
        failpoint("admit.begin", queue_name)
        pauses = pause_state.load()
        screened = Screening()
        if work & {"unassigned_events", "due_windows", "new_runs"}:
            screened = screening.screen_new_runs(pauses)
        done.more = screened.more
        done.unknown += screened.unknown
        if "released_slots" in work:
            for limit_row, count in sorted(limit_rows.delete_released_slots().items()):
                backlogs.unblock(limit_row, count)
        if queue is not None and wanted > 0 and queue not in pauses.queues:
            promotion_result = promotion.promote(queue, wanted, pauses)
            done.promoted, done.due_at = promotion_result.count, promotion_result.due_at
            done.unknown += promotion_result.unknown
            done.more = done.more or promotion_result.more
        others = backlogs.eligible_queues(registry.ids()) - {queue}
        failpoint("admit.written", queue_name)
    failpoint("admit.committed", queue_name)
    # In separate transactions: ending a run may lock others. After a crash here, the
    # next round screens the skipped runs again.
    _record_errors(screened, promotion_result)
    _skip(screened.skip_reasons)
    _replace(screened.replaced)
    failpoint("admit.done", queue_name)
    for name in sorted(others):
        notifier.notify(name)
    if queue is not None and done.due_at is not None:
        notifier.notify_at(done.due_at, queue)
    evaluated = _evaluate_limits(done.unknown)
    done.again = evaluated or done.more or bool(screened.replaced)
    return done


def _record_errors(screened: Screening, promotion_result: promotion.Promotion) -> None:
    """Record the errors of single runs and backlogs, and postpone these."""
    for run_id, error in screened.failed.items():
        item_errors.record_failure(
            "run",
            run_id,
            error,
            postpone=partial(backlogs.postpone_run, run_id),
            run_id=run_id,
        )
    for backlog, error in promotion_result.failed.items():
        postpone = partial(backlogs.postpone, backlog)
        item_errors.record_failure("backlog", backlog, error, postpone=postpone)


def _evaluate_limits(unknown: list[KeyedLimit]) -> bool:
    """Evaluate limits that were not cached; return whether there were any."""
    by_name = {keyed_limit.name: keyed_limit for keyed_limit in unknown}
    for name, keyed_limit in by_name.items():
        value, grown = limits.evaluate(keyed_limit)
        limit_rows.set_error(name, value.error)
        if grown and value.limit:
            reopen(name, value.limit)
    return bool(by_name)


def _fill_windows() -> None:
    """Put events in windows, and start runs for the windows that are due."""
    for _ in range(MAX_ADMISSION_ROUNDS):
        failed: dict[int, Exception] = {}
        with limit_rows.locked():
            more = event_windows.assign_windows(failed)
        for pk, error in failed.items():
            postpone = partial(window_rows.postpone_event, pk)
            item_errors.record_failure("buffered event", pk, error, postpone=postpone)
        closed = event_windows.close_due()
        if not (more and closed):
            return


def _skip(reasons: Mapping[uuid.UUID, str]) -> None:
    """End runs that must not start; a parent that invoked one is resumed."""
    if not reasons:
        return
    rows = db.rows(Run).filter(backlogs.not_admitted(), pk__in=list(reasons))
    ended_singly = rows.exclude(parent__isnull=True, started_at__isnull=True)
    single_runs = list(ended_singly.defer("data", "output"))
    for run in single_runs:
        # A run that has started can still be redriven.
        begun = run.started_at is not None
        status = RunStatus.CANCELLED if begun else RunStatus.SKIPPED
        end = partial(finish.finish, run, End(status, reason=reasons[run.pk]))
        _guarded_run(run, end)
    by_reason: dict[str, list[uuid.UUID]] = {}
    for run_id in reasons.keys() - {run.pk for run in single_runs}:
        by_reason.setdefault(reasons[run_id], []).append(run_id)
    for reason, run_ids in by_reason.items():
        for run in backlogs.skip(run_ids, reason):
            finish.announce_end(run, End(RunStatus.SKIPPED, reason=reason))


def _replace(replaced: Mapping[uuid.UUID, uuid.UUID]) -> None:
    """Cancel the live runs of singletons that newer runs replace."""
    rows = db.rows(Run).filter(pk__in=list(replaced))
    for run in rows.defer("data", "output"):
        reason = f"singleton: replaced by run {replaced[run.pk]}."
        _guarded_run(run, partial(finish.cancel, run, reason))


def _guarded_run(run: Run, work: Callable[[], object]) -> None:
    item_errors.guarded("run", run.pk, work, run_id=run.pk)
