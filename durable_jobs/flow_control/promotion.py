"""Letting runs through: backlogs in turn, each as far as its limits have room.

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

#: A callable that never gave a limit is asked again when its backlog's next turn has
#: come.
ASK_AGAIN = limits.REMEMBERED
#: When a backlog whose first run somebody is just changing is looked at again.
CHANGING = timedelta(milliseconds=100)
#: How long a line in strict order waits for what its first run waits for: another one,
#: with other keys, may be the first by then.
LOOK_AGAIN = timedelta(seconds=10)
#: Backlogs that one round looks at, at the least and at the most: as many as runs are
#: wanted, for each that can go on gives one. And rounds that one admission makes.
FEWEST, BACKLOGS, ROUNDS = 8, 50, 20
#: How long a limit that this process does not know is left to processes that may: as
#: long as a deploy may take. Then it is taken to be gone from the code.
DEPLOY = timedelta(minutes=10)
#: How long such a backlog is left alone at a time.
LEFT_ALONE = timedelta(seconds=1)


@dataclass(slots=True)
class Promotion:
    """What came of the turns of one admission."""

    count: int = 0
    #: The earliest time at which a throttle lets somebody through.
    due_at: datetime | None = None
    unknown: list[KeyedLimit] = field(default_factory=list)
    #: Backlogs that were found blocked: room only shrinks here, so they stay so.
    blocked: set[int] = field(default_factory=set)
    #: Backlogs that this process leaves to others.
    left: set[int] = field(default_factory=set)
    #: What kept single backlogs from their turn.
    failed: dict[int, Exception] = field(default_factory=dict)
    more: bool = False


def promote(queue: str, wanted: int, pauses: Pauses) -> Promotion:
    """Let up to ``wanted`` runs of a queue through, backlog after backlog."""
    done, functions = Promotion(), registry.ids()
    for _ in range(ROUNDS):
        count = min(max(FEWEST, wanted - done.count), BACKLOGS)
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
    """A backlog in its turn."""

    backlog: Backlog
    keyed_limits: list[KeyedLimit]
    waiting: list[Run] = field(default_factory=list)
    #: Whether there is more in line than what is in ``waiting``.
    more: bool = False
    open: bool = True


class _Round:
    """One round of turns among a few backlogs, and what it changes."""

    def __init__(
        self, chosen: Sequence[Backlog], pauses: Pauses, wanted: int, done: Promotion
    ) -> None:
        self._done = done
        self._now = clock.now()
        self._wanted = wanted
        self._pauses = pauses
        self._visits = [self._guarded_visit(backlog) for backlog in chosen]
        every = [one for visit in self._visits for one in visit.keyed_limits]
        self._limits = (
            limit_rows.ensure(one.limit_row() for one in every) if every else {}
        )
        self._taken = limit_rows.count_held(
            limit_row.pk for limit_row in self._limits.values()
        )
        self._tats: dict[int, datetime] = {}
        self._slots: list[Slot] = []
        self._through: dict[int | None, list[uuid.UUID]] = {}
        #: Limits at which a backlog has left room that others may wait for.
        self._spare: dict[int, Limit] = {}

    def _guarded_visit(self, backlog: Backlog) -> _BacklogTurn:
        try:
            return self._visit(backlog)
        except DatabaseError:
            raise  # the whole transaction is over
        except Exception as error:  # noqa: BLE001  # the caller logs it and puts it off
            self._done.failed[backlog.pk] = error
            return _BacklogTurn(backlog, [], open=False)

    def _visit(self, backlog: Backlog) -> _BacklogTurn:
        function = registry.find(backlog.function)
        if function is None:
            return _BacklogTurn(backlog, [], open=False)
        strict = keys.ORDERING in backlog.keys
        visit = _BacklogTurn(backlog, [])
        flow = self._first_in_order(visit) if strict else backlog.keys
        if flow is None:
            return visit
        visit.keyed_limits = keys.keyed_limits(
            function, flow, starting=backlog.for_new_runs
        )
        if self._foreign(function, flow, backlog):
            visit.open = False
        elif backlog.for_new_runs and pause_state.holding(
            self._pauses, function.id, flow.values()
        ):
            visit.open = False
            backlog.active = strict
            backlog.eligible_at = (
                self._now + LOOK_AGAIN if strict else backlog.eligible_at
            )
        return visit

    def _first_in_order(self, visit: _BacklogTurn) -> keys.Flow | None:
        """Read the first run of a strict line, whose own keys count."""
        first, there = backlogs.first_run(visit.backlog)
        if first is not None:
            visit.waiting, visit.more = [first], True
            return first.flow or {}
        visit.open = False
        visit.backlog.active = there
        if there:
            visit.backlog.eligible_at = self._now + CHANGING
        return None

    def _foreign(self, function: Function, flow: keys.Flow, backlog: Backlog) -> bool:
        """Tell whether a backlog is for processes whose code has a limit that ours
        lacks.

        Its first run has waited for one long enough when a deploy is over.
        """
        if not keys.undeclared(function, flow, starting=backlog.for_new_runs):
            return False
        first = backlogs.waiting(backlog.pk).first()
        if first is None or first.due_at < self._now - DEPLOY:
            return False
        backlog.eligible_at = self._now + LEFT_ALONE
        return True

    def _read(self, left: int) -> None:
        """Read the heads of the backlogs that can go on, to each its share."""
        able = [visit for visit in self._visits if visit.open and not visit.waiting]
        able = [visit for visit in able if not self._is_full(visit)]
        share = -(-left // max(1, len(able)))
        for visit in able:
            visit.waiting, visit.more = backlogs.first_runs(visit.backlog, share)
            if not visit.waiting and visit.more:
                visit.backlog.eligible_at = self._now + CHANGING

    def _is_full(self, visit: _BacklogTurn) -> bool:
        """Close a backlog at a limit without room; tell whether it was."""
        for keyed_limit in visit.keyed_limits:
            limit_row = self._limits[keyed_limit.name]
            answer = limits.cached_limit(keyed_limit, limit_row)
            throttled = isinstance(keyed_limit.rule, Throttle)
            if answer is None or answer.limit is None or throttled or keyed_limit.held:
                continue
            if answer.limit <= self._taken[limit_row.pk]:
                visit.backlog.active, visit.backlog.blocked_on = False, limit_row
                self._close(visit)
                return True
        return False

    def play(self, done: Promotion) -> None:
        """Give each backlog its turn until enough are through, or none can go on."""
        done.left |= {visit.backlog.pk for visit in self._visits if not visit.open}
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
            self._limits[keyed_limit.name].pk
            for visit in self._visits
            for keyed_limit in visit.keyed_limits
            if keyed_limit.held
        ]
        runs = [run.pk for visit in self._visits for run in visit.waiting]
        return limit_rows.held_by(single, runs) if single and runs else set()

    def _turn(self, visit: _BacklogTurn, done: Promotion) -> bool:
        """Let the first run of a backlog through, or close the backlog; tell which."""
        backlog = visit.backlog
        if not visit.waiting:
            # What was not read is looked at in the backlog's next turn.
            backlog.active = backlog.active and visit.more
            self._close(visit)
            return False
        run, starts = visit.waiting[0], dict[int, datetime]()
        for keyed_limit in visit.keyed_limits:
            limit_row = self._limits[keyed_limit.name]
            if (limit_row.pk, run.pk) in self._held:
                continue
            if not self._has_room(visit, keyed_limit, limit_row, starts, done):
                self._close(visit)
                return False
        self._pass(visit, visit.waiting.pop(0), starts)
        return True

    def _close(self, visit: _BacklogTurn) -> None:
        """End a backlog's turn; the room that it leaves is for who waits for it."""
        visit.open = False
        for keyed_limit in visit.keyed_limits:
            limit_row = self._limits[keyed_limit.name]
            # Of a shared limit, another function may have a higher limit.
            if keyed_limit.shared or _has_slots(
                keyed_limit, limit_row, self._taken[limit_row.pk]
            ):
                self._spare[limit_row.pk] = limit_row

    def _has_room(
        self,
        visit: _BacklogTurn,
        keyed_limit: KeyedLimit,
        limit_row: Limit,
        starts: dict[int, datetime],
        done: Promotion,
    ) -> bool:
        """Tell whether a limit lets one more through; let the backlog wait if it does
        not.

        ``starts`` takes up how throttles would stand after it.
        """
        answer = limits.cached_limit(keyed_limit, limit_row)
        if answer is None:
            done.unknown.append(keyed_limit)
            return False
        if answer.limit is None:
            visit.backlog.eligible_at = self._now + ASK_AGAIN
            done.left.add(visit.backlog.pk)
            return False
        if isinstance(keyed_limit.rule, Throttle) and answer.limit:
            rate = (keyed_limit.rule.interval(answer.limit), keyed_limit.rule.burst)
            before = self._tats.get(limit_row.pk, limit_row.tat)
            tat = rates.settled(before, self._now, *rate)
            if tat is not None and tat != before:
                self._tats[limit_row.pk] = tat
            start, after = rates.conform(tat, self._now, *rate)
            if start > self._now:
                strict = keys.ORDERING in visit.backlog.keys
                latest = self._now + LOOK_AGAIN
                visit.backlog.eligible_at = min(start, latest) if strict else start
                done.due_at = min(start, done.due_at or start)
                return False
            starts[limit_row.pk] = after
            return True
        if answer.limit <= self._taken[limit_row.pk] or isinstance(
            keyed_limit.rule, Throttle
        ):
            visit.backlog.active, visit.backlog.blocked_on = False, limit_row
            return False
        return True

    def _pass(self, visit: _BacklogTurn, run: Run, starts: dict[int, datetime]) -> None:
        backlog = visit.backlog
        self._tats |= starts
        for keyed_limit in visit.keyed_limits:
            limit_row = self._limits[keyed_limit.name]
            if limit_row.pk in starts or (limit_row.pk, run.pk) in self._held:
                continue
            self._taken[limit_row.pk] += 1
            self._slots.append(
                Slot(
                    limit_id=limit_row.pk,
                    run_id=run.pk,
                    steps=keyed_limit.of_steps,
                    since=self._now,
                )
            )
        backlog.eligible_at, backlog.promoted_count = (
            self._now,
            backlog.promoted_count + 1,
        )
        rests = any(keyed_limit.of_steps for keyed_limit in visit.keyed_limits)
        entry = AdmissionState.RESUMED.value if rests else None
        self._through.setdefault(entry, []).append(run.pk)

    def _write(self, done: Promotion) -> None:
        """Write what the round has changed."""
        limit_rows.acquire(self._slots)
        limit_rows.set_tats(self._tats)
        for entry, run_ids in self._through.items():
            backlogs.promote(run_ids, entry)
        backlogs.write([visit.backlog for visit in self._visits])
        done.blocked |= {
            one.backlog.pk for one in self._visits if one.backlog.blocked_on_id
        }
        waited = backlogs.blocking_limits(self._spare) if self._spare else set()
        for pk, limit_row in sorted(self._spare.items()):
            if pk not in waited:
                continue
            if limit_row.function:
                backlogs.unblock(pk, 1, leaving=done.blocked)
            else:
                self._pass_on(limit_row, done.blocked)

    def _pass_on(self, limit_row: Limit, blocked: Iterable[int]) -> None:
        """Let a backlog try for which a shared limit has room by its own limit.

        One for which it has none would be blocked again, and let others try in turn.
        """
        for backlog in backlogs.blocked_on(
            limit_row.pk, registry.sharing_limits(), leaving=blocked
        ):
            function = registry.get(backlog.function)
            needed = keys.keyed_limits(
                function, backlog.keys, starting=backlog.for_new_runs
            )
            here = next((one for one in needed if one.name == limit_row.name), None)
            if here is None or _has_slots(here, limit_row, self._taken[limit_row.pk]):
                backlogs.activate(db.rows(Backlog).filter(pk=backlog.pk))
                return


def _has_slots(keyed_limit: KeyedLimit, limit_row: Limit, taken: int) -> bool:
    answer = limits.cached_limit(keyed_limit, limit_row)
    return answer is not None and (answer.limit or 0) > taken


def more(run: Run, keyed_limits: Sequence[KeyedLimit], wanted: int) -> list[Slot]:
    """Return slots for steps that a run executes beside one that has its own."""
    known = limit_rows.ensure(keyed_limit.limit_row() for keyed_limit in keyed_limits)
    taken = limit_rows.count_held(limit_row.pk for limit_row in known.values())
    room = wanted
    for keyed_limit in keyed_limits:
        limit_row = known[keyed_limit.name]
        answer = limits.cached_limit(keyed_limit, limit_row)
        if answer is None or answer.limit is None or limit_row.backlogs.exists():
            return []
        room = min(room, answer.limit - taken[limit_row.pk])
    now = clock.now()
    return [
        Slot(limit=known[keyed_limit.name], run_id=run.pk, steps=True, since=now)
        for _ in range(max(0, room))
        for keyed_limit in keyed_limits
    ]
