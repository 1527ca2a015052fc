"""Admissions: one at a time, each a short transaction; see ``flow``.

Workers make them before they claim, and the tick makes them for those who do not.
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
from durable_jobs.flow_control.screening import Arrived
from durable_jobs.lifecycle import event_windows, finish, run_event
from durable_jobs.models import Backlog, Limit, Pause, Run, Slot
from durable_jobs.statuses import RunStatus
from durable_jobs.store import backlogs, db, exists_probe, item_errors, leases
from durable_jobs.store import event_windows as window_rows
from durable_jobs.store import limits as limit_rows
from durable_jobs.store.runs import End

#: Rounds that follow at once when there was more than one could take.
MOST_ROUNDS = 50
#: Runs of functions without limits that one sweep takes out of old backlogs.
LEFT_OVER = 500
#: Runs of a paused function that are taken out of the way at once.
SHELVED = 1000
#: Seconds after which that is left to the next tick.
LONGEST = 1.0
#: What this process has left to its next tick.
unfinished: set[str] = set()


def questions(now: datetime, known: Iterable[str]) -> dict[str, Exists]:
    """Return the questions whose answers tell whether an admission has work.

    For the functions that are ``known`` here.
    """
    fresh, due = window_rows.unassigned(now), window_rows.due(now)
    return {
        "arrived": Exists(backlogs.awaiting_admission(known, now).order_by()),
        "gathered": Exists(fresh.filter(function__in=known).order_by()),
        "windows": Exists(due.filter(function__in=known).order_by()),
        "turns": Exists(backlogs.eligible(known, now)),
        "released": Exists(db.rows(Slot).filter(limit_rows.any_released())),
    }


_probe = exists_probe.Probe(questions)


def needed() -> set[str]:
    """Return what there is to do for an admission."""
    answers = _probe.evaluate([clock.now()], tuple(registry.ids()))
    return {name for name, there in answers.items() if there}


def admit(queue: str | None = None, wanted: int = 0) -> int:
    """Take in what has come, and let up to ``wanted`` runs of a queue through.

    Returns how many are through. Free where no function has flow control.
    """
    if not registry.needs_admission:
        return 0
    if queue is not None and wanted:
        # What was let through and nobody has claimed yet is enough for now.
        wanted -= backlogs.promoted_in(queue)[:wanted].count()
    work = needed()
    return run_rounds(queue, wanted, work) if work else 0


#: All that an admission may have to do.
EVERYTHING = frozenset({"arrived", "gathered", "windows", "turns", "released"})


def run_rounds(
    queue: str | None = None, wanted: int = 0, work: Set[str] = EVERYTHING
) -> int:
    """Admit what is known to be needed; what comes meanwhile is for the next one."""
    through = 0
    for _ in range(MOST_ROUNDS):
        if work & {"gathered", "windows"}:
            _gather()
        done = _round(queue, wanted - through, work)
        work = EVERYTHING
        through += done.through
        if not done.again or 0 < wanted <= through:
            break
    return through


def acquire_more_slots(run: Run, wanted: int) -> list[int]:
    """Take more slots for steps that a run executes side by side; return their ids.

    As many for each as its limits have room for, but none while other runs wait there.
    One at each limit makes one more step.
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
        slots = promotion.more(run, keyed_limits, wanted)
        limit_rows.acquire(slots)
    return [slot.pk for slot in slots]


def recheck_limits(claimed: Sequence[Run]) -> list[Run]:
    """Return those of some claimed runs that may execute; the others stand in line.

    These came before a limit that the code has now: they waited in no line for it. A
    run that has begun is held to the limits on steps alone.
    """
    if not registry.needs_admission:
        return list(claimed)
    late: dict[uuid.UUID, keys.Flow] = {}
    left: set[uuid.UUID] = set()
    for run in claimed:
        function = registry.find(run.function)
        if function is None:
            continue
        item_errors.guarded(
            "run",
            run.pk,
            partial(_complete, run, function, late),
            put_off=partial(_give_up, run, left),
            run_id=run.pk,
        )
    if late:
        backlogs.requeue_claimed([run for run in claimed if run.pk in late], late)
        failpoint("claim.returned")
    return [run for run in claimed if run.pk not in late and run.pk not in left]


