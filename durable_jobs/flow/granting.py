"""Letting runs through: lanes in turn, each as far as its gates have room.

All of it inside an admission.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from durable_jobs import clock
from durable_jobs.definitions.controls import Throttle
from durable_jobs.definitions.registry import registry
from durable_jobs.flow import keys, limits, pausing, rates
from durable_jobs.flow.keys import Passage
from durable_jobs.flow.pausing import Pauses
from durable_jobs.models import Entry, Gate, Lane, Run, Slot
from durable_jobs.store import db, gates, lanes

#: A callable that never gave a limit is asked again when its lane's next turn has come.
ASK_AGAIN = limits.REMEMBERED
#: When a lane whose first run somebody is just changing is looked at again.
CHANGING = timedelta(milliseconds=100)


@dataclass(slots=True)
class Granted:
    """What came of a round of turns."""

    count: int = 0
    #: The earliest time at which a throttle lets somebody through.
    next_at: datetime | None = None
    unknown: list[Passage] = field(default_factory=list)
    #: Lanes that were found blocked: room only shrinks here, so they stay so.
    blocked: set[int] = field(default_factory=set)


def grant(queue: str, wanted: int, pauses: Pauses) -> Granted:
    """Let up to ``wanted`` runs of a queue through, lane after lane."""
    done = Granted()
    while done.count < wanted:
        chosen = lanes.active(queue, wanted - done.count)
        if not chosen:
            break
        turns = _Turns(chosen, pauses, wanted - done.count)
        before = done.count
        turns.play(done)
        turns.write(done)
        if done.count == before and done.unknown:
            break  # what is not known is asked for first
    return done


@dataclass(slots=True)
class _Visit:
    """A lane in its turn."""

    lane: Lane
    passages: list[Passage]
    waiting: list[Run]
    all_seen: bool
    open: bool = True


class _Turns:
    """One round of turns among a few lanes, and what it changes."""

    def __init__(self, chosen: Sequence[Lane], pauses: Pauses, wanted: int) -> None:
        self._now = clock.now()
        self._wanted = wanted
        # A lane more than its share is seldom let through; the next round looks again.
        share = -(-wanted // len(chosen))
        self._visits = [self._visit(lane, pauses, share) for lane in chosen]
        every = [one for visit in self._visits for one in visit.passages]
        self._gates = gates.ensure(one.gate() for one in every) if every else {}
        self._taken = gates.taken(gate.pk for gate in self._gates.values())
        self._tats: dict[int, datetime] = {}
        self._slots: list[Slot] = []
        self._through: dict[int | None, list[uuid.UUID]] = {}
        #: Gates at which a lane has left room that others may wait for.
        self._spare: dict[int, Gate] = {}

    def _visit(self, lane: Lane, pauses: Pauses, share: int) -> _Visit:
        function, flow = registry.find(lane.function), lane.keys
        if keys.ORDERING in lane.keys:
            first, there = lanes.head(lane)
            waiting, all_seen = [first] if first is not None else [], not there
            if first is not None:
                flow = first.flow or {}  # each in line has its own other keys
            elif there:
                lane.turn = self._now + CHANGING
        else:
            waiting = lanes.heads(lane, share)
            all_seen = len(waiting) < share
        needed = []
        if function is not None:
            needed = keys.passages(function, flow, starting=lane.starting)
        held = pausing.holding(pauses, lane.function, flow.values())
        if held is not None and lane.starting:
            lane.active = False
            return _Visit(lane, needed, [], all_seen=True)
        return _Visit(lane, needed, waiting, all_seen=all_seen)

    def play(self, done: Granted) -> None:
        """Give each lane its turn until enough are through, or none can go on."""
        left = self._wanted
        while left and any(visit.open for visit in self._visits):
            for visit in self._visits:
                if left and visit.open and self._turn(visit, done):
                    done.count += 1
                    left -= 1

    def _turn(self, visit: _Visit, done: Granted) -> bool:
        """Let the first run of a lane through, or close the lane; tell which."""
        lane = visit.lane
        if not visit.waiting:
            # What was not read is looked at in the lane's next turn.
            lane.active = lane.active and not visit.all_seen
            self._close(visit)
            return False
        starts: dict[int, datetime] = {}
        for passage in visit.passages:
            gate = self._gates[passage.name]
            if not self._has_room(visit, passage, gate, starts, done):
                self._close(visit)
                return False
        self._pass(visit, visit.waiting.pop(0), starts)
        return True

    def _close(self, visit: _Visit) -> None:
        """End a lane's turn; the room that it leaves is for who waits for it."""
        visit.open = False
        for passage in visit.passages:
            gate = self._gates[passage.name]
            # Of a shared gate, another function may have a higher limit.
            if passage.shared or _has_slots(passage, gate, self._taken[gate.pk]):
                self._spare[gate.pk] = gate

    def _has_room(
        self,
        visit: _Visit,
        passage: Passage,
        gate: Gate,
        starts: dict[int, datetime],
        done: Granted,
    ) -> bool:
        """Tell whether a gate lets one more through; let the lane wait if it does not.

        ``starts`` takes up how throttles would stand after it.
        """
        answer = limits.known(passage, gate)
        if answer is None:
            done.unknown.append(passage)
            return False
        if answer.limit is None:
            visit.lane.turn = self._now + ASK_AGAIN
            return False
        if isinstance(passage.rule, Throttle) and answer.limit:
            start, after = rates.conform(
                self._tats.get(gate.pk, gate.tat),
                self._now,
                passage.rule.interval(answer.limit),
                passage.rule.burst,
            )
            if start > self._now:
                visit.lane.turn = start
                done.next_at = min(start, done.next_at or start)
                return False
            starts[gate.pk] = after
            return True
        if answer.limit <= self._taken[gate.pk] or isinstance(passage.rule, Throttle):
            visit.lane.active, visit.lane.blocked_on = False, gate
            return False
        return True

    def _pass(self, visit: _Visit, run: Run, starts: dict[int, datetime]) -> None:
        lane = visit.lane
        self._tats |= starts
        for passage in visit.passages:
            gate = self._gates[passage.name]
            if gate.pk in starts:
                continue
            self._taken[gate.pk] += 1
            self._slots.append(
                Slot(
                    gate_id=gate.pk,
                    run_id=run.pk,
                    steps=passage.of_steps,
                    since=self._now,
                )
            )
        lane.turn, lane.served = self._now, lane.served + 1
        function = registry.find(lane.function)
        rests = function is not None and function.controls.of_steps
        entry = Entry.RESUME.value if rests else None
        self._through.setdefault(entry, []).append(run.pk)

    def write(self, done: Granted) -> None:
        """Write what the round has changed."""
        gates.take(self._slots)
        gates.set_arrivals(self._tats)
        for entry, run_ids in self._through.items():
            lanes.let_through(run_ids, entry)
        lanes.write([visit.lane for visit in self._visits])
        done.blocked |= {one.lane.pk for one in self._visits if one.lane.blocked_on_id}
        waited = lanes.waited_for(self._spare) if self._spare else set()
        for pk, gate in sorted(self._spare.items()):
            if pk not in waited:
                continue
            if gate.function:
                lanes.revive(pk, 1, leaving=done.blocked)
            else:
                self._pass_on(gate, done.blocked)

    def _pass_on(self, gate: Gate, blocked: Iterable[int]) -> None:
        """Let a lane try for which a shared gate has room by its own limit.

        One for which it has none would be blocked again, and let others try in turn.
        """
        for lane in lanes.waiting_for(gate.pk, registry.sharing(), leaving=blocked):
            function = registry.get(lane.function)
            needed = keys.passages(function, lane.keys, starting=lane.starting)
            here = next((one for one in needed if one.name == gate.name), None)
            if here is None or _has_slots(here, gate, self._taken[gate.pk]):
                lanes.activate(Lane.objects.using(db.alias()).filter(pk=lane.pk))
                return


def _has_slots(passage: Passage, gate: Gate, taken: int) -> bool:
    answer = limits.known(passage, gate)
    return answer is not None and (answer.limit or 0) > taken


def more(run: Run, passages: Sequence[Passage], wanted: int) -> list[Slot]:
    """Return slots for steps that a run executes beside one that has its own."""
    known = gates.ensure(passage.gate() for passage in passages)
    taken = gates.taken(gate.pk for gate in known.values())
    room = wanted
    for passage in passages:
        gate = known[passage.name]
        answer = limits.known(passage, gate)
        if answer is None or answer.limit is None or gate.lanes.exists():
            return []
        room = min(room, answer.limit - taken[gate.pk])
    now = clock.now()
    return [
        Slot(gate=known[passage.name], run_id=run.pk, steps=True, since=now)
        for _ in range(max(0, room))
        for passage in passages
    ]
