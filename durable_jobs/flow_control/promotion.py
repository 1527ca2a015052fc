"""Letting runs through: lanes in turn, each as far as its gates have room.

All of it inside an admission.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import DatabaseError

from durable_jobs import clock
from durable_jobs.definitions.flow_control import Throttle
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.flow_control import keys, limits, rates
from durable_jobs.flow_control import pauses as pause_state
from durable_jobs.flow_control.keys import KeyedLimit
from durable_jobs.flow_control.pauses import Pauses
from durable_jobs.models import AdmissionState, Backlog, Limit, Run, Slot
from durable_jobs.store import backlogs, db
from durable_jobs.store import limits as limit_rows

#: A callable that never gave a limit is asked again when its lane's next turn has come.
ASK_AGAIN = limits.REMEMBERED
#: When a lane whose first run somebody is just changing is looked at again.
CHANGING = timedelta(milliseconds=100)
#: How long a line in strict order waits for what its first run waits for: another one,
#: with other keys, may be the first by then.
LOOK_AGAIN = timedelta(seconds=10)
#: Lanes that one round looks at, at the least and at the most: as many as runs are
#: wanted, for each that can go on gives one. And rounds that one admission makes.
FEWEST, LANES, ROUNDS = 8, 50, 20
#: How long a limit that this process does not know is left to processes that may: as
#: long as a deploy may take. Then it is taken to be gone from the code.
DEPLOY = timedelta(minutes=10)
#: How long such a lane is left alone at a time.
LEFT_ALONE = timedelta(seconds=1)


@dataclass(slots=True)
class Promotion:
    """What came of the turns of one admission."""

    count: int = 0
    #: The earliest time at which a throttle lets somebody through.
    next_at: datetime | None = None
    unknown: list[KeyedLimit] = field(default_factory=list)
    #: Lanes that were found blocked: room only shrinks here, so they stay so.
    blocked: set[int] = field(default_factory=set)
    #: Lanes that this process leaves to others.
    left: set[int] = field(default_factory=set)
    #: What kept single lanes from their turn.
    failed: dict[int, Exception] = field(default_factory=dict)
    more: bool = False


def promote(queue: str, wanted: int, pauses: Pauses) -> Promotion:
    """Let up to ``wanted`` runs of a queue through, lane after lane."""
    done, functions = Promotion(), registry.ids()
    for _ in range(ROUNDS):
        count = min(max(FEWEST, wanted - done.count), LANES)
        chosen = backlogs.active(queue, functions, count, leaving=done.left)
        if not chosen:
            return done
        before = done.count
        _Round(chosen, pauses, wanted - done.count, done).play(done)
        if done.count >= wanted or (done.count == before and done.unknown):
            return done  # what is not known is asked for first
    done.more = True
    return done


@dataclass(slots=True)
class _BacklogTurn:
    """A lane in its turn."""

    lane: Backlog
    passages: list[KeyedLimit]
    waiting: list[Run] = field(default_factory=list)
    #: Whether there is more in line than what is in ``waiting``.
    more: bool = False
    open: bool = True


class _Round:
    """One round of turns among a few lanes, and what it changes."""

    def __init__(
        self, chosen: Sequence[Backlog], pauses: Pauses, wanted: int, done: Promotion
    ) -> None:
        self._done = done
        self._now = clock.now()
        self._wanted = wanted
        self._pauses = pauses
        self._visits = [self._guarded_visit(lane) for lane in chosen]
        every = [one for visit in self._visits for one in visit.passages]
        self._gates = (
            limit_rows.ensure(one.limit_row() for one in every) if every else {}
        )
        self._taken = limit_rows.taken(gate.pk for gate in self._gates.values())
        self._tats: dict[int, datetime] = {}
        self._slots: list[Slot] = []
        self._through: dict[int | None, list[uuid.UUID]] = {}
        #: Gates at which a lane has left room that others may wait for.
        self._spare: dict[int, Limit] = {}

    def _guarded_visit(self, lane: Backlog) -> _BacklogTurn:
        try:
            return self._visit(lane)
        except DatabaseError:
            raise  # the whole transaction is over
        except Exception as error:  # noqa: BLE001  # the caller logs it and puts it off
            self._done.failed[lane.pk] = error
            return _BacklogTurn(lane, [], open=False)

    def _visit(self, lane: Backlog) -> _BacklogTurn:
        function = registry.find(lane.function)
        if function is None:
            return _BacklogTurn(lane, [], open=False)
        strict = keys.ORDERING in lane.keys
        visit = _BacklogTurn(lane, [])
        flow = self._first_in_order(visit) if strict else lane.keys
        if flow is None:
            return visit
        visit.passages = keys.passages(function, flow, starting=lane.for_new_runs)
        if self._foreign(function, flow, lane):
            visit.open = False
        elif lane.for_new_runs and pause_state.holding(
            self._pauses, function.id, flow.values()
        ):
            visit.open = False
            lane.active = strict
            lane.eligible_at = self._now + LOOK_AGAIN if strict else lane.eligible_at
        return visit

    def _first_in_order(self, visit: _BacklogTurn) -> keys.Flow | None:
        """Read the first run of a strict line, whose own keys count."""
        first, there = backlogs.head(visit.lane)
        if first is not None:
            visit.waiting, visit.more = [first], True
            return first.flow or {}
        visit.open = False
        visit.lane.active = there
        if there:
            visit.lane.eligible_at = self._now + CHANGING
        return None

    def _foreign(self, function: Function, flow: keys.Flow, lane: Backlog) -> bool:
        """Tell whether a lane is for processes whose code has a limit that ours lacks.

        Its first run has waited for one long enough when a deploy is over.
        """
        if not keys.undeclared(function, flow, starting=lane.for_new_runs):
            return False
        first = backlogs.waiting(lane.pk).first()
        if first is None or first.due_at < self._now - DEPLOY:
            return False
        lane.eligible_at = self._now + LEFT_ALONE
        return True

    def _read(self, left: int) -> None:
        """Read the heads of the lanes that can go on, to each its share."""
        able = [visit for visit in self._visits if visit.open and not visit.waiting]
        able = [visit for visit in able if not self._is_full(visit)]
        share = -(-left // max(1, len(able)))
        for visit in able:
            visit.waiting, visit.more = backlogs.one_per_function(visit.lane, share)
            if not visit.waiting and visit.more:
                visit.lane.eligible_at = self._now + CHANGING

    def _is_full(self, visit: _BacklogTurn) -> bool:
        """Close a lane at a gate without room; tell whether it was."""
        for passage in visit.passages:
            gate = self._gates[passage.name]
            answer = limits.cached_limit(passage, gate)
            throttled = isinstance(passage.rule, Throttle)
            if answer is None or answer.limit is None or throttled or passage.held:
                continue
            if answer.limit <= self._taken[gate.pk]:
                visit.lane.active, visit.lane.blocked_on = False, gate
                self._close(visit)
                return True
        return False

    def play(self, done: Promotion) -> None:
        """Give each lane its turn until enough are through, or none can go on."""
        done.left |= {visit.lane.pk for visit in self._visits if not visit.open}
        self._read(self._wanted)
        self._held = self._arrival_slots()
        left = self._wanted
        while left and any(visit.open for visit in self._visits):
            for visit in self._visits:
                if left and visit.open and self._turn(visit, done):
                    done.count += 1
                    left -= 1
        self._write(done)

    def _arrival_slots(self) -> set[tuple[int, uuid.UUID]]:
        """Return the slots of singletons that runs were given when they arrived."""
        single = [
            self._gates[passage.name].pk
            for visit in self._visits
            for passage in visit.passages
            if passage.held
        ]
        runs = [run.pk for visit in self._visits for run in visit.waiting]
        return limit_rows.held_by(single, runs) if single and runs else set()

    def _turn(self, visit: _BacklogTurn, done: Promotion) -> bool:
        """Let the first run of a lane through, or close the lane; tell which."""
        lane = visit.lane
        if not visit.waiting:
            # What was not read is looked at in the lane's next turn.
            lane.active = lane.active and visit.more
            self._close(visit)
            return False
        run, starts = visit.waiting[0], dict[int, datetime]()
        for passage in visit.passages:
            gate = self._gates[passage.name]
            if (gate.pk, run.pk) in self._held:
                continue
            if not self._has_room(visit, passage, gate, starts, done):
                self._close(visit)
                return False
        self._pass(visit, visit.waiting.pop(0), starts)
        return True

    def _close(self, visit: _BacklogTurn) -> None:
        """End a lane's turn; the room that it leaves is for who waits for it."""
        visit.open = False
        for passage in visit.passages:
            gate = self._gates[passage.name]
            # Of a shared gate, another function may have a higher limit.
            if passage.shared or _has_slots(passage, gate, self._taken[gate.pk]):
                self._spare[gate.pk] = gate

    def _has_room(
        self,
        visit: _BacklogTurn,
        passage: KeyedLimit,
        gate: Limit,
        starts: dict[int, datetime],
        done: Promotion,
    ) -> bool:
        """Tell whether a gate lets one more through; let the lane wait if it does not.

        ``starts`` takes up how throttles would stand after it.
        """
        answer = limits.cached_limit(passage, gate)
        if answer is None:
            done.unknown.append(passage)
            return False
        if answer.limit is None:
            visit.lane.eligible_at = self._now + ASK_AGAIN
            done.left.add(visit.lane.pk)
            return False
        if isinstance(passage.rule, Throttle) and answer.limit:
            rate = (passage.rule.interval(answer.limit), passage.rule.burst)
            before = self._tats.get(gate.pk, gate.tat)
            tat = rates.settled(before, self._now, *rate)
            if tat is not None and tat != before:
                self._tats[gate.pk] = tat
            start, after = rates.conform(tat, self._now, *rate)
            if start > self._now:
                strict = keys.ORDERING in visit.lane.keys
                latest = self._now + LOOK_AGAIN
                visit.lane.eligible_at = min(start, latest) if strict else start
                done.next_at = min(start, done.next_at or start)
                return False
            starts[gate.pk] = after
            return True
        if answer.limit <= self._taken[gate.pk] or isinstance(passage.rule, Throttle):
            visit.lane.active, visit.lane.blocked_on = False, gate
            return False
        return True

    def _pass(self, visit: _BacklogTurn, run: Run, starts: dict[int, datetime]) -> None:
        lane = visit.lane
        self._tats |= starts
        for passage in visit.passages:
            gate = self._gates[passage.name]
            if gate.pk in starts or (gate.pk, run.pk) in self._held:
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
        lane.eligible_at, lane.promoted_count = self._now, lane.promoted_count + 1
        rests = any(passage.of_steps for passage in visit.passages)
        entry = AdmissionState.RESUMED.value if rests else None
        self._through.setdefault(entry, []).append(run.pk)

    def _write(self, done: Promotion) -> None:
        """Write what the round has changed."""
        limit_rows.acquire(self._slots)
        limit_rows.set_arrivals(self._tats)
        for entry, run_ids in self._through.items():
            backlogs.let_through(run_ids, entry)
        backlogs.write([visit.lane for visit in self._visits])
        done.blocked |= {one.lane.pk for one in self._visits if one.lane.blocked_on_id}
        waited = backlogs.waited_for(self._spare) if self._spare else set()
        for pk, gate in sorted(self._spare.items()):
            if pk not in waited:
                continue
            if gate.function:
                backlogs.revive(pk, 1, leaving=done.blocked)
            else:
                self._pass_on(gate, done.blocked)

    def _pass_on(self, gate: Limit, blocked: Iterable[int]) -> None:
        """Let a lane try for which a shared gate has room by its own limit.

        One for which it has none would be blocked again, and let others try in turn.
        """
        for lane in backlogs.waiting_for(gate.pk, registry.sharing(), leaving=blocked):
            function = registry.get(lane.function)
            needed = keys.passages(function, lane.keys, starting=lane.for_new_runs)
            here = next((one for one in needed if one.name == gate.name), None)
            if here is None or _has_slots(here, gate, self._taken[gate.pk]):
                backlogs.activate(Backlog.objects.using(db.alias()).filter(pk=lane.pk))
                return


def _has_slots(passage: KeyedLimit, gate: Limit, taken: int) -> bool:
    answer = limits.cached_limit(passage, gate)
    return answer is not None and (answer.limit or 0) > taken


def more(run: Run, passages: Sequence[KeyedLimit], wanted: int) -> list[Slot]:
    """Return slots for steps that a run executes beside one that has its own."""
    known = limit_rows.ensure(passage.limit_row() for passage in passages)
    taken = limit_rows.taken(gate.pk for gate in known.values())
    room = wanted
    for passage in passages:
        gate = known[passage.name]
        answer = limits.cached_limit(passage, gate)
        if answer is None or answer.limit is None or gate.lanes.exists():
            return []
        room = min(room, answer.limit - taken[gate.pk])
    now = clock.now()
    return [
        Slot(gate=known[passage.name], run_id=run.pk, steps=True, since=now)
        for _ in range(max(0, room))
        for passage in passages
    ]
