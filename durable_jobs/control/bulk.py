"""Actions on many runs at once: a run of a durable function of the app's own.

What was asked for is fixed when it begins: runs that come later are left alone. The
runs are gone through from the oldest on, a chunk at a time, each chunk one transaction
with the step that records it: whatever dies, none is done twice or left out.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import OperationalError
from django.db.models import QuerySet

from durable_jobs import ids
from durable_jobs.conf import settings
from durable_jobs.control import audit, run_actions
from durable_jobs.control.actor import Actor
from durable_jobs.control.run_actions import ACTIONS
from durable_jobs.definitions.context import Context
from durable_jobs.definitions.function import function
from durable_jobs.definitions.registry import OWN
from durable_jobs.error_text import summary_of
from durable_jobs.exceptions import (
    ActionNotAllowed,
    ConfigurationError,
    DuplicateKeyError,
    LimitExceeded,
    NonRetriableError,
    RetryAfterError,
)
from durable_jobs.models import Run
from durable_jobs.project_code import described
from durable_jobs.queries import visibility
from durable_jobs.queries.run_filter import RunFilter
from durable_jobs.queries.visibility import Viewer
from durable_jobs.store import db

FUNCTION = f"{OWN}bulk"
#: What can be done to many runs; the other actions need values for each.
BULK = ("cancel", "pause", "resume", "retry", "wake", "redrive", "rerun")
#: Runs that one bulk run may be about.
MOST = 100_000
#: Runs that were not done, and why, that it tells of.
MOST_PROBLEMS = 100
#: Runs of one transaction, at least.
CHUNK = 25
_LONGEST = 300
_PAYLOADS = ("data", "output", "error", "event_meta")


def begin(
    actor: Actor, verb: str, chosen: RunFilter, reason: str = "", *, key: str = ""
) -> Run:
    """Start doing something to all runs of a filter; return the run that does it.

    Its output counts what was ``done``, ``refused`` by a run's state and ``failed``,
    with the first of those as ``problems``. A ``key`` used again returns the run that
    began with it. Raises ``PermissionDenied``, ``Refused`` when there is no such run,
    ``LimitExceeded`` for more than ``MOST``.
    """
    if verb not in BULK:
        msg = f"Expected one of {', '.join(BULK)} to do to many runs, got {verb!r:.80}."
        raise ConfigurationError(msg)
    if not actor.may(ACTIONS[verb].permission):
        raise PermissionDenied
    if chosen.reads_payloads and not actor.may("durable_jobs.view_payload"):
        raise PermissionDenied
    if key and (known := _begun(key)):
        return known
    frozen = chosen.frozen()
    rows = _subject_to_bulk()
    search_start = frozen.search_start(rows)
    count = counted(frozen)
    if not count:
        msg = "No run fits the filter."
        raise ActionNotAllowed(msg)
    if count > MOST:
        msg = (
            f"More than {MOST:,} runs fit the filter, and that is the most for one "
            f"bulk run. Narrow it, by time for example."
        )
        raise LimitExceeded(msg)
    data = {
        "verb": verb,
        "reason": reason,
        "filter": frozen.as_params(),
        "search_start": str(search_start or uuid.UUID(int=0)),
        "count": count,
        "actor": {
            "user": str(actor.user.pk),
            "via": actor.via,
            "scopes": None if actor.scopes is None else sorted(actor.scopes),
        },
        "interface": None
        if (viewer := visibility.current()) is None
        else viewer.interface,
        "key": actor.key,
    }
    why = f": {reason}" if reason else "."
    with db.atomic():
        try:
            run = bulk.using(key=key or None).enqueue(data)
        except DuplicateKeyError:  # another request with the key was first
            return db.rows(Run).get(function=FUNCTION, key=key)
        text = (
            f"Bulk run begun: {count} runs to be {ACTIONS[verb].done} ({frozen}){why}"
        )
        audit.write(actor, run, text)
    return run


def counted(chosen: RunFilter, among: QuerySet[Any] | None = None) -> int:
    """Return how many runs a bulk run would be about; ``MOST + 1`` stands for more.

    ``among``: of these alone.
    """
    count = 0
    for part in chosen.split_by_status():
        rows = part.narrow(_subject_to_bulk(among)).order_by("-pk")
        count += rows[: MOST + 1 - count].count()
        if count > MOST:
            break
    return count


def _begun(key: str) -> Run | None:
    return db.rows(Run).filter(function=FUNCTION, key=key).first()


def _subject_to_bulk(among: QuerySet[Any] | None = None) -> Any:
    every = visibility.runs() if among is None else among
    return every.exclude(function=FUNCTION)


@function(id=FUNCTION, queue=settings.QUEUE)
def bulk(ctx: Context) -> dict[str, Any]:
    """Do something to all runs of a filter, for a person who may."""
    asked = ctx.event.data
    total = {"done": 0, "refused": 0, "failed": 0}
    problems: list[dict[str, str]] = []
    after, looked = asked["search_start"], 0
    size = max(CHUNK, -(-asked["count"] // max(settings.MAX_STEPS // 2, 1)))
    while after is not None:
        found = ctx.step.atomic(
            f"{asked['verb']} {looked + 1} to {looked + size}",
            _chunk,
            asked,
            uuid.UUID(ctx.run_id),
            uuid.UUID(after),
            size,
            MOST_PROBLEMS - len(problems),
        )
        for name in total:
            total[name] += found[name]
        problems += found["problems"]
        after, looked = found["after"], looked + size
    return {"verb": asked["verb"], **total, "problems": problems}


def _chunk(
    asked: dict[str, Any],
    itself: uuid.UUID,
    after: uuid.UUID,
    size: int,
    most_problems: int,
) -> dict[str, Any]:
    """Do it to the next runs; count them, and tell after which the others are."""
    if ids.new_id() <= itself:
        # A rerun made now would count as one that was there before.
        msg = "The clock of this machine is behind that of the one where this began."
        raise RetryAfterError("15s", msg)
    actor = _actor(asked["actor"], asked["verb"])
    with visibility.seen_by(_viewer(asked, actor)):
        rows = _next(asked, itself, after, size)
    counts = {"done": 0, "refused": 0, "failed": 0}
    problems: list[dict[str, str]] = []
    for run in rows:
        name, message = _one(actor, asked["verb"], run, asked["reason"])
        counts[name] += 1
        if name != "done" and len(problems) < most_problems:
            problem = {"run": str(run.pk), "what": name, "message": message[:_LONGEST]}
            problems.append(problem)
    last = str(rows[-1].pk) if len(rows) == size else None
    return {**counts, "problems": problems, "after": last}


def _next(
    asked: dict[str, Any], itself: uuid.UUID, after: uuid.UUID, size: int
) -> Sequence[Run]:
    search_start = uuid.UUID(asked["search_start"])
    rows = _subject_to_bulk().filter(pk__lt=itself)
    rows = RunFilter.parse(asked["filter"]).narrow(rows, search_start)
    rows = rows.filter(pk__gt=after).defer(*_PAYLOADS)
    return list(rows.order_by("pk")[:size])


def _viewer(asked: dict[str, Any], actor: Actor) -> Viewer | None:
    """Return whose rule holds for the runs, as it is now."""
    interface = asked.get("interface")
    return (
        None
        if interface is None
        else Viewer(actor.user, interface, key=asked.get("key"))
    )


def _actor(known: dict[str, Any], verb: str) -> Actor:
    """Return who asked for it, as he is now; raise when he may not do it any more."""
    try:
        user = get_user_model()._default_manager.get(pk=known["user"])
    except ObjectDoesNotExist:
        msg = "The user who asked for this is no more."
        raise NonRetriableError(msg) from None
    scopes = known["scopes"]
    actor = Actor(user, known["via"], None if scopes is None else frozenset(scopes))
    if not actor.may(ACTIONS[verb].permission):
        lacks = f"has not the permission {ACTIONS[verb].permission} any more"
        msg = f"{described(user)} {lacks}."
        raise NonRetriableError(msg)
    return actor


def _one(actor: Actor, verb: str, run: Run, reason: str) -> tuple[str, str]:
    """Do it to one run; return what to count it as, and why if it was not done."""
    if not run_actions.applies(verb, run):
        return "refused", f"The run is {run.status}."
    try:
        with db.atomic():
            run_actions.act(actor, verb, run, reason=reason)
    except ActionNotAllowed as error:
        return "refused", error.message
    except OperationalError:
        raise  # a deadlock, or the database is away: the whole chunk again
    except Exception as error:  # noqa: BLE001  # one run must not keep the others
        return "failed", summary_of(error)
    return "done", ""
