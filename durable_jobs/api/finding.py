"""The run that a request is about, and the filter of the many that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest

from durable_jobs.api.doors import need_scope
from durable_jobs.control.acting import Actor
from durable_jobs.models import Run
from durable_jobs.queries import reading
from durable_jobs.queries.filtering import RunFilter

_VIEW = "durable_jobs.view_run"
_PAYLOAD = "durable_jobs.view_payload"
_PAGE = ("limit", "cursor")


def run(request: HttpRequest, key: UUID, permission: str) -> tuple[Actor, Run]:
    """Return who asks, and a run that he may do something to.

    One that he may not even see is not there: its id tells nobody anything.
    """
    who = need_scope(request, permission)
    found = reading.run(key)
    if found is None:
        raise Http404
    if not who.may(permission, found):
        # Of the user alone: a key without the scope to read may still steer.
        user = who.user
        if not (user.has_perm(_VIEW) or user.has_perm(_VIEW, found)):
            raise Http404
        msg = f"You lack the permission {permission}."
        raise PermissionDenied(msg)
    return who, found


def params(request: HttpRequest) -> dict[str, list[str]]:
    """Return the filters among the parameters of an address."""
    return {name: values for name, values in request.GET.lists() if name not in _PAGE}


def chosen(who: Actor, given: Mapping[str, str | Iterable[str]]) -> RunFilter:
    """Return the filter that conditions make, for who may ask for them."""
    found = RunFilter.parse(given)
    if found.reads_payloads and not who.may(_PAYLOAD):
        msg = "The filter 'where' looks into payloads, which you may not see."
        raise PermissionDenied(msg)
    return found


def masked(error: Any, sees: bool) -> dict[str, Any] | None:
    """Return an error; nothing but its type to those who may not see payloads."""
    if not isinstance(error, dict):
        return None
    return error if sees else {"type": str(error.get("type", "Error"))}
