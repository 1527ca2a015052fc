"""Find the run of a request, and parse the filter of runs in a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest

from durable_jobs.api.auth import Check, actor_of, address_part, require_scope
from durable_jobs.control import id_namespaces
from durable_jobs.control.actor import Actor
from durable_jobs.definitions.names import MAX_LENGTH
from durable_jobs.models import Event, Run
from durable_jobs.project_code import allowed
from durable_jobs.queries import run_rows, visibility
from durable_jobs.queries.run_filter import RunFilter
from durable_jobs.store import db

_VIEW = "durable_jobs.view_run"
_PAYLOAD = "durable_jobs.view_payload"
_CACHE_ATTRIBUTE = "_durable_jobs_run"
_PAGE = ("limit", "cursor")


def run(request: HttpRequest, key: UUID, permission: str) -> tuple[Actor, Run]:
    """Return the actor and the run, if the actor has the permission for it.

    Raise 404 for a run that the actor may not see, so that its id reveals nothing.
    """
    actor = actor_of(request)
    return actor, _run(request, actor, key, permission)


def run_with(*permissions: str) -> Check:
    """Return a check for one of these permissions on the run in the URL."""

    def check(request: HttpRequest, actor: Actor) -> None:
        key = UUID(address_part(request, "run_id"))
        refused: Exception | None = None
        for permission in permissions:
            try:
                _run(request, actor, key, permission)
            except (PermissionDenied, Http404) as error:
                refused = refused or error
            else:
                return
        if refused is not None:
            raise refused

    return check


def _run(request: HttpRequest, actor: Actor, key: UUID, permission: str) -> Run:
    require_scope(actor, permission)
    # Read once per request: the check ran before the body was read.
    found: Run | None = getattr(request, _CACHE_ATTRIBUTE, None) or run_rows.run(key)
    if found is None:
        raise Http404
    setattr(request, _CACHE_ATTRIBUTE, found)
    if not actor.may(permission, found):
        # Checks the user, not the scopes: a key without read scope may still act.
        user = actor.user
        if not (allowed(user, _VIEW) or allowed(user, _VIEW, found)):
            raise Http404
        msg = f"You lack the permission {permission}."
        raise PermissionDenied(msg)
    return found


def params(request: HttpRequest) -> dict[str, list[str]]:
    """Return the filters among the URL parameters."""
    return {name: values for name, values in request.GET.lists() if name not in _PAGE}


def chosen(actor: Actor, given: Mapping[str, str | Iterable[str]]) -> RunFilter:
    """Return the filter of conditions. Raise if the actor may not use it."""
    found = RunFilter.parse(_in_namespace(actor, given))
    if found.reads_payloads and not actor.may(_PAYLOAD):
        msg = "The filter 'where' reads payloads, which you may not see."
        raise PermissionDenied(msg)
    return found


def _in_namespace(
    actor: Actor, given: Mapping[str, str | Iterable[str]]
) -> Mapping[str, str | Iterable[str]]:
    """Return conditions with the client's ids and keys in their stored form.

    An id or key that does not exist in the client's namespace stays as given.
    """
    found = dict(given)
    for name, known in _NAMESPACED.items():
        values = found.get(name)
        values = [values] if isinstance(values, str) else list(values or ())
        if not actor.space or len(values) != 1:
            continue
        stored = id_namespaces.stored(actor.space, values[0])
        if len(stored) <= MAX_LENGTH and "\x00" not in stored and known(stored):
            found[name] = stored
    return found


def _is_event(stored: str) -> bool:
    events = db.rows(Event).filter(pk=stored)
    return events.exists() or _of_run(event_id=stored)


def _of_run(**condition: str) -> bool:
    return db.rows(Run).filter(**condition).exists()


_NAMESPACED: dict[str, Callable[[str], bool]] = {
    "event": _is_event,
    "key": lambda stored: _of_run(key=stored),
    "q": lambda stored: _is_event(stored) or _of_run(key=stored),
}


def present(actor: Actor, found: Run) -> Run:
    """Return a run with its event id and key as the client sent them.

    A parent that the client may not see is left out.
    """
    return present_all(actor, [found])[0]


def present_all(actor: Actor, runs: list[Run]) -> list[Run]:
    """Return runs as ``present`` does, with at most one query for all parents."""
    parents = {run.parent_id for run in runs if run.parent_id is not None}
    seen = visibility.visible_keys(parents) if parents else parents
    for run in runs:
        if run.parent_id not in seen:
            run.parent_id = None
    return [_with_client_ids(actor, run) for run in runs]


def _with_client_ids(actor: Actor, found: Run) -> Run:
    if found.event_id is not None:
        found.event_id = id_namespaces.given(actor.space, found.event_id)
    found.key = id_namespaces.given(actor.space, found.key)
    return found