def _complete(run: Run, function: Function, late: dict[uuid.UUID, keys.Flow]) -> None:
    missing = keys.missing_limits(
        function, run.flow, starting=not backlogs.has_executed(run)
    )
    if missing:
        event = run_event.event_of(run)
        late[run.pk] = keys.completed(function, run.flow, missing, event)


def _give_up(run: Run, left: set[uuid.UUID], until: datetime) -> None:
    left.add(run.pk)
    leases.requeue_dead_holder(run, until)


def sweep() -> int:
    """Do a worker's part for those that are busy, or away; return how many rang."""
    run_rounds()
    waiting = backlogs.eligible_queues(registry.ids())
    if not registry.needs_admission:
        # Nobody admits: the code has no limits, and there may be backlogs left over.
        return sum(run_rounds(queue, LEFT_OVER) for queue in sorted(waiting))
    return len(waiting)


def set_aside_paused() -> int:
    """Take runs of paused functions from where workers claim; count them.

    Those that a pause skips end; the others are kept in a backlog of their own.
    """
    count = 0
    for pause in db.rows(Pause).exclude(kind=Pause.KEY):
        moved: list[int] = []
        item_errors.guarded("pause", pause.pk, partial(_shelve_all, pause, moved))
        count += sum(moved)
    return count


def _shelve_all(pause: Pause, moved: list[int]) -> None:
    until = clock.monotonic() + LONGEST
    while True:
        moved.append(_shelve(pause))
        if moved[-1] < SHELVED:
            return
        if clock.monotonic() > until:
            unfinished.add("paused")
            return


def _shelve(pause: Pause) -> int:
    """Move a batch, unless the pause has ended meanwhile."""
    with db.atomic():
        held = pause_state.still(pause)
        if held is None:
            return 0
        if held.kind == Pause.QUEUE:
            return backlogs.requeue_promoted(backlogs.promoted_in(held.name), SHELVED)
        if not held.skip:
            return pause_state.set_aside_paused(held.name, SHELVED)
        came = backlogs.ready_unstarted(held.name).filter(queued_at__gte=held.paused_at)
        chosen = list(came.values_list("pk", flat=True)[:SHELVED])
        # One that comes between the two is for the next batch.
        before = held.paused_at
        moved = (
            0
            if chosen
            else pause_state.set_aside_paused(held.name, SHELVED, before=before)
        )
    reason = pause_state.skips(pause_state.current(), held.name, (), clock.now())
    _skip(dict.fromkeys(chosen, reason) if reason is not None else {})
    return moved + (len(chosen) if reason is not None else 0)


def resumed(function: str) -> None:
    """Let the backlogs of a function that is not paused any more go on."""
    rows = db.rows(Backlog).filter(function=function)
    still = rows.filter(active=False, blocked_on__isnull=True)
    late = rows.filter(active=True, eligible_at__gt=clock.now())
    with limit_rows.locked():
        pause_state.start_again(rows.filter(pk__in=_some(still)))
        backlogs.make_eligible(rows.filter(pk__in=_some(late)))


def unblocked(queue: str) -> None:
    """Let the backlogs of a queue that is not paused any more try again."""
    rows = db.rows(Backlog).filter(queue=queue)
    blocked = rows.filter(blocked_on__isnull=False)
    with limit_rows.locked():
        backlogs.activate(rows.filter(pk__in=_some(blocked)))


def _some(rows: QuerySet[Backlog]) -> list[int]:
    """Return as many backlogs as are done at once; the tick does the others."""
    return list(rows.order_by("eligible_at").values_list("pk", flat=True)[:LEFT_OVER])


