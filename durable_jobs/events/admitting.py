"""Admissions: one at a time, each a short transaction; see ``flow``.

Workers make them before they claim, and the tick makes them for those who do not.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Exists

from durable_jobs import clock, dispatch
from durable_jobs.definitions.registry import registry
from durable_jobs.events import ending, gathering
from durable_jobs.failpoints import hit
from durable_jobs.flow import arrivals, granting, keys, limits, pausing
from durable_jobs.flow.arrivals import Arrived
from durable_jobs.flow.keys import Passage
from durable_jobs.models import Pause, Run, Slot
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, gates, gathered, lanes, probing
from durable_jobs.store.runs import End

#: Rounds that follow at once when there was more than one could take.
MOST_ROUNDS = 50
#: Runs of functions without limits that one sweep takes out of old lanes.
LEFT_OVER = 500
#: Runs of a paused function that are taken out of the way at once.
SHELVED = 1000


def needed() -> dict[str, Exists]:
    """Return the questions whose answers tell whether an admission has work."""
    turns = lanes.in_turn()
    return {
        "arrived": Exists(lanes.arrived().order_by()),
        "gathered": Exists(gathered.fresh().order_by()),
        "windows": Exists(gathered.due().order_by()),
        "turns": Exists(turns),
        "released": Exists(Slot.objects.using(db.alias()).filter(gates.any_released())),
    }


def admit(queue: str | None = None, wanted: int = 0) -> int:
    """Take in what has come, and let up to ``wanted`` runs of a queue through.

    Returns how many are through. Free where no function has flow control.
    """
    if not registry.controlled:
        return 0
    answers = probing.evaluate(needed())
    work = {name for name, there in answers.items() if there}
    return rounds(queue, wanted, work) if work else 0


#: All that an admission may have to do.
EVERYTHING = frozenset({"arrived", "gathered", "windows", "turns", "released"})


def rounds(
    queue: str | None = None, wanted: int = 0, work: Set[str] = EVERYTHING
) -> int:
    """Admit what is known to be needed; what comes meanwhile is for the next one."""
    through = 0
    for _ in range(MOST_ROUNDS):
        done = _round(queue, wanted - through, work)
        work = EVERYTHING
        through += done.through
        if not done.again or 0 < wanted <= through:
            break
    return through


def widen(run: Run, wanted: int) -> list[int]:
    """Take more slots for steps that a run executes side by side; return their ids.

    As many for each as its gates have room for, but none while other runs wait there.
    One at each gate makes one more step.
    """
    function = registry.find(run.function)
    if function is None or run.flow is None:
        return []
    passages = keys.passages(function, run.flow, starting=False)
    with db.atomic():
        gates.lock()
        slots = granting.more(run, passages, wanted)
        gates.take(slots)
    return [slot.pk for slot in slots]


def sweep() -> int:
    """Do a worker's part for those that are busy, or away; return how many rang."""
    rounds()
    waiting = lanes.queues()
    if not registry.controlled:
        # Nobody admits: the code has no limits any more, and the lanes are left over.
        return sum(rounds(queue, LEFT_OVER) for queue in sorted(waiting))
    return len(waiting)


def shelve() -> int:
    """Take runs of paused functions from where workers claim; count them.

    Those that a pause skips end; the others are kept in a lane of their own.
    """
    count = 0
    for pause in Pause.objects.using(db.alias()).filter(kind=Pause.FUNCTION):
        while moved := _shelve(pause):
            count += moved
            if moved < SHELVED:
                break
    return count


def _shelve(pause: Pause) -> int:
    now, rows = clock.now(), lanes.unbegun(pause.name)
    reason = pausing.skips(pausing.current(), pause.name, (), now)
    chosen = []
    if reason is not None:
        came = rows.filter(queued_at__gte=pause.paused_at).values_list("pk", flat=True)
        chosen = list(came[:SHELVED])
        _skip(dict.fromkeys(chosen, reason))
    return len(chosen) + pausing.shelve(pause.name, SHELVED - len(chosen))


@dataclass(slots=True)
class _Round:
    """What one admission came to."""

    through: int = 0
    more: bool = False
    next_at: datetime | None = None
    unknown: list[Passage] = field(default_factory=list)
    again: bool = False


def _round(queue: str | None, wanted: int, work: Set[str]) -> _Round:
    done = _Round()
    place = queue or ""
    gathers = bool(work & {"gathered", "windows"})
    with db.atomic():
        gates.lock()
        hit("admit.begin", place)
        pauses = pausing.current()
        if gathers:
            done.more = gathering.take_in()
            done.more = gathering.close_due() or done.more
        arrived = Arrived()
        if gathers or "arrived" in work:
            arrived = arrivals.take_in(pauses)
        done.more = arrived.more or done.more
        done.unknown += arrived.unknown
        if "released" in work:
            for gate, count in sorted(gates.collect().items()):
                lanes.revive(gate, count)
        if queue is not None and wanted > 0 and queue not in pauses.queues:
            granted = granting.grant(queue, wanted, pauses)
            done.through, done.next_at = granted.count, granted.next_at
            done.unknown += granted.unknown
        others = lanes.queues() - {queue}
        hit("admit.written", place)
    hit("admit.committed", place)
    # In transactions of their own: ending a run may lock others. Whoever is skipped
    # has arrived until then, so a crash here leaves the decision to the next round.
    _skip(arrived.skipped)
    _replace(arrived.replaced)
    hit("admit.done", place)
    for name in sorted(others):
        dispatch.ring(name)
    if queue is not None and done.next_at is not None:
        dispatch.ring_at(done.next_at, queue)
    asked = _ask(done.unknown)
    done.again = asked or done.more or bool(arrived.replaced)
    return done


def _ask(unknown: list[Passage]) -> bool:
    """Ask for the limits that were not known; tell whether there were any."""
    by_name = {passage.name: passage for passage in unknown}
    for name, passage in by_name.items():
        answer, grown = limits.ask(passage)
        gates.answered(name, answer.trouble)
        if grown and answer.limit:
            gates.reopen(name, answer.limit)
    return bool(by_name)


def _skip(reasons: Mapping[uuid.UUID, str]) -> None:
    """End runs that are not to start; who invoked one is told."""
    if not reasons:
        return
    rows = Run.objects.using(db.alias()).filter(lanes.undecided(), pk__in=list(reasons))
    apart = rows.exclude(parent__isnull=True, started_at__isnull=True)
    several = list(apart.defer("data", "output"))
    for run in several:
        # What has begun once can be redriven still.
        begun = run.started_at is not None
        status = RunStatus.CANCELLED if begun else RunStatus.SKIPPED
        ending.finish(run, End(status, reason=reasons[run.pk]))
    alike: dict[str, list[uuid.UUID]] = {}
    for run_id in reasons.keys() - {run.pk for run in several}:
        alike.setdefault(reasons[run_id], []).append(run_id)
    for reason, run_ids in alike.items():
        for run in lanes.skip(run_ids, reason):
            ending.tell(run, End(RunStatus.SKIPPED, reason=reason))


def _replace(replaced: Mapping[uuid.UUID, uuid.UUID]) -> None:
    """Cancel the live runs of singletons whose place newer ones take."""
    rows = Run.objects.using(db.alias()).filter(pk__in=list(replaced))
    for run in rows.defer("data", "output"):
        ending.cancel(run, f"singleton: run {replaced[run.pk]} takes its place.")
