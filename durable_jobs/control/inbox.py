"""The waiting approvals that an actor may decide."""

from __future__ import annotations

from dataclasses import dataclass

from durable_jobs.control.actor import Actor
from durable_jobs.models import Wait
from durable_jobs.project_code import has_custom_permissions
from durable_jobs.queries import approvals
from durable_jobs.queries.visibility import is_narrowed

#: Approvals on a page.
PAGE = 50
#: Approvals that a page checks one by one, for permissions per run.
MAX_CHECKED = 500


@dataclass(frozen=True, slots=True)
class Inbox:
    """A page of approvals, oldest first. ``after`` is the cursor of the next page."""

    waits: list[Wait]
    after: int | None


def read(actor: Actor, after: int = 0) -> Inbox:
    """Return a page of the approvals that an actor may decide."""
    names = approvals.permissions()
    allowed = {name for name in names if actor.may(name)}
    if len(allowed) < len(names) and has_custom_permissions():
        return _one_by_one(actor, allowed, approvals.waiting(names, after, MAX_CHECKED))
    rows = approvals.waiting(allowed, after, PAGE + 1) if allowed else []
    last = rows[PAGE - 1].pk if len(rows) > PAGE else None
    return Inbox(approvals.with_runs(rows[:PAGE]), last)


def _one_by_one(actor: Actor, allowed: set[str], rows: list[Wait]) -> Inbox:
    found: list[Wait] = []
    known = {wait.pk for wait in approvals.with_runs(rows)}
    checked = 0
    for wait in rows:
        checked += 1
        if wait.pk in known and (
            wait.name in allowed or actor.may(wait.name, wait.run)
        ):
            found.append(wait)
        if len(found) == PAGE:
            break
    more = checked < len(rows) or len(rows) == MAX_CHECKED
    return Inbox(found, rows[checked - 1].pk if more else None)


def anything_for(actor: Actor) -> bool:
    """Return whether an approval waits that the actor may decide."""
    one_by_one = is_narrowed()
    if not one_by_one and any(actor.may(name) for name in approvals.permissions()):
        return True
    return (one_by_one or has_custom_permissions()) and bool(read(actor).waits)
