"""Arriving: what rate limits, singletons and pauses decide, and the backlogs of the
rest.

All of it inside an admission, in the order of arrival.
"""

from __future__ import annotations

import uuid
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import DatabaseError
from django.db.models import QuerySet

from durable_jobs import clock
from durable_jobs.definitions.flow_control import RateLimit, Singleton
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.durations import format_duration
from durable_jobs.flow_control import keys, limits, rates
from durable_jobs.flow_control import pauses as pause_state
from durable_jobs.flow_control.keys import KeyedLimit
from durable_jobs.flow_control.pauses import Pauses
from durable_jobs.models import AdmissionState, Limit, RateLimitHit, Run, Slot
from durable_jobs.store import backlogs, runs
from durable_jobs.store import limits as limit_rows

BATCH = 500

_NEEDED = (
    "id",
    "function",
    "queue",
    "flow",
    "backlog",
    "run_order",
    "due_at",
    "queued_at",
    "started_at",
    "parent_relation",
)


@dataclass(slots=True)
class Arrived:
    """What became of the runs that have arrived."""

    #: Why a run does not start.
    skipped: dict[uuid.UUID, str] = field(default_factory=dict)
    #: The runs that a newer one takes the place of, and that one. It is let in when
    #: they have ended.
    replaced: dict[uuid.UUID, uuid.UUID] = field(default_factory=dict)
    unknown: list[KeyedLimit] = field(default_factory=list)
    #: What kept single runs from a decision.
    failed: dict[uuid.UUID, Exception] = field(default_factory=dict)
    more: bool = False


def screen_new_runs(pauses: Pauses) -> Arrived:
    """Decide about the runs that have arrived, and put them in their backlogs."""
    known = backlogs.awaiting_admission(registry.ids(), clock.now()).only(*_NEEDED)
    rows = list(backlogs.locked(known)[:BATCH])
    if not rows:
        return Arrived()
    done = Arrived(more=len(rows) == BATCH)
    desk, late = _Screener(done), _behind_hidden(known, rows)
    entering = [
        run for run in rows if run.pk not in late and desk.decides_for(run, pauses)
    ]
    desk.write()
    _enter(entering, done)
    return done


def _behind_hidden(known: QuerySet[Run], rows: Sequence[Run]) -> set[uuid.UUID]:
    """Return the runs of an ordering that came after one whose row somebody has.

    That one goes first, whatever becomes of it.
    """
    if not any(keys.ORDERING in (run.flow or {}) for run in rows):
        return set()
    last = rows[-1]
    before = known.filter(due_at__lte=last.due_at).exclude(
        pk__in=[run.pk for run in rows]
    )
    hidden: dict[tuple[str, str], tuple[datetime, uuid.UUID]] = {}
    for run in before[:BATCH]:
        if keys.ORDERING in (run.flow or {}):
            hidden.setdefault(_order_of(run), (run.due_at, run.pk))
    return {
        run.pk
        for run in rows
        if keys.ORDERING in (run.flow or {})
        and hidden.get(_order_of(run), (run.due_at, run.pk)) < (run.due_at, run.pk)
    }


def _order_of(run: Run) -> tuple[str, str]:
    return run.function, keys.text_of((run.flow or {})[keys.ORDERING])


def _enter(entering: Sequence[Run], done: Arrived) -> None:
    now = clock.now()
    wanted = {}
    for run in entering:
        starting = run.backlog != AdmissionState.RESUMED
        try:
            wanted[run.pk] = keys.backlog_of(run, starting=starting, moment=now)
        except Exception as error:  # noqa: BLE001  # the caller logs it and puts it off
            done.failed[run.pk] = error
            continue
        run.requeue_to = AdmissionState.REQUEUED if starting else AdmissionState.RESUMED
    rows = backlogs.ensure(wanted.values())
    placed = [run for run in entering if run.pk in wanted]
    for run in placed:
        run.backlog = rows[wanted[run.pk].name].pk
    backlogs.assign(placed)


@dataclass(slots=True)
class _Starts:
    """What a rate limit has let in between two moments, in order."""

    since: datetime
    until: datetime
    times: list[datetime] = field(default_factory=list)

    def add(self, at: datetime) -> None:
        insort(self.times, at)


