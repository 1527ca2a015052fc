"""Bulk actions on many runs, executed by a durable function of this package.

The filter and its time are fixed at the start, so that later runs are not affected. The
runs are processed from the oldest on, in chunks. Each chunk is one transaction with the
step that records it, so that after a crash no run is processed twice or left out.
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
from durable_jobs.definitions.registry import PACKAGE_PREFIX
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
from durable_jobs.project_code import description_of
from durable_jobs.queries import visibility
from durable_jobs.queries.run_filter import RunFilter
from durable_jobs.queries.visibility import Viewer
from durable_jobs.store import db

FUNCTION = f"{PACKAGE_PREFIX}bulk"
#: Actions on many runs. The other actions need values for each run.
BULK = ("cancel", "pause", "resume", "retry", "wake", "redrive", "rerun")
#: Maximum of runs of one bulk run.
MOST = 100_000
#: Maximum of problems in the output.
MOST_PROBLEMS = 100
#: Minimum of runs per transaction.
CHUNK = 25
_LONGEST = 300
_PAYLOADS = ("data", "output", "error", "event_meta")


def begin(
    actor: Actor, action: str, chosen: RunFilter, reason: str = "", *, key: str = ""
) -> Run:
    """Start a bulk run that applies an action to all runs of a filter; return it.

    Its output counts the runs that were ``done``, ``refused`` by their status, or
    ``failed``, and has the first problems. A ``key`` that was used before returns its
    bulk run. Raise ``PermissionDenied``, ``ActionNotAllowed`` if no run matches, and
    ``LimitExceeded`` for more than ``MOST`` runs.
    """
    if action not in BULK:
        msg = (
            f"Expected one of {', '.join(BULK)} as the bulk action, got {action!r:.80}."
        )
        raise ConfigurationError(msg)
    if not actor.may(ACTIONS[action].permission):
        raise PermissionDenied
    if chosen.reads_payloads and not actor.may("durable_jobs.view_payload"):
        raise PermissionDenied
    if key and (known := _started(key)):
        return known
    frozen = chosen.frozen()
    rows = _subject_to_bulk()
    search_start = frozen.search_start(rows)
    count = counted(frozen)
    if not count:
        msg = "No run matches the filter."
        raise ActionNotAllowed(msg)
    if count > MOST:
        msg = (
            f"More than {MOST:,} runs match the filter, which is the maximum for one "
            f"bulk run. Narrow the filter, for example by time."
        )
        raise LimitExceeded(msg)
    data = {
        "action": action,
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
        if (viewer := visibility.current_viewer()) is None
        else viewer.interface,
        "key": actor.key,
    }
    why = f": {reason}" if reason else "."
    with db.atomic():
        try:
            run = bulk.using(key=key or None).enqueue(data)
        except DuplicateKeyError:  # another request with the key was first
            return db.rows(Run).get(function=FUNCTION, key=key)
        done = ACTIONS[action].done
        text = f"Bulk run started: {count} runs to be {done} ({frozen}){why}"
        audit.write(actor, run, text)
    return run


def counted(chosen: RunFilter, among: QuerySet[Any] | None = None) -> int:
    """Return the number of runs that match, at most ``MOST + 1``.

    With ``among``, count only these runs.
    """
    count = 0
    for part in chosen.split_by_status():
        rows = part.narrow(_subject_to_bulk(among)).order_by("-pk")
        count += rows[: MOST + 1 - count].count()
        if count > MOST:
            break
    return count


def _started(key: str) -> Run | None:
    return db.rows(Run).filter(function=FUNCTION, key=key).first()


def _subject_to_bulk(among: QuerySet[Any] | None = None) -> Any:
    every = visibility.runs() if among is None else among
    return every.exclude(function=FUNCTION)


@function(id=FUNCTION, queue=settings.QUEUE)
def bulk(ctx: Context) -> dict[str, Any]:
    """Apply an action to all runs of a filter for a user with the permission."""
    params = ctx.event.data
    total = {"done": 0, "refused": 0, "failed": 0}
    problems: list[dict[str, str]] = []
    after, processed = params["search_start"], 0
    size = max(CHUNK, -(-params["count"] // max(settings.MAX_STEPS // 2, 1)))
    while after is not None:
        found = ctx.step.atomic(
            f"{params['action']} {processed + 1} to {processed + size}",
            _chunk,
            params,
            uuid.UUID(ctx.run_id),
            uuid.UUID(after),
            size,
            MOST_PROBLEMS - len(problems),
        )
        for name in total:
            total[name] += found[name]
        problems += found["problems"]
        after, processed = found["after"], processed + size
    return {"action": params["action"], **total, "problems": problems}


def _chunk(
    params: dict[str, Any],
    itself: uuid.UUID,
    after: uuid.UUID,
    size: int,
    most_problems: int,
) -> dict[str, Any]:
    """Process the next runs; return counts, problems, and the last id of the chunk."""
    if ids.new_id() <= itself:
        # A rerun created now would have a smaller id than the bulk run.
        msg = "The clock of this host is behind the host that started the bulk run."
        raise RetryAfterError("15s", msg)
    actor = _actor(params["actor"], params["action"])
    with visibility.seen_by(_viewer(params, actor)):
        rows = _next(params, itself, after, size)
    counts = {"done": 0, "refused": 0, "failed": 0}
    problems: list[dict[str, str]] = []
    for run in rows:
        name, message = _one(actor, params["action"], run, params["reason"])
        counts[name] += 1
        if name != "done" and len(problems) < most_problems:
            problem = {"run": str(run.pk), "what": name, "message": message[:_LONGEST]}
            problems.append(problem)
    last = str(rows[-1].pk) if len(rows) == size else None
    return {**counts, "problems": problems, "after": last}


def _next(
    params: dict[str, Any], itself: uuid.UUID, after: uuid.UUID, size: int
) -> Sequence[Run]:
    search_start = uuid.UUID(params["search_start"])
    rows = _subject_to_bulk().filter(pk__lt=itself)
    rows = RunFilter.parse(params["filter"]).narrow(rows, search_start)
    rows = rows.filter(pk__gt=after).defer(*_PAYLOADS)
    return list(rows.order_by("pk")[:size])


def _viewer(params: dict[str, Any], actor: Actor) -> Viewer | None:
    """Return the viewer whose visibility rule applies."""
    interface = params.get("interface")
    return (
        None
        if interface is None
        else Viewer(actor.user, interface, key=params.get("key"))
    )


def _actor(known: dict[str, Any], action: str) -> Actor:
    """Return the actor; raise if the actor does not have the permission any more."""
    try:
        user = get_user_model()._default_manager.get(pk=known["user"])
    except ObjectDoesNotExist:
        msg = "The user who started the bulk run no longer exists."
        raise NonRetriableError(msg) from None
    scopes = known["scopes"]
    actor = Actor(user, known["via"], None if scopes is None else frozenset(scopes))
    if not actor.may(ACTIONS[action].permission):
        lacks = f"no longer has the permission {ACTIONS[action].permission}"
        msg = f"{description_of(user)} {lacks}."
        raise NonRetriableError(msg)
    return actor


def _one(actor: Actor, action: str, run: Run, reason: str) -> tuple[str, str]:
    """Apply the action to one run; return the count to increment, and the problem."""
    if not run_actions.applies(action, run):
        return "refused", f"The run is {run.status}."
    try:
        with db.atomic():
            run_actions.act(actor, action, run, reason=reason)
    except ActionNotAllowed as error:
        return "refused", error.message
    except OperationalError:
        raise  # a deadlock or an outage: retry the whole chunk
    except Exception as error:  # noqa: BLE001  # one run must not keep the others
        return "failed", summary_of(error)
    return "done", ""
