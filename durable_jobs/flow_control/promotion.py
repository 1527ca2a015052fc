"""Promote runs: serve backlogs round-robin, as far as their limits have room.

All of this runs inside an admission.
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

#: Delay of a backlog whose limit's callable never returned a valid value.
EVALUATE_INTERVAL = limits.CACHED_FOR
#: Delay of a backlog whose first run is locked.
LOCKED_DELAY = timedelta(milliseconds=100)
#: How long a strictly ordered backlog waits at most: after that, another run with
#: other keys may be its first.
CHECK_INTERVAL = timedelta(seconds=10)
#: Bounds on the backlogs of one round, and on the rounds of one promotion. A round
#: serves as many backlogs as runs are wanted.
MIN_BACKLOGS, MAX_BACKLOGS, MAX_PROMOTION_ROUNDS = 8, 50, 20
#: How long a limit that this process does not declare is left to other processes: as
#: long as a deploy may take. After that, the limit counts as removed from the code.
DEPLOY = timedelta(minutes=10)
#: Delay of a backlog with such a limit.
UNDECLARED_DELAY = timedelta(seconds=1)


@dataclass(slots=True)
class Promotion:
    """The result of one promotion."""

    count: int = 0
    #: The earliest time at which a throttle has room.
    due_at: datetime | None = None
    unknown: list[KeyedLimit] = field(default_factory=list)
    #: Blocked backlogs. Room only shrinks in a promotion, so they stay blocked.
    blocked: set[int] = field(default_factory=set)
    #: Backlogs that this process leaves to others.
    left_to_others: set[int] = field(default_factory=set)
    #: The errors of single backlogs.
    failed: dict[int, Exception] = field(default_factory=dict)
    more: bool = False


def promote(queue: str, wanted: int, pauses: Pauses) -> Promotion:
    """Promote up to ``wanted`` runs of a queue, one backlog after the other."""
    done, functions = Promotion(), registry.ids()
    for _ in range(MAX_PROMOTION_ROUNDS):
        count = min(max(MIN_BACKLOGS, wanted - done.count), MAX_BACKLOGS)
        chosen = backlogs.active(queue, functions, count, excluding=done.left_to_others)
        if not chosen:
            return done
        before = done.count
        _Round(chosen, pauses, wanted - done.count, done).serve(done)
        if done.count >= wanted or (done.count == before and done.unknown):
            return done  # evaluate the unknown limits first
    done.more = True
    return done


@dataclass(slots=True)
class _BacklogVisit:
    """A backlog in a round."""

    backlog: Backlog
    keyed_limits: list[KeyedLimit]
    waiting: list[Run] = field(default_factory=list)
    #: Whether the backlog has more runs than ``waiting``.
    more: bool = False
    open: bool = True


class _Round:
    """One round over a few backlogs, and its changes."""

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
            limit_rows.ensure(one.build_row() for one in every) if every else {}
        )
        self._held_counts = limit_rows.count_held(
            limit_row.pk for limit_row in self._limits.values()
        )
        self._tats: dict[int, datetime] = {}
        self._slots: list[Slot] = []
        self._promoted: dict[int | None, list[uuid.UUID]] = {}
        #: Limits with room that other backlogs may wait for.
        self._spare: dict[int, Limit] = {}

    def _guarded_visit(self, backlog: Backlog) -> _BacklogVisit:
        try:
            return self._visit(backlog)
        except DatabaseError:
            raise  # the transaction is unusable
        except Exception as error:  # noqa: BLE001  # the caller logs and postpones it
            self._done.failed[backlog.pk] = error
            return _BacklogVisit(backlog, [], open=False)

    def _visit(self, backlog: Backlog) -> _BacklogVisit:
        function = registry.find(backlog.function)
        if function is None:
            return _BacklogVisit(backlog, [], open=False)
        strict = keys.ORDERING in backlog.keys
        visit = _BacklogVisit(backlog, [])
        flow = self._first_in_order(visit) if strict else backlog.keys
        if flow is None:
            return visit
        visit.keyed_limits = keys.keyed_limits(
            function, flow, starting=backlog.for_new_runs
        )
        if self._is_undeclared_here(function, flow, backlog):
            visit.open = False
        elif backlog.for_new_runs and pause_state.pause_of(
            self._pauses, function.id, flow.values()
        ):
            visit.open = False
            backlog.active = strict
            backlog.eligible_at = (
                self._now + CHECK_INTERVAL if strict else backlog.eligible_at
            )
        return visit

    def _first_in_order(self, visit: _BacklogVisit) -> keys.Flow | None:
        """Read the first run of a strictly ordered backlog, whose own keys count."""
        first, there = backlogs.first_run(visit.backlog)
        if first is not None:
            visit.waiting, visit.more = [first], True
            return first.flow or {}
        visit.open = False
        visit.backlog.active = there
        if there:
            visit.backlog.eligible_at = self._now + LOCKED_DELAY
        return None

    def _is_undeclared_here(
        self, function: Function, flow: keys.Flow, backlog: Backlog
    ) -> bool:
        """Return whether a backlog has a limit that only other processes declare.

        After ``DEPLOY``, the limit counts as removed from the code.
        """
        if not keys.has_undeclared_limit(function, flow, starting=backlog.for_new_runs):
            return False
        first = backlogs.waiting(backlog.pk).first()
        if first is None or first.due_at < self._now - DEPLOY:
            return False
        backlog.eligible_at = self._now + UNDECLARED_DELAY
        return True

    def _read(self, left: int) -> None:
        """Read the first runs of the open backlogs, an equal share of each."""
        able = [visit for visit in self._visits if visit.open and not visit.waiting]
        able = [visit for visit in able if not self._is_full(visit)]
        share = -(-left // max(1, len(able)))
        for visit in able:
            visit.waiting, visit.more = backlogs.first_runs(visit.backlog, share)
            if not visit.waiting and visit.more:
                visit.backlog.eligible_at = self._now + LOCKED_DELAY

    def _is_full(self, visit: _BacklogVisit) -> bool:
        """Close a backlog at a full limit; return whether it was closed."""
        for keyed_limit in visit.keyed_limits:
            limit_row = self._limits[keyed_limit.name]
            value = limits.cached_limit(keyed_limit, limit_row)
            throttled = isinstance(keyed_limit.rule, Throttle)
            if (
                value is None
                or value.limit is None
                or throttled
                or keyed_limit.acquired_in_screening
            ):
                continue
            if value.limit <= self._held_counts[limit_row.pk]:
                visit.backlog.active, visit.backlog.blocked_on = False, limit_row
                self._close(visit)
                return True
        return False

    def serve(self, done: Promotion) -> None:
        """Serve the backlogs until enough runs are promoted or none can continue."""
        done.left_to_others |= {
            visit.backlog.pk for visit in self._visits if not visit.open
        }
        self._read(self._wanted)
        self._held = self._arrival_slots()
        left = self._wanted
        while left and any(visit.open for visit in self._visits):
            for visit in self._visits:
                if left and visit.open and self._serve_one(visit, done):
                    done.count += 1
                    left -= 1
        self._write(done)

    def _arrival_slots(self) -> set[tuple[int, uuid.UUID]]:
        """Return the singleton slots that runs acquired when they were screened."""
        single = [
            self._limits[keyed_limit.name].pk
            for visit in self._visits
            for keyed_limit in visit.keyed_limits
            if keyed_limit.acquired_in_screening
        ]
        runs = [run.pk for visit in self._visits for run in visit.waiting]
        return limit_rows.held_by(single, runs) if single and runs else set()

    def _serve_one(self, visit: _BacklogVisit, done: Promotion) -> bool:
        """Promote the first run of a backlog, or close the backlog.

        Return whether a run was promoted.
        """
        backlog = visit.backlog
        if not visit.waiting:
            # Runs that were not read are served in the next round.
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
        self._promote(visit, visit.waiting.pop(0), starts)
        return True

    def _close(self, visit: _BacklogVisit) -> None:
        """Close a backlog; its limits with room may restart other backlogs."""
        visit.open = False
        for keyed_limit in visit.keyed_limits:
            limit_row = self._limits[keyed_limit.name]
            # Functions may declare different values for a shared limit.
            if keyed_limit.shared or _has_slots(
                keyed_limit, limit_row, self._held_counts[limit_row.pk]
            ):
                self._spare[limit_row.pk] = limit_row

    def _has_room(
        self,
        visit: _BacklogVisit,
        keyed_limit: KeyedLimit,
        limit_row: Limit,
        starts: dict[int, datetime],
        done: Promotion,
    ) -> bool:
        """Return whether a limit has room for one more run; else make the backlog wait.

        ``starts`` receives the arrival times of throttles after the run.
        """
        value = limits.cached_limit(keyed_limit, limit_row)
        if value is None:
            done.unknown.append(keyed_limit)
            return False
        if value.limit is None:
            visit.backlog.eligible_at = self._now + EVALUATE_INTERVAL
            done.left_to_others.add(visit.backlog.pk)
            return False
        if isinstance(keyed_limit.rule, Throttle) and value.limit:
            rate = (keyed_limit.rule.interval(value.limit), keyed_limit.rule.burst)
            before = self._tats.get(limit_row.pk, limit_row.tat)
            tat = rates.capped_tat(before, self._now, *rate)
            if tat is not None and tat != before:
                self._tats[limit_row.pk] = tat
            start, after = rates.conform(tat, self._now, *rate)
            if start > self._now:
                strict = keys.ORDERING in visit.backlog.keys
                latest = self._now + CHECK_INTERVAL
                visit.backlog.eligible_at = min(start, latest) if strict else start
                done.due_at = min(start, done.due_at or start)
                return False
            starts[limit_row.pk] = after
            return True
        if value.limit <= self._held_counts[limit_row.pk] or isinstance(
            keyed_limit.rule, Throttle
        ):
            visit.backlog.active, visit.backlog.blocked_on = False, limit_row
            return False
        return True

    def _promote(
        self, visit: _BacklogVisit, run: Run, starts: dict[int, datetime]
    ) -> None:
        backlog = visit.backlog
        self._tats |= starts
        for keyed_limit in visit.keyed_limits:
            limit_row = self._limits[keyed_limit.name]
            if limit_row.pk in starts or (limit_row.pk, run.pk) in self._held:
                continue
            self._held_counts[limit_row.pk] += 1
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
        self._promoted.setdefault(entry, []).append(run.pk)

    def _write(self, done: Promotion) -> None:
        """Write the changes of the round."""
        limit_rows.acquire(self._slots)
        limit_rows.set_tats(self._tats)
        for entry, run_ids in self._promoted.items():
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
                backlogs.unblock(pk, 1, excluding=done.blocked)
            else:
                self._restart_sharing(limit_row, done.blocked)

    def _restart_sharing(self, limit_row: Limit, blocked: Iterable[int]) -> None:
        """Restart a backlog for which a shared limit has room.

        Functions may declare different values for the limit. A backlog without room
        would block again, and restart others in turn.
        """
        for backlog in backlogs.blocked_on(
            limit_row.pk, registry.sharing_limits(), excluding=blocked
        ):
            function = registry.get(backlog.function)
            needed = keys.keyed_limits(
                function, backlog.keys, starting=backlog.for_new_runs
            )
            here = next((one for one in needed if one.name == limit_row.name), None)
            if here is None or _has_slots(
                here, limit_row, self._held_counts[limit_row.pk]
            ):
                backlogs.activate(db.rows(Backlog).filter(pk=backlog.pk))
                return


def _has_slots(keyed_limit: KeyedLimit, limit_row: Limit, taken: int) -> bool:
    value = limits.cached_limit(keyed_limit, limit_row)
    return value is not None and (value.limit or 0) > taken


def extra_slots(
    run: Run, keyed_limits: Sequence[KeyedLimit], wanted: int
) -> list[Slot]:
    """Return slots for parallel steps of a run that has one slot already."""
    known = limit_rows.ensure(keyed_limit.build_row() for keyed_limit in keyed_limits)
    taken = limit_rows.count_held(limit_row.pk for limit_row in known.values())
    room = wanted
    for keyed_limit in keyed_limits:
        limit_row = known[keyed_limit.name]
        value = limits.cached_limit(keyed_limit, limit_row)
        if value is None or value.limit is None or limit_row.backlogs.exists():
            return []
        room = min(room, value.limit - taken[limit_row.pk])
    now = clock.now()
    return [
        Slot(limit=known[keyed_limit.name], run_id=run.pk, steps=True, since=now)
        for _ in range(max(0, room))
        for keyed_limit in keyed_limits
    ]
