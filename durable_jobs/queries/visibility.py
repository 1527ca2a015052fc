"""The runs that a viewer may see: one rule for all pages, lists, counts and endpoints.

An interface (the admin, the API, a progress page) sets the viewer with ``seen_by``.
Every read model starts from ``runs()``, so that all figures cover the same runs. The
engine and the commands have no viewer and see all runs.

The rule is the setting ``VISIBLE_RUNS``. In the admin, ``get_queryset`` of your
project's own ``RunAdmin`` narrows it further. If the rule fails, nothing is shown: the
response is 403, and an ERROR is logged.
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
FAILED = "The rule for the runs that you may see has failed."


@dataclass(frozen=True)
class Viewer:
    """The viewer, for the rule.

    ``key`` is the primary key of the API key, if there is one. ``request`` is None in a
    bulk run. ``interface`` is "admin", "api" or "progress". ``shown`` returns the runs
    that your project's own ``RunAdmin`` shows, if it narrows them.
    """

    user: Any
    interface: str
    request: Any = None
    key: int | None = None
    shown: Callable[[], Rows] | None = field(default=None, compare=False)
    _kept: dict[str, Rows] = field(default_factory=dict, compare=False, repr=False)


_viewer: ContextVar[Viewer | None] = ContextVar("durable_jobs_viewer", default=None)


@contextmanager
def seen_by(viewer: Viewer | None) -> Iterator[None]:
    """Limit the read models in the block to what a viewer may see."""
    token = _viewer.set(viewer)
    try:
        yield
    finally:
        _viewer.reset(token)


def current_viewer() -> Viewer | None:
    """Return the viewer, or None outside of an interface."""
    return _viewer.get()


def set_viewer(viewer: Viewer) -> None:
    """Set the viewer for the rest of the ``seen_by`` block."""
    _viewer.set(viewer)


# The rule


def visible_runs(who: Viewer | None, runs: Rows) -> Rows:
    """Return those of the runs that a viewer may see, or all runs without a rule.

    If the rule fails, log an ERROR and raise ``PermissionDenied``.
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
        logger.exception("The rule VISIBLE_RUNS = %r failed. Nothing is shown.", path)
        raise PermissionDenied(FAILED) from error
    if _is_simple(found):
        return cast(Rows, found)
    # A join may duplicate rows, and a slice cannot be filtered.
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


# What the current viewer may see


def runs() -> QuerySet[Run]:
    """Return the visible runs, from which every read model starts."""
    who = _viewer.get()
    if who is None:
        return db.rows(Run)
    if (
        "runs" not in who._kept
    ):  # once per request, because a rule may query the database
        who._kept["runs"] = visible_runs(who, db.rows(Run))
    return who._kept["runs"].all()


def is_narrowed() -> bool:
    """Return whether some runs are hidden."""
    return _viewer.get() is not None and not _sees_all(runs())


def sees(run: Run) -> bool:
    """Return whether a run is visible."""
    return not is_narrowed() or runs().filter(pk=run.pk).exists()


def visible_keys(keys: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Return those of the ids whose runs are visible."""
    every = set(keys)
    if not is_narrowed():
        return every
    return set(runs().filter(pk__in=every).values_list("pk", flat=True))


def of_runs(rows: Rows, name: str = "run_id") -> Rows:
    """Return those of the rows that belong to a visible run."""
    if not is_narrowed():
        return rows
    return rows.filter(**{f"{name}__in": _keys(runs())})


def events(rows: Rows) -> Rows:
    """Return those of the events that started or woke a visible run."""
    if not is_narrowed():
        return rows
    started = runs().order_by().filter(event_id=OuterRef("pk"))
    steps = of_runs(db.rows(Step).filter(kind__in=EVENT_WAITS))
    woken = steps.alias(of_event=EventOf(F("detail"))).filter(of_event=OuterRef("pk"))
    return rows.filter(Exists(started) | Exists(woken))


def schedules(rows: Rows) -> Rows:
    """Return those of the schedules that are declared or have a visible last run."""
    if not is_narrowed():
        return rows
    return rows.filter(Q(declared=True) | Q(last_run__in=_keys(runs())))


def pauses(rows: Rows) -> Rows:
    """Return those of the pauses without a key, which may belong to a hidden run."""
    return rows.exclude(kind=Pause.KEY) if is_narrowed() else rows


def limits(rows: Rows) -> Rows:
    """Return those of the limits without a key, or with a visible run."""
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
    """Return those of the backlogs with a visible run."""
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
    """Return the visible rows of any other model of the app."""
    narrow = _OF.get(rows.model)
    return rows if narrow is None else narrow(rows)


# Without access to payloads


def masked(error: Any, sees: bool) -> dict[str, Any] | None:
    """Return an error, or only its type if the viewer may not see payloads."""
    if not isinstance(error, dict):
        return None
    return error if sees else {"type": str(error.get("type", "Error"))}
