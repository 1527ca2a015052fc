"""Which waiting approvals a viewer may decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_backends
from django.contrib.auth.backends import ModelBackend

from durable_jobs.control.acting import Actor
from durable_jobs.models import Wait
from durable_jobs.queries import approvals

#: Approvals on a page.
PAGE = 50
#: Approvals that a page looks at where each run has permissions of its own.
LOOKED_AT = 500


@dataclass(frozen=True, slots=True)
class Inbox:
    """Some approvals, the oldest first; ``after`` leads on, if there may be more."""

    waits: list[Wait]
    after: int | None


def read(actor: Actor, after: int = 0) -> Inbox:
    """Return the approvals that an actor may decide, from some place on."""
    names = approvals.permissions()
    allowed = {name for name in names if actor.may(name)}
    if len(allowed) < len(names) and _by_run():
        return _one_by_one(actor, allowed, approvals.waiting(names, after, LOOKED_AT))
    rows = approvals.waiting(allowed, after, PAGE + 1) if allowed else []
    last = rows[PAGE - 1].pk if len(rows) > PAGE else None
    return Inbox(approvals.with_runs(rows[:PAGE]), last)


def _one_by_one(actor: Actor, allowed: set[str], rows: list[Wait]) -> Inbox:
    found: list[Wait] = []
    known = {wait.pk for wait in approvals.with_runs(rows)}
    looked = 0
    for wait in rows:
        looked += 1
        if wait.pk in known and (
            wait.name in allowed or actor.may(wait.name, wait.run)
        ):
            found.append(wait)
        if len(found) == PAGE:
            break
    more = looked < len(rows) or len(rows) == LOOKED_AT
    return Inbox(found, rows[looked - 1].pk if more else None)


def anything_for(actor: Actor) -> bool:
    """Tell whether an approval waits that an actor may decide."""
    if any(actor.may(name) for name in approvals.permissions()):
        return True
    return _by_run() and bool(read(actor).waits)


def _by_run() -> bool:
    """Tell whether anybody could have a permission for one run alone.

    Django's own backend knows none, and asking it for each run would be in vain.
    """
    return any(not _plain(type(backend)) for backend in get_backends())


def _plain(backend: Any) -> bool:
    names = ("has_perm", "get_all_permissions")
    return issubclass(backend, ModelBackend) and all(
        getattr(backend, name) is getattr(ModelBackend, name) for name in names
    )
