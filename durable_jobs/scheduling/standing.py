"""Lanes that stand still, looked after every few seconds; mostly there is nothing.

What admissions and ends of runs leave to nobody: limits that the host has changed,
slots whose release was lost, runs of paused functions that stand where workers claim,
and lanes and gates that nobody uses any more.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Exists, Model, OuterRef, Q, QuerySet

from durable_jobs import clock
from durable_jobs.definitions.controls import Controls
from durable_jobs.definitions.registry import registry
from durable_jobs.events import admitting
from durable_jobs.flow import pausing
from durable_jobs.models import Admission, Gate, Lane, Pause, Run, Slot
from durable_jobs.statuses import LIVE, RunStatus
from durable_jobs.store import db, gates, lanes, probing

BATCH = 500
#: Lanes and gates that were not used for so long are deleted.
UNUSED = timedelta(days=2)


def sweep() -> int:
    """Look after what stands still; return how much was done."""
    kinds = (Gate, Lane, Pause)
    there = {kind.__name__: Exists(_every(kind)) for kind in kinds}
    if not any(probing.evaluate(there).values()):
        return 0
    works = (
        _release_lost,
        _redeclared,
        _ask_again,
        _start_again,
        admitting.shelve,
        _forget,
    )
    return sum(work() for work in works)


def _every(kind: type[Model]) -> QuerySet[Any]:
    return kind._default_manager.using(db.alias()).all()


def lost_slots() -> QuerySet[Slot]:
    """Return slots that are held by runs that may hold none."""
    runs = Run.objects.using(db.alias()).filter(pk=OuterRef("run_id"))
    let_through = Q(status=RunStatus.QUEUED, lane__isnull=True)
    executing = let_through | Q(lease_token__isnull=False)
    held = Slot.objects.using(db.alias()).filter(released_at__isnull=True)
    live = Exists(runs.filter(status__in=sorted(LIVE)))
    return held.filter(~live | Q(steps=True) & ~Exists(runs.filter(executing)))


def _release_lost() -> int:
    lost = list(lost_slots().values_list("pk", flat=True)[:BATCH])
    return gates.release_slots(lost) if lost else 0


#: The flow control of each function, as this process last saw it.
_declared: dict[str, Controls] = {}


def _redeclared() -> int:
    """Let all lanes try whose gates the code may have changed: with a new process."""
    current = {function.id: function.controls for function in registry}
    if current == _declared:
        return 0
    _declared.clear()
    _declared.update(current)
    blocked = Lane.objects.using(db.alias()).filter(blocked_on__isnull=False)
    return lanes.activate(blocked)


def _ask_again() -> int:
    """Let a lane try at gates whose limit is given, or that nobody holds."""
    waiting = Lane.objects.using(db.alias()).filter(blocked_on=OuterRef("pk"))
    held = Slot.objects.using(db.alias()).filter(
        gate=OuterRef("pk"), released_at__isnull=True
    )
    rows = Gate.objects.using(db.alias()).filter(Exists(waiting))
    given = Q(asked=True) | Q(override__isnull=False)
    chosen = rows.filter(given | ~Exists(held)).order_by("?")[:BATCH]
    return sum(lanes.revive(gate, 1) for gate in chosen.values_list("pk", flat=True))


def _start_again() -> int:
    """Let lanes try that stand still for nothing.

    An admission, or the sweep of a pause, may have written after a resumption what it
    had read before it.
    """
    paused = Pause.objects.using(db.alias()).filter(
        kind=Pause.FUNCTION, name=OuterRef("function")
    )
    rows = Lane.objects.using(db.alias()).filter(
        Exists(_inside()), active=False, blocked_on__isnull=True
    )
    pauses, chosen = pausing.current(), []
    for lane in rows.exclude(Exists(paused)).order_by("?")[:BATCH]:
        if pausing.holding(pauses, lane.function, lane.keys.values()) is None:
            chosen.append(lane.pk)
            if not lane.keys:
                lanes.unshelve(lane)
    return lanes.activate(Lane.objects.using(db.alias()).filter(pk__in=chosen))


def _inside() -> QuerySet[Run]:
    """Return the queued runs of the lane that a query is about."""
    return Run.objects.using(db.alias()).filter(
        status=RunStatus.QUEUED, lane__isnull=False, lane=OuterRef("pk")
    )


def _forget() -> int:
    """Delete lanes and gates that nobody uses, and what rate limits need no more."""
    now = clock.now()
    old = Admission.objects.using(db.alias()).filter(expires_at__lt=now)
    chosen = list(old.values_list("pk", flat=True)[:BATCH])
    Admission.objects.using(db.alias()).filter(pk__in=chosen)._raw_delete(db.alias())
    return len(chosen) + _delete(_idle_lanes(now - UNUSED)) + _delete(_idle_gates())


def _idle_lanes(since: object) -> QuerySet[Lane]:
    rows = Lane.objects.using(db.alias()).filter(turn__lt=since, active=False)
    return rows.exclude(Exists(_inside()))


def _idle_gates() -> QuerySet[Gate]:
    now = clock.now()
    rows = Gate.objects.using(db.alias()).filter(
        Q(tat__isnull=True) | Q(tat__lt=now),
        used_at__lt=now - UNUSED,
        override__isnull=True,
    )
    for model in (Slot, Admission):
        of_gate = _every(model).filter(gate=OuterRef("pk"))
        rows = rows.exclude(Exists(of_gate))
    return rows.exclude(Exists(_every(Lane).filter(blocked_on=OuterRef("pk"))))


def _delete(rows: QuerySet[Lane] | QuerySet[Gate]) -> int:
    """Delete a batch under the lock: no admission is using them."""
    if not rows.exists():
        return 0
    with db.atomic():
        gates.lock()
        chosen = list(rows.values_list("pk", flat=True)[:BATCH])
        every = rows.model._default_manager.using(db.alias()).filter(pk__in=chosen)
        every._raw_delete(db.alias())
    return len(chosen)