class _Screener:
    """Where a start is let in or sent away."""

    def __init__(self, done: Arrived) -> None:
        self._done = done
        self._limits: dict[str, Limit] = {}
        self._starts: dict[int, _Starts] = {}
        self._notes: list[RateLimitHit] = []
        self._singles: dict[int, list[Slot]] = {}
        self._taken: dict[int, Slot] = {}
        self._coming: dict[int, Run] = {}

    def decides_for(self, run: Run, pauses: Pauses) -> bool:
        """Return whether a run may stand in line; keep an error that it makes."""
        try:
            return run.backlog != AdmissionState.NEW or self.lets_in(run, pauses)
        except DatabaseError:
            raise  # the whole transaction is over
        except Exception as error:  # noqa: BLE001  # the caller logs it and puts it off
            self._done.failed[run.pk] = error
            return False

    def lets_in(self, run: Run, pauses: Pauses) -> bool:
        """Tell whether a run may stand in line; note what else is to be done."""
        function = registry.find(run.function)
        if function is None:
            return False  # left to a process that has its code
        values = (run.flow or {}).values()
        reason = pause_state.skips(pauses, run.function, values, run.queued_at)
        found: RateLimitHit | str | None = None
        # What is redriven, or comes again from a batch, was let in before.
        if (
            reason is None
            and run.started_at is None
            and run.parent_relation != runs.BATCH
        ):
            found = self._limited(run, function)
            if found is _LATER:
                return False
            reason = found if isinstance(found, str) else None
        reason = reason or self._single(run, function)
        if reason is _LATER:
            return False
        if reason is not None:
            self._done.skipped[run.pk] = reason
            return False
        if isinstance(
            found, RateLimitHit
        ):  # what another control refuses does not count
            self._notes.append(found)
            self._starts[found.limit_id].add(found.at)
        return True

    def write(self) -> None:
        """Write what was let in."""
        limit_rows.record_hits(self._notes)
        limit_rows.acquire(list(self._taken.values()))

    def _limit(self, keyed_limit: KeyedLimit) -> Limit:
        if keyed_limit.name not in self._limits:
            self._limits |= limit_rows.ensure([keyed_limit.limit_row()])
        return self._limits[keyed_limit.name]

    def _limited(self, run: Run, function: Function) -> RateLimitHit | str | None:
        """Return how a rate limit lets a run in, or why it does not.

        ``_LATER`` while the limit is not known.
        """
        keyed_limit = keys.keyed_limit(function, run.flow or {}, keys.RATE_LIMIT)
        if keyed_limit is None or not isinstance(keyed_limit.rule, RateLimit):
            return None
        limit_row, per = self._limit(keyed_limit), keyed_limit.rule.period
        answer = limits.cached_limit(keyed_limit, limit_row)
        if answer is None:
            self._done.unknown.append(keyed_limit)
            return _LATER
        if answer.limit is None:
            return f"rate limit: the limit is not known: {answer.error}"
        at = max(run.due_at, run.queued_at)
        starts = self._around(limit_row, at, per)
        free_at = rates.room_in_window(starts.times, at, answer.limit, per)
        if free_at is not None:
            return _above(answer.limit, per, keyed_limit, free_at)
        return RateLimitHit(limit_id=limit_row.pk, at=at, expires_at=at + per)

    def _around(self, limit_row: Limit, at: datetime, per: timedelta) -> _Starts:
        """Return the starts that share a window with one at ``at``, and some more."""
        found = self._starts.get(limit_row.pk)
        if found is None or not found.since <= at - per <= at + per <= found.until:
            found = _Starts(at - 2 * per, at + 2 * per)
            found.times = limit_rows.hits(limit_row.pk, found.since, found.until)
            for note in self._notes:
                if (
                    note.limit_id == limit_row.pk
                    and found.since < note.at < found.until
                ):
                    found.add(note.at)
            self._starts[limit_row.pk] = found
        return found

    def _single(self, run: Run, function: Function) -> str | None:
        """Return why a singleton refuses a run; take its place when it does not.

        ``_LATER`` while those whose place it takes have not ended.
        """
        keyed_limit = keys.keyed_limit(function, run.flow or {}, keys.SINGLETON)
        if keyed_limit is None or not isinstance(keyed_limit.rule, Singleton):
            return None
        if keyed_limit.rule.mode == "queue":
            return None
        limit_row = self._limit(keyed_limit)
        skips = keyed_limit.rule.mode == "skip"
        live = self._live(limit_row, run, ended=skips)
        if live and skips:
            named = (
                f" for key {keyed_limit.text}"
                if keyed_limit.rule.key is not None
                else ""
            )
            return f"singleton: run {live[-1].run_id} is live{named}."
        if live:
            # Of several that come at once the last one counts.
            if limit_row.pk in self._coming:
                self._done.replaced[self._coming[limit_row.pk].pk] = run.pk
            self._coming[limit_row.pk] = run
            for slot in live:
                self._done.replaced[slot.run_id] = run.pk
            return _LATER
        own = Slot(limit_id=limit_row.pk, run_id=run.pk, since=clock.now())
        self._singles[limit_row.pk] = [own]
        self._taken[limit_row.pk] = own
        return None

    def _live(self, limit_row: Limit, run: Run, *, ended: bool) -> list[Slot]:
        """Return who is live at a singleton's limit.

        With ``ended``, also who was when the run came, and was not collected yet.
        """
        if limit_row.pk not in self._singles:
            held = list(limit_rows.holders(limit_row.pk))
            self._singles[limit_row.pk] = [*limit_rows.released([limit_row.pk]), *held]
        came = max(run.due_at, run.queued_at)
        return [
            slot
            for slot in self._singles[limit_row.pk]
            if slot.run_id != run.pk
            and (slot.released_at is None or (ended and slot.released_at > came))
        ]


_LATER = "later"


def _above(
    limit: int, per: timedelta, keyed_limit: KeyedLimit, free_at: datetime
) -> str:
    keyed = isinstance(keyed_limit.rule, RateLimit) and keyed_limit.rule.key is not None
    named = f" for key {keyed_limit.text}" if keyed else ""
    return (
        f"rate limit: {limit} starts in {format_duration(per)} were reached{named}; "
        f"the next would be let in at {free_at.isoformat()}."
    )
