"""Which runs a viewer may see: one rule for every page, list, count and endpoint.

A door (the admin, the API, a progress page) says who looks, with ``seen_by``. Every
read model begins at ``runs()``, so that all figures of a door are of the same runs. The
engine and the commands are behind no door: they see everything.

The rule is the setting ``VISIBLE_RUNS``. In the admin, a project's own ``RunAdmin``
with a ``get_queryset`` narrows it further. A rule that fails shows nothing: the answer
is 403, and the log has an ERROR.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

from django.core.exceptions import PermissionDenied
from django.db.models import Exists, F, Model, OuterRef, Q, QuerySet
from django.utils.module_loading import import_string

from durable_jobs.conf import settings
from durable_jobs.models import (
    EVENT_WAITS,
    Backlog,
    Event,
    EventOf,
    Limit,
    Pause,
    Run,
    Schedule,
    Slot,
    Step,
    SweepError,
)
from durable_jobs.store import db

logger = logging.getLogger("durable_jobs")

Rows = QuerySet[Any]
ADMIN, API, PROGRESS = "admin", "api", "progress"
FAILED = "The rule that says which runs you may see has failed."


@dataclass(frozen=True)
class Viewer:
    """Who looks, for the rule.

    ``key`` is the primary key of the API key, if one was shown. ``request`` is None
    where a bulk run works for the viewer. ``door`` is "admin", "api" or "progress".
    ``shown`` gives what the project's own ``RunAdmin`` shows, where it shows less.
    """

    user: Any
    door: str
    request: Any = None
    key: int | None = None
    shown: Callable[[], Rows] | None = field(default=None, compare=False)
    _kept: dict[str, Rows] = field(default_factory=dict, compare=False, repr=False)


_current: ContextVar[Viewer | None] = ContextVar("durable_jobs_viewer", default=None)


@contextmanager
def seen_by(viewer: Viewer | None) -> Iterator[None]:
    """Let the read models give, in the block, what a viewer may see."""
    token = _current.set(viewer)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Viewer | None:
    """Return who looks; None outside of any door."""
    return _current.get()


def look_as(viewer: Viewer) -> None:
    """Let the rest of the ``seen_by`` block be for a viewer who is known only now."""
    _current.set(viewer)


# The rule


def visible_runs(who: Viewer | None, runs: Rows) -> Rows:
    """Return those of some runs that a viewer may see; all of them without a rule.

    Raise ``PermissionDenied``, and log an ERROR, when the rule fails.
    """
    if who is None:
        return runs
    path = settings.VISIBLE_RUNS
    found = runs if path is None else _checked(path, who, runs)
    shown = None if who.shown is None else who.shown()
    if shown is not None and not _sees_all(shown):
        found = found.filter(pk__in=_keys(shown))
    return found


def _checked(path: str, who: Viewer, runs: Rows) -> Rows:
    try:
        found = import_string(path)(who, runs)
        wrong = _why_not(found, runs)
        if wrong:
            raise TypeError(f"Expected a queryset of Run from {path}, got {wrong}.")
    except Exception as error:
        logger.exception("The rule VISIBLE_RUNS = %r failed: nothing is shown.", path)
        raise PermissionDenied(FAILED) from error
    if _is_simple(found):
        return cast(Rows, found)
    # A join may double rows, and a slice cannot be narrowed any more.
    return runs.filter(pk__in=_keys(found))


def _why_not(found: Any, runs: Rows) -> str:
    if not isinstance(found, QuerySet) or not issubclass(found.model, Run):
        kind = type(found).__name__
        return f"one of {found.model}" if isinstance(found, QuerySet) else f"a {kind}"
    if found.db != runs.db:
        return f"one of the database {found.db!r}"
    return ""


def _is_simple(rows: Rows) -> bool:
    query = rows.query
    sets = query.is_sliced or query.distinct or query.combinator or query.values_select
    return not sets and len(query.alias_map) <= 1


def _keys(rows: Rows) -> Rows:
    whole = rows if rows.query.is_sliced else rows.order_by()
    keys: Rows = whole.values("pk")
    return keys


def _sees_all(rows: Rows) -> bool:
    return _is_simple(rows) and not rows.query.where.children


# What the viewer of this moment may see


def runs() -> QuerySet[Run]:
    """Return the runs that may be seen: where every read model begins."""
    who = _current.get()
    if who is None:
        return db.rows(Run)
    if "runs" not in who._kept:  # a rule may ask the database itself: once a request
        who._kept["runs"] = visible_runs(who, db.rows(Run))
    return who._kept["runs"].all()


def is_narrowed() -> bool:
    """Return whether some runs may not be seen."""
    return _current.get() is not None and not _sees_all(runs())


def sees(run: Run) -> bool:
    """Return whether one run may be seen."""
    return not is_narrowed() or runs().filter(pk=run.pk).exists()


def visible_keys(keys: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Return those of some runs' ids whose runs may be seen."""
    every = set(keys)
    if not is_narrowed():
        return every
    return set(runs().filter(pk__in=every).values_list("pk", flat=True))


def of_runs(rows: Rows, name: str = "run_id") -> Rows:
    """Return those of some rows that belong to a run that may be seen."""
    if not is_narrowed():
        return rows
    return rows.filter(**{f"{name}__in": _keys(runs())})


def events(rows: Rows) -> Rows:
    """Return those of some events that started or woke a run that may be seen."""
    if not is_narrowed():
        return rows
    started = runs().order_by().filter(event_id=OuterRef("pk"))
    steps = of_runs(db.rows(Step).filter(kind__in=EVENT_WAITS))
    woken = steps.alias(of_event=EventOf(F("detail"))).filter(of_event=OuterRef("pk"))
    return rows.filter(Exists(started) | Exists(woken))


def schedules(rows: Rows) -> Rows:
    """Return those of some schedules that code declares, or whose last run is seen."""
    if not is_narrowed():
        return rows
    return rows.filter(Q(declared=True) | Q(last_run__in=_keys(runs())))


def pauses(rows: Rows) -> Rows:
    """Return those of some pauses that are not of one key: a key may be another's."""
    return rows.exclude(kind=Pause.KEY) if is_narrowed() else rows


def limits(rows: Rows) -> Rows:
    """Return those of some limits that have no key, or that a seen run uses."""
    if not is_narrowed():
        return rows
    held = of_runs(db.rows(Slot).filter(released_at__isnull=True))
    waited = backlogs(db.rows(Backlog).filter(blocked_on__isnull=False))
    return rows.filter(
        Q(key="")
        | Q(pk__in=held.values("limit_id"))
        | Q(pk__in=waited.values("blocked_on_id"))
    )


def backlogs(rows: Rows) -> Rows:
    """Return those of some backlogs in which a seen run waits."""
    if not is_narrowed():
        return rows
    waiting = runs().filter(status=Run.Status.QUEUED, backlog__isnull=False)
    return rows.filter(pk__in=waiting.order_by().values("backlog"))


_OF: dict[type[Model], Callable[[Rows], Rows]] = {
    Event: events,
    Limit: limits,
    Pause: pauses,
    Schedule: schedules,
    Step: of_runs,
    SweepError: of_runs,
}


def rows_of(rows: Rows) -> Rows:
    """Return those rows of any other model of the app that may be seen."""
    narrow = _OF.get(rows.model)
    return rows if narrow is None else narrow(rows)


# What is withheld from those who may not see payloads


def masked(error: Any, sees: bool) -> dict[str, Any] | None:
    """Return an error; its type alone for a viewer who may not see payloads."""
    if not isinstance(error, dict):
        return None
    return error if sees else {"type": str(error.get("type", "Error"))}
