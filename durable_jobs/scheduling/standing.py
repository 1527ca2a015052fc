"""Lanes that stand still, looked after every few seconds; mostly there is nothing.

What admissions and ends of runs leave to nobody: limits that the host has changed,
slots whose release was lost, runs of paused functions that stand where workers claim,
and lanes and gates that nobody uses any more.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Exists, F, Model, OuterRef, Q, QuerySet

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
        _try_again,
        _start_again,
        _arrive_again,
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
    """Let lanes try whose gates the code may have changed: with a new process."""
    current = {function.id: function.controls for function in registry}
    changed = [id for id, controls in current.items() if _declared.get(id) != controls]
    if not changed:
        return 0
    _declared.clear()
    _declared.update(current)
    rows = Lane.objects.using(db.alias()).filter(function__in=changed)
    with gates.locked():
        for function in changed:
            if current[function].throttle is not None:
                lanes.hasten(function)
        return lanes.activate(rows.filter(blocked_on__isnull=False))


def _try_again() -> int:
    """Let one lane try at each gate that lanes wait for: there may be room."""
    waiting = Lane.objects.using(db.alias()).filter(blocked_on=OuterRef("pk"))
    rows = Gate.objects.using(db.alias()).filter(Exists(waiting))
    chosen = list(rows.order_by("?").values_list("pk", flat=True)[:BATCH])
    if not chosen:
        return 0
    with gates.locked():
        return sum(lanes.revive(gate, 1) for gate in sorted(chosen))


def _start_again() -> int:
    """Let lanes try that stand still for nothing: what wrote them read what was."""
    rows = Lane.objects.using(db.alias()).filter(
        Exists(_inside()), active=False, blocked_on__isnull=True
    )
    chosen = list(rows.order_by("?").values_list("pk", flat=True)[:BATCH])
    if not chosen:
        return 0
    with gates.locked():
        every = Lane.objects.using(db.alias()).filter(pk__in=chosen)
        return pausing.start_again(every)


def _arrive_again() -> int:
    """Let runs arrive again whose lane is none: after a restored backup, or by hand."""
    rows = lanes.strays().values_list("pk", flat=True)[:BATCH]
    chosen = Run.objects.using(db.alias()).filter(pk__in=list(rows))
    return chosen.filter(status=RunStatus.QUEUED).update(lane=F("entry"))


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
    with gates.locked():
        chosen = list(rows.values_list("pk", flat=True)[:BATCH])
        every = rows.model._default_manager.using(db.alias()).filter(pk__in=chosen)
        every._raw_delete(db.alias())
    return len(chosen)
