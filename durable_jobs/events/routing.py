"""Routing: committed events are matched to the waits that they may end.

A wait commits and then needs no look: the router looks for waits after the event's
commit, so of two that commit at the same moment, the router sees the wait. (Looking
before the commit loses wake-ups.) An event stays ``pending`` until it was matched to
every wait, so a crash in between is repaired by the next turn.

Waits are taken in pages. What a page comes to is found out before anything is locked;
then, in one transaction, the event is locked, the runs of the page are woken, and the
event remembers how far it is. One event evaluates at most ``MATCH_BUDGET`` conditions
in a turn, and goes on in the next one.
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
#: Waits that are looked at in one transaction.
PAGE = 500
#: Seconds after which a turn leaves the rest to the next one.
LONGEST = 1.0
#: Waits of one event whose errors are remembered; more are all tried again.
MOST_FAILED = 500


@dataclass(frozen=True)
class Progress:
    """How far the router is with an event; what ``Event.routing`` holds.

    ``after`` is the last wait that was looked at, ``until`` the last one that was there
    when the first turn began: later ones wait for later events. ``failed`` are waits
    that are tried again, once the others are done.
    """

    after: int = 0
    until: int | None = None
    evaluated: int = 0
    failed: tuple[int, ...] = ()
    scanned: bool = False

    @classmethod
    def of(cls, event: Event) -> Progress:
        """Return what an event remembers; a newer release may have added to it."""
        routing = event.routing or {}
        kept = {
            one.name: routing[one.name] for one in fields(cls) if one.name in routing
        }
        return cls(**kept | {"failed": tuple(kept.get("failed", ()))})

    def stored(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {"failed": list(self.failed)}


@dataclass
class Judged:
    """What a page of waits comes to."""

    #: What is to be done for waits, in order.
    acts: list[tuple[Wait, Callable[[], object]]] = field(default_factory=list)
    cancels: list[tuple[Wait, Run]] = field(default_factory=list)
    #: Waits whose rule the code of this process lacks.
    left: list[tuple[Wait, Run]] = field(default_factory=list)
    errors: dict[int, Exception] = field(default_factory=dict)
    evaluated: int = 0
    last: int = 0
    complete: bool = True


def route_pending() -> int:
    """Match pending events to the waits; return how many events were looked at."""
    pending, _ = pending_work.check()
    return route() if pending else 0


def route() -> int:
    """Match events, as it is known that some are pending; return how many."""
    routed, held = 0, set[str]()
    until = clock.monotonic() + LONGEST
    while True:
        batch = _route_batch(held, until)
        routed += batch
        if batch < BATCH or clock.monotonic() > until:
            break
    if held:
        notifier.notify(settings.QUEUE)
    return routed


def _route_batch(held: set[str], until: float) -> int:
    """Pass events that no run waits for in one statement, the others one by one."""
    with db.atomic():
        batch = events.pending(BATCH, leaving=held)
        failpoint("route.read")
        wanted = {
            name
            for name in {event.name for event in batch}
            if waits.exists((WaitKind.EVENT, WaitKind.CANCEL), name)
        }
        events.mark_routed(event.pk for event in batch if event.name not in wanted)
    for event in batch:
        # Of one name, an event goes before those that came later.
        if event.name not in wanted or event.name in held:
            continue
        item_errors.guarded(
            "event",
            event.pk,
            partial(_route_one, event, held, until),
            put_off=partial(_put_off, event),
        )
        if clock.monotonic() > until:
            held.add(event.name)
            break
    return len(batch)


def _put_off(event: Event, until: Any) -> None:
    """Try an event later; waits that begin until then are none that it may end."""
    progress = Progress.of(event)
    if progress.until is None:
        progress = replace(progress, until=waits.latest_id())
    events.put_off(event, until, progress.stored())


def _route_one(event: Event, held: set[str], until: float) -> None:
    failpoint("route.event", event.name)
    keys = leaf_keys({"data": payload(event, "data")})
    found = None if keys is None else {"", *keys}
    budget = settings.MATCH_BUDGET
    while budget > 0:
        progress = Progress.of(event)
        page, more = _page(event, progress, found)
        judged = _judge(event, page, budget)
        budget -= judged.evaluated
        for wait, run in judged.cancels:
            # Each in its own transaction, for ending a run locks its parent first.
            # Doing it again after a crash finds the run ended.
            _guarded(judged, wait, partial(finish.cancel, run, _reason(event)))
        for wait, run in judged.left:
            leave = partial(left_work.leave_cancellation, run, wait.pk, event.pk)
            _guarded(judged, wait, leave)
        written = _write(event, judged, _advanced(progress, judged, more))
        if written is None:
            break  # another router is about it
        event.routing = written.stored()
        if written.scanned:
            _end(event, written, judged)
            return
        if clock.monotonic() > until:
            break
    held.add(event.name)


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
            left_work.look_later(row)
            return False
        if decided:
            finish.cancel(run, _reason(event))
    return left_work.take(row)


def _page(
    event: Event, progress: Progress, keys: Iterable[str] | None
) -> tuple[list[Wait], bool]:
    """Return the next waits, and whether there are more behind them."""
    if progress.scanned:
        return waits.of_ids(progress.failed), False
    found = waits.page(event.name, keys, progress.after, progress.until, PAGE + 1)
    return found[:PAGE], len(found) > PAGE


def _advanced(progress: Progress, judged: Judged, more: bool) -> Progress:
    more = more or not judged.complete
    if more and progress.until is None:
        progress = replace(progress, until=waits.latest_id())
    before = progress.failed
    if progress.scanned:  # these are tried again
        left = () if judged.complete else before
        before = tuple(pk for pk in left if pk > judged.last)
    failed = (*before, *judged.errors)
    return replace(
        progress,
        after=max(progress.after, judged.last),
        evaluated=progress.evaluated + judged.evaluated,
        failed=failed[:MOST_FAILED],
        scanned=progress.scanned or not more,
    )


def _judge(event: Event, page: Sequence[Wait], budget: int) -> Judged:
    """Find out what an event means to waits, with nothing locked."""
    judged = Judged()
    run_ids = {wait.run_id for wait in page}
    runs = db.rows(Run).in_bulk(run_ids) if page else {}
    for wait in page:
        run = runs.get(wait.run_id)
        costs = wait_matches.costs(wait)
        if costs and judged.evaluated >= budget:
            judged.complete = False
            return judged
        judged.evaluated += costs
        judged.last = wait.pk
        if run is None or not run.is_live:
            continue
        try:
            _judge_one(judged, event, wait, run)
        except Exception as error:
            if db.is_outage(error):
                raise
            judged.errors[wait.pk] = error
    return judged


def _judge_one(judged: Judged, event: Event, wait: Wait, run: Run) -> None:
    if wait.kind == WaitKind.CANCEL:
        decided = wait_matches.cancels(wait, run, event)
        if decided is None:
            judged.left.append((wait, run))
        elif decided:
            judged.cancels.append((wait, run))
        return
    act = wait_matches.act_of(wait, run, event)
    if act is not None:
        judged.acts.append((wait, act))


def _write(event: Event, judged: Judged, progress: Progress) -> Progress | None:
    """Do what a page came to; return None when another router was first."""
    try:
        return progress if _written(event, judged.acts, progress) else None
    except Exception as error:
        if db.is_outage(error):
            raise
        if not judged.acts:
            raise
    for wait, act in judged.acts:
        _guarded(judged, wait, partial(_alone, wait, act))
    new = (pk for pk in judged.errors if pk not in progress.failed)
    progress = replace(progress, failed=(*progress.failed, *new)[:MOST_FAILED])
    return progress if _written(event, (), progress) else None


def _guarded(judged: Judged, wait: Wait, work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:
        if db.is_outage(error):
            raise
        judged.errors[wait.pk] = error


def _alone(wait: Wait, act: Callable[[], object]) -> None:
    with db.atomic():
        if waits.lock_runs([wait.run_id]):
            act()


def _written(
    event: Event,
    acts: Sequence[tuple[Wait, Callable[[], object]]],
    progress: Progress,
) -> bool:
    with db.atomic():
        # Another may have routed it since it was read.
        rows = db.rows(Event).filter(pk=event.pk, pending=True)
        if db.lockable():
            rows = rows.select_for_update(skip_locked=True)
        known = rows.values_list("routing").first()
        if known is None or known[0] != event.routing:
            return False
        run_ids = {wait.run_id for wait, _ in acts}
        locked = {run.pk for run in waits.lock_runs(run_ids)} if acts else set()
        for wait, act in acts:
            if wait.run_id in locked:
                act()
        if progress.scanned and not progress.failed:
            events.mark_routed([event.pk])
            failpoint("route.delivered", event.name)
        else:
            events.save_routing(event.pk, progress.stored())
    failpoint("route.committed", event.name)
    return True


def _end(event: Event, progress: Progress, judged: Judged) -> None:
    """Put off an event whose waits have failed; forget the errors of a done one."""
    if progress.failed:
        error = next(iter(judged.errors.values()), None)
        if error is None:
            error = RuntimeError(f"{len(progress.failed)} waits could not be matched")
        item_errors.record_failure(
            "event", event.pk, error, put_off=partial(_put_off, event)
        )
    elif event.route_after is not None:
        item_errors.clear_error("event", event.pk)