def reopen(name: str, limit: int) -> None:
    """Let as many backlogs try again as a limit whose limit has grown may have room
    for.

    Those that wait for a throttle's time do so by its new rate.
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
class _Round:
    """What one admission came to."""

    through: int = 0
    more: bool = False
    due_at: datetime | None = None
    unknown: list[KeyedLimit] = field(default_factory=list)
    again: bool = False


def _round(queue: str | None, wanted: int, work: Set[str]) -> _Round:
    done = _Round()
    place = queue or ""
    granted = promotion.Promotion()
    with limit_rows.locked():
        failpoint("admit.begin", place)
        pauses = pause_state.current()
        arrived = Arrived()
        if work & {"gathered", "windows", "arrived"}:
            arrived = screening.screen_new_runs(pauses)
        done.more = arrived.more
        done.unknown += arrived.unknown
        if "released" in work:
            for limit_row, count in sorted(limit_rows.collect().items()):
                backlogs.unblock(limit_row, count)
        if queue is not None and wanted > 0 and queue not in pauses.queues:
            granted = promotion.promote(queue, wanted, pauses)
            done.through, done.due_at = granted.count, granted.due_at
            done.unknown += granted.unknown
            done.more = done.more or granted.more
        others = backlogs.eligible_queues(registry.ids()) - {queue}
        failpoint("admit.written", place)
    failpoint("admit.committed", place)
    # In transactions of their own: ending a run may lock others. Whoever is skipped
    # has arrived until then, so a crash here leaves the decision to the next round.
    _note(arrived, granted)
    _skip(arrived.skipped)
    _replace(arrived.replaced)
    failpoint("admit.done", place)
    for name in sorted(others):
        notifier.notify(name)
    if queue is not None and done.due_at is not None:
        notifier.notify_at(done.due_at, queue)
    asked = _ask(done.unknown)
    done.again = asked or done.more or bool(arrived.replaced)
    return done


def _note(arrived: Arrived, granted: promotion.Promotion) -> None:
    """Keep the errors of single runs and backlogs, and put these off."""
    for run_id, error in arrived.failed.items():
        item_errors.record_failure(
            "run",
            run_id,
            error,
            put_off=partial(backlogs.put_off_run, run_id),
            run_id=run_id,
        )
    for backlog, error in granted.failed.items():
        put_off = partial(backlogs.put_off, backlog)
        item_errors.record_failure("backlog", backlog, error, put_off=put_off)


def _ask(unknown: list[KeyedLimit]) -> bool:
    """Ask for the limits that were not known; tell whether there were any."""
    by_name = {keyed_limit.name: keyed_limit for keyed_limit in unknown}
    for name, keyed_limit in by_name.items():
        answer, grown = limits.evaluate(keyed_limit)
        limit_rows.set_error(name, answer.error)
        if grown and answer.limit:
            reopen(name, answer.limit)
    return bool(by_name)


def _gather() -> None:
    """Put events in windows, and start runs for the windows that are due."""
    for _ in range(MOST_ROUNDS):
        failed: dict[int, Exception] = {}
        with limit_rows.locked():
            more = event_windows.take_in(failed)
        for pk, error in failed.items():
            put_off = partial(window_rows.put_off_event, pk)
            item_errors.record_failure("buffered event", pk, error, put_off=put_off)
        closed = event_windows.close_due()
        if not (more and closed):
            return


def _skip(reasons: Mapping[uuid.UUID, str]) -> None:
    """End runs that are not to start; who invoked one is told."""
    if not reasons:
        return
    rows = db.rows(Run).filter(backlogs.not_admitted(), pk__in=list(reasons))
    apart = rows.exclude(parent__isnull=True, started_at__isnull=True)
    several = list(apart.defer("data", "output"))
    for run in several:
        # What has begun once can be redriven still.
        begun = run.started_at is not None
        status = RunStatus.CANCELLED if begun else RunStatus.SKIPPED
        end = partial(finish.finish, run, End(status, reason=reasons[run.pk]))
        _guarded_run(run, end)
    alike: dict[str, list[uuid.UUID]] = {}
    for run_id in reasons.keys() - {run.pk for run in several}:
        alike.setdefault(reasons[run_id], []).append(run_id)
    for reason, run_ids in alike.items():
        for run in backlogs.skip(run_ids, reason):
            finish.announce_end(run, End(RunStatus.SKIPPED, reason=reason))


def _replace(replaced: Mapping[uuid.UUID, uuid.UUID]) -> None:
    """Cancel the live runs of singletons whose place newer ones take."""
    rows = db.rows(Run).filter(pk__in=list(replaced))
    for run in rows.defer("data", "output"):
        reason = f"singleton: run {replaced[run.pk]} takes its place."
        _guarded_run(run, partial(finish.cancel, run, reason))


def _guarded_run(run: Run, work: Callable[[], object]) -> None:
    item_errors.guarded("run", run.pk, work, run_id=run.pk)
