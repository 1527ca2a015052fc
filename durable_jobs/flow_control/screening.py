"""Screen new runs: apply rate limits, singletons and pauses, and assign backlogs.

All of this runs inside an admission, in order of arrival.
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
class Screening:
    """The result of screening."""

    #: Why a run does not start.
    skip_reasons: dict[uuid.UUID, str] = field(default_factory=dict)
    #: Runs that a newer run replaces, with the newer run. The newer run is accepted
    #: after they have ended.
    replaced: dict[uuid.UUID, uuid.UUID] = field(default_factory=dict)
    unknown: list[KeyedLimit] = field(default_factory=list)
    #: The errors of single runs.
    failed: dict[uuid.UUID, Exception] = field(default_factory=dict)
    more: bool = False


def screen_new_runs(pauses: Pauses) -> Screening:
    """Screen the new runs, and put the accepted ones in their backlogs."""
    known = backlogs.awaiting_admission(registry.ids(), clock.now()).only(*_NEEDED)
    rows = list(backlogs.locked(known)[:BATCH])
    if not rows:
        return Screening()
    done = Screening(more=len(rows) == BATCH)
    screener, late = _Screener(done), _behind_hidden(known, rows)
    entering = [
        run for run in rows if run.pk not in late and screener.accepts(run, pauses)
    ]
    screener.write()
    _enter(entering, done)
    return done


def _behind_hidden(known: QuerySet[Run], rows: Sequence[Run]) -> set[uuid.UUID]:
    """Return ordered runs behind a run whose row another transaction has locked.

    The locked run goes first, whatever its result.
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
    return run.function, keys.key_text((run.flow or {})[keys.ORDERING])


def _enter(entering: Sequence[Run], done: Screening) -> None:
    now = clock.now()
    wanted = {}
    for run in entering:
        starting = run.backlog != AdmissionState.RESUMED
        try:
            wanted[run.pk] = keys.build_backlog(run, starting=starting, moment=now)
        except Exception as error:  # noqa: BLE001  # the caller logs and postpones it
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
    """The starts that a rate limit accepted between two times, in order."""

    since: datetime
    until: datetime
    times: list[datetime] = field(default_factory=list)

    def add(self, at: datetime) -> None:
        insort(self.times, at)


