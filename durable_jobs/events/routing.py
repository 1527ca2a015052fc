"""Routing: match committed events to the waits that they may end.

The router searches waits after the event's commit. If an event and a wait commit at the
same time, the router sees the wait. (A search before the commit loses wake-ups.) An
event stays ``pending`` until it is matched against every wait, so the next pass
continues after a crash.

Waits are read in pages. A page is evaluated without locks. Then one transaction locks
the event, wakes the runs of the page and stores the progress of the event. One pass
evaluates at most ``MATCH_BUDGET`` conditions per event; the next pass continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

from durable_jobs import clock, notifier
from durable_jobs.conf import settings
from durable_jobs.events import wait_matches
from durable_jobs.failpoints import failpoint
from durable_jobs.lifecycle import finish
from durable_jobs.models import Event, Run, SweepError, Wait, WaitKind
from durable_jobs.models.fields import payload
from durable_jobs.serialization.match_keys import leaf_keys
from durable_jobs.store import (
    db,
    events,
    item_errors,
    left_work,
    pending_work,
    waits,
)

BATCH = 200
#: Waits that one transaction evaluates.
PAGE = 500
#: Seconds after which a pass leaves the rest to the next pass.
MAX_SECONDS = 1.0
#: Failed waits that one event stores.
MAX_FAILED = 500


@dataclass(frozen=True)
class Progress:
    """How far an event is routed, stored in ``Event.routing``.

    ``after`` is the last wait that was evaluated. ``until`` is the last wait that
    existed when the first pass began; later waits wait for later events. ``failed`` are
    waits that are retried after the others.
    """

    after: int = 0
    until: int | None = None
    evaluated: int = 0
    failed: tuple[int, ...] = ()
    scanned: bool = False

    @classmethod
    def of(cls, event: Event) -> Progress:
        """Return the stored progress; a newer version may have added fields."""
        routing = event.routing or {}
        kept = {
            one.name: routing[one.name] for one in fields(cls) if one.name in routing
        }
        return cls(**kept | {"failed": tuple(kept.get("failed", ()))})

    def stored(self) -> dict[str, Any]:
        """Return the progress as JSON."""
        return asdict(self) | {"failed": list(self.failed)}


@dataclass
class Evaluation:
    """The evaluation of one page of waits."""

    #: The actions for waits, in order.
    actions: list[tuple[Wait, Callable[[], object]]] = field(default_factory=list)
    cancels: list[tuple[Wait, Run]] = field(default_factory=list)
    #: Waits whose rule the code of this process lacks.
    left: list[tuple[Wait, Run]] = field(default_factory=list)
    errors: dict[int, Exception] = field(default_factory=dict)
    evaluated: int = 0
    last: int = 0
    complete: bool = True


def route_pending() -> int:
    """Match pending events to waits; return the number of events read."""
    pending, _ = pending_work.check()
    return route() if pending else 0


def route() -> int:
    """Match pending events to waits; return the number of events read.

    The caller knows that some are pending.
    """
    routed, blocked_names = 0, set[str]()
    until = clock.monotonic() + MAX_SECONDS
    while True:
        batch = _route_batch(blocked_names, until)
        routed += batch
        if batch < BATCH or clock.monotonic() > until:
            break
    if blocked_names:
        notifier.notify(settings.QUEUE)
    return routed


def _route_batch(blocked_names: set[str], until: float) -> int:
    """Route events without waits in one statement, the others one by one."""
    with db.atomic():
        batch = events.pending(BATCH, excluding=blocked_names)
        failpoint("route.read")
        wanted = {
            name
            for name in {event.name for event in batch}
            if waits.exists((WaitKind.EVENT, WaitKind.CANCEL), name)
        }
        events.mark_routed(event.pk for event in batch if event.name not in wanted)
    for event in batch:
        # Events of one name are routed in order of arrival.
        if event.name not in wanted or event.name in blocked_names:
            continue
        item_errors.guarded(
            "event",
            event.pk,
            partial(_route_one, event, blocked_names, until),
            postpone=partial(_postpone, event),
        )
        if clock.monotonic() > until:
            blocked_names.add(event.name)
            break
    return len(batch)


def _postpone(event: Event, until: Any) -> None:
    """Postpone an event; waits that begin until then do not match it."""
    progress = Progress.of(event)
    if progress.until is None:
        progress = replace(progress, until=waits.latest_id())
    events.postpone(event, until, progress.stored())


def _route_one(event: Event, blocked_names: set[str], until: float) -> None:
    failpoint("route.event", event.name)
    keys = leaf_keys({"data": payload(event, "data")})
    found = None if keys is None else {"", *keys}
    budget = settings.MATCH_BUDGET
    while budget > 0:
        progress = Progress.of(event)
        page, more = _page(event, progress, found)
        evaluation = _evaluate(event, page, budget)
        budget -= evaluation.evaluated
        for wait, run in evaluation.cancels:
            # One transaction each: ending a run locks its parent first.
            # A repetition after a crash finds the run ended.
            _guarded(evaluation, wait, partial(finish.cancel, run, _reason(event)))
        for wait, run in evaluation.left:
            leave = partial(left_work.leave_cancellation, run, wait.pk, event.pk)
            _guarded(evaluation, wait, leave)
        written = _write(event, evaluation, _next_progress(progress, evaluation, more))
        if written is None:
            break  # another router has locked it
        event.routing = written.stored()
        if written.scanned:
            _end(event, written, evaluation)
            return
        if clock.monotonic() > until:
            break
    blocked_names.add(event.name)


def _reason(event: Event) -> str:
    return f"the event {event.name} ({event.pk})"


def cancel_left(row: SweepError, run: Run) -> bool:
    """Cancel a run if an event does that by a rule of this process's code.

    Return whether the rule was here; if not, the row stays for others.
    """
    wait_id, _, event_id = row.item.partition(" ")
    wait = db.rows(Wait).filter(pk=wait_id).first()
    event = db.rows(Event).filter(pk=event_id).first()
    if wait is not None and event is not None:
        decided = wait_matches.cancels(wait, run, event)
        if decided is None:
            left_work.move_to_end(row)
            return False
        if decided:
            finish.cancel(run, _reason(event))
    return left_work.delete(row)


def _page(
    event: Event, progress: Progress, keys: Iterable[str] | None
) -> tuple[list[Wait], bool]:
    """Return the next waits, and whether there are more."""
    if progress.scanned:
        return waits.existing(progress.failed), False
    found = waits.possible_waits(
        event.name, keys, progress.after, progress.until, PAGE + 1
    )
    return found[:PAGE], len(found) > PAGE


def _next_progress(progress: Progress, evaluation: Evaluation, more: bool) -> Progress:
    more = more or not evaluation.complete
    if more and progress.until is None:
        progress = replace(progress, until=waits.latest_id())
    before = progress.failed
    if progress.scanned:  # this page retries failed waits
        left = () if evaluation.complete else before
        before = tuple(pk for pk in left if pk > evaluation.last)
    failed = (*before, *evaluation.errors)
    return replace(
        progress,
        after=max(progress.after, evaluation.last),
        evaluated=progress.evaluated + evaluation.evaluated,
        failed=failed[:MAX_FAILED],
        scanned=progress.scanned or not more,
    )


def _evaluate(event: Event, page: Sequence[Wait], budget: int) -> Evaluation:
    """Evaluate an event against waits, without locks."""
    evaluation = Evaluation()
    run_ids = {wait.run_id for wait in page}
    runs = db.rows(Run).in_bulk(run_ids) if page else {}
    for wait in page:
        run = runs.get(wait.run_id)
        costs = wait_matches.is_expensive(wait)
        if costs and evaluation.evaluated >= budget:
            evaluation.complete = False
            return evaluation
        evaluation.evaluated += costs
        evaluation.last = wait.pk
        if run is None or not run.is_live:
            continue
        try:
            _evaluate_one(evaluation, event, wait, run)
        except Exception as error:
            if db.is_outage(error):
                raise
            evaluation.errors[wait.pk] = error
    return evaluation


def _evaluate_one(evaluation: Evaluation, event: Event, wait: Wait, run: Run) -> None:
    if wait.kind == WaitKind.CANCEL:
        decided = wait_matches.cancels(wait, run, event)
        if decided is None:
            evaluation.left.append((wait, run))
        elif decided:
            evaluation.cancels.append((wait, run))
        return
    act = wait_matches.action_of(wait, run, event)
    if act is not None:
        evaluation.actions.append((wait, act))


def _write(event: Event, evaluation: Evaluation, progress: Progress) -> Progress | None:
    """Apply the results of a page; return None if another router was first."""
    try:
        return progress if _apply(event, evaluation.actions, progress) else None
    except Exception as error:
        if db.is_outage(error):
            raise
        if not evaluation.actions:
            raise
    for wait, act in evaluation.actions:
        _guarded(evaluation, wait, partial(_apply_one, wait, act))
    new = (pk for pk in evaluation.errors if pk not in progress.failed)
    progress = replace(progress, failed=(*progress.failed, *new)[:MAX_FAILED])
    return progress if _apply(event, (), progress) else None


def _guarded(evaluation: Evaluation, wait: Wait, work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:
        if db.is_outage(error):
            raise
        evaluation.errors[wait.pk] = error


def _apply_one(wait: Wait, act: Callable[[], object]) -> None:
    with db.atomic():
        if waits.lock_runs([wait.run_id]):
            act()


def _apply(
    event: Event,
    actions: Sequence[tuple[Wait, Callable[[], object]]],
    progress: Progress,
) -> bool:
    with db.atomic():
        # Another router may have routed the event since it was read.
        rows = db.rows(Event).filter(pk=event.pk, pending=True)
        if db.lockable():
            rows = rows.select_for_update(skip_locked=True)
        known = rows.values_list("routing").first()
        if known is None or known[0] != event.routing:
            return False
        run_ids = {wait.run_id for wait, _ in actions}
        locked = {run.pk for run in waits.lock_runs(run_ids)} if actions else set()
        for wait, act in actions:
            if wait.run_id in locked:
                act()
        if progress.scanned and not progress.failed:
            events.mark_routed([event.pk])
            failpoint("route.delivered", event.name)
        else:
            events.save_routing(event.pk, progress.stored())
    failpoint("route.committed", event.name)
    return True


def _end(event: Event, progress: Progress, evaluation: Evaluation) -> None:
    """Postpone an event whose waits failed; clear the errors of a completed event."""
    if progress.failed:
        error = next(iter(evaluation.errors.values()), None)
        if error is None:
            error = RuntimeError(f"{len(progress.failed)} waits could not be matched")
        item_errors.record_failure(
            "event", event.pk, error, postpone=partial(_postpone, event)
        )
    elif event.route_after is not None:
        item_errors.clear_error("event", event.pk)