class _Screener:
    """Accepts or skips new runs."""

    def __init__(self, done: Screening) -> None:
        self._done = done
        self._limits: dict[str, Limit] = {}
        self._starts: dict[int, _Starts] = {}
        self._hits: list[RateLimitHit] = []
        self._singleton_slots: dict[int, list[Slot]] = {}
        self._acquired: dict[int, Slot] = {}
        self._newest: dict[int, Run] = {}

    def accepts(self, run: Run, pauses: Pauses) -> bool:
        """Return whether a run may enter its backlog; keep an error that it raises."""
        try:
            return run.backlog != AdmissionState.NEW or self._check_run(run, pauses)
        except DatabaseError:
            raise  # the transaction is unusable
        except Exception as error:  # noqa: BLE001  # the caller logs and postpones it
            self._done.failed[run.pk] = error
            return False

    def _check_run(self, run: Run, pauses: Pauses) -> bool:
        """Return whether a run may enter its backlog; else keep the reason."""
        function = registry.find(run.function)
        if function is None:
            return False  # left to a process that has the function
        values = (run.flow or {}).values()
        reason = pause_state.skips(pauses, run.function, values, run.queued_at)
        found: RateLimitHit | str | None = None
        # Redriven runs, and retried events of a batch, were accepted before.
        if (
            reason is None
            and run.started_at is None
            and run.parent_relation != runs.BATCH
        ):
            found = self._check_rate_limit(run, function)
            if found is _LATER:
                return False
            reason = found if isinstance(found, str) else None
        reason = reason or self._check_singleton(run, function)
        if reason is _LATER:
            return False
        if reason is not None:
            self._done.skip_reasons[run.pk] = reason
            return False
        if isinstance(
            found, RateLimitHit
        ):  # a run that another rule skips does not count
            self._hits.append(found)
            self._starts[found.limit_id].add(found.at)
        return True

    def write(self) -> None:
        """Write the accepted starts and acquired slots."""
        limit_rows.record_hits(self._hits)
        limit_rows.acquire(list(self._acquired.values()))

    def _limit(self, keyed_limit: KeyedLimit) -> Limit:
        if keyed_limit.name not in self._limits:
            self._limits |= limit_rows.ensure([keyed_limit.build_row()])
        return self._limits[keyed_limit.name]

    def _check_rate_limit(
        self, run: Run, function: Function
    ) -> RateLimitHit | str | None:
        """Return the rate limit's hit for a run, or the reason to skip it.

        Return ``_LATER`` while the limit is unknown.
        """
        keyed_limit = keys.keyed_limit(function, run.flow or {}, keys.RATE_LIMIT)
        if keyed_limit is None or not isinstance(keyed_limit.rule, RateLimit):
            return None
        limit_row, per = self._limit(keyed_limit), keyed_limit.rule.period
        value = limits.cached_limit(keyed_limit, limit_row)
        if value is None:
            self._done.unknown.append(keyed_limit)
            return _LATER
        if value.limit is None:
            return f"rate limit: the limit is not known: {value.error}"
        at = max(run.due_at, run.queued_at)
        starts = self._starts_near(limit_row, at, per)
        free_at = rates.room_in_window(starts.times, at, value.limit, per)
        if free_at is not None:
            return _limit_reached(value.limit, per, keyed_limit, free_at)
        return RateLimitHit(limit_id=limit_row.pk, at=at, expires_at=at + per)

    def _starts_near(self, limit_row: Limit, at: datetime, per: timedelta) -> _Starts:
        """Return the starts that share a window with one at ``at``, and some more."""
        found = self._starts.get(limit_row.pk)
        if found is None or not found.since <= at - per <= at + per <= found.until:
            found = _Starts(at - 2 * per, at + 2 * per)
            found.times = limit_rows.hits(limit_row.pk, found.since, found.until)
            for hit in self._hits:
                if hit.limit_id == limit_row.pk and found.since < hit.at < found.until:
                    found.add(hit.at)
            self._starts[limit_row.pk] = found
        return found

    def _check_singleton(self, run: Run, function: Function) -> str | None:
        """Return the reason why a singleton skips a run; else acquire its slot.

        Return ``_LATER`` while the runs that it replaces have not ended.
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
            # Of several new runs, the last one counts.
            if limit_row.pk in self._newest:
                self._done.replaced[self._newest[limit_row.pk].pk] = run.pk
            self._newest[limit_row.pk] = run
            for slot in live:
                self._done.replaced[slot.run_id] = run.pk
            return _LATER
        slot = Slot(limit_id=limit_row.pk, run_id=run.pk, since=clock.now())
        self._singleton_slots[limit_row.pk] = [slot]
        self._acquired[limit_row.pk] = slot
        return None

    def _live(self, limit_row: Limit, run: Run, *, ended: bool) -> list[Slot]:
        """Return the slots of live runs at a singleton's limit.

        With ``ended``, include runs that were live when this run arrived and are not
        collected yet.
        """
        if limit_row.pk not in self._singleton_slots:
            held = list(limit_rows.holders(limit_row.pk))
            self._singleton_slots[limit_row.pk] = [
                *limit_rows.released_slots([limit_row.pk]),
                *held,
            ]
        came = max(run.due_at, run.queued_at)
        return [
            slot
            for slot in self._singleton_slots[limit_row.pk]
            if slot.run_id != run.pk
            and (slot.released_at is None or (ended and slot.released_at > came))
        ]


_LATER = "later"


def _limit_reached(
    limit: int, per: timedelta, keyed_limit: KeyedLimit, free_at: datetime
) -> str:
    keyed = isinstance(keyed_limit.rule, RateLimit) and keyed_limit.rule.key is not None
    named = f" for key {keyed_limit.text}" if keyed else ""
    return (
        f"rate limit: {limit} starts in {format_duration(per)} were reached{named}; "
        f"the next start is accepted at {free_at.isoformat()}."
    )
