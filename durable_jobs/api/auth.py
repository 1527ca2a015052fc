"""Authenticate requests by API key, admin session or callback token.

The session counts only if the request has no key, and requires Django's CSRF token.
Each request is first counted for its rate limit. Then the endpoint's check runs on the
URL alone. The body is read last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from ninja.security.base import AuthBase
from ninja.utils import check_csrf

from durable_jobs.api import parsing
from durable_jobs.api.problems import Problem, too_many_requests, unauthorized
from durable_jobs.conf import settings as conf
from durable_jobs.control import api_keys, id_namespaces, request_throttle
from durable_jobs.control.actor import Actor
from durable_jobs.control.scopes import scope_of
from durable_jobs.lifecycle import callbacks
from durable_jobs.queries.visibility import API, Viewer, set_viewer

#: A check that runs before the body is read, and raises like the endpoint.
Check = Callable[[HttpRequest, Actor], object]


def _count(actor: str) -> None:
    """Count a request. Raise a 429 problem if the rate limit is exceeded."""
    wait = request_throttle.wait(actor, conf.API_RATE)
    if wait is not None:
        raise too_many_requests(wait)


class KeyAuth(AuthBase):
    """Authenticate by API key. Reject an invalid key even if a session is valid."""

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __init__(self, check: Check | None = None, *, lines: bool = False) -> None:
        super().__init__()
        self.check = check
        self.lines = lines

    def __call__(self, request: HttpRequest) -> Actor | None:
        """Return the actor, or None if the request has no key."""
        header = request.headers.get("Authorization")
        if header is None:
            return None
        scheme, _space, text = header.partition(" ")
        actor = api_keys.identify(text.strip()) if scheme.lower() == "bearer" else None
        if actor is None:
            _count(request_throttle.address(request))
            raise unauthorized()
        _count(f"key:{actor.key}:{text.strip() if actor.key is None else ''}")
        _authorize(request, actor, self.check, self.lines)
        return actor


class StaffSession(AuthBase):
    """Authenticate staff users by their admin session."""

    openapi_type = "apiKey"
    openapi_in = "cookie"

    def __init__(self, check: Check | None = None, *, lines: bool = False) -> None:
        self.openapi_name = settings.SESSION_COOKIE_NAME
        super().__init__()
        self.check = check
        self.lines = lines

    def __call__(self, request: HttpRequest) -> Actor:
        """Return the actor."""
        user = getattr(request, "user", None)
        if user is None or not (user.is_active and getattr(user, "is_staff", False)):
            _count(request_throttle.address(request))
            raise unauthorized()
        parsing.refuse_form(request)
        if check_csrf(request) is not None:
            msg = "Expected a valid CSRF token in the header X-CSRFToken."
            raise Problem(403, "csrf-failed", msg)
        _count(f"user:{user.pk}")
        actor = Actor(user, via="API", space=id_namespaces.of_user(user))
        _authorize(request, actor, self.check, self.lines)
        return actor


def _authorize(
    request: HttpRequest, actor: Actor, check: Check | None, lines: bool
) -> None:
    """Run the endpoint's check, then read the body."""
    set_viewer(Viewer(actor.user, API, request, key=actor.key))
    if check is not None:
        check(request, actor)
    parsing.read(request, lines=lines)


class CallbackAuth:
    """Authenticate by the token of an open callback."""

    def __call__(self, request: HttpRequest) -> bool:
        _count(request_throttle.address(request))
        callbacks.check(address_part(request, "token"))
        parsing.read(request)
        return True


def authenticate_for(request: HttpRequest, audience: str) -> Actor | None:
    """Return the actor for an audience: "public", "private" or "off".

    Return None for "public", after counting the request. Raise if the requester is not
    in the audience.
    """
    if audience == "off":
        raise Http404
    if audience == "private":
        return KeyAuth()(request) or StaffSession()(request)
    _count(f"probe:{request_throttle.address(request)}")
    return None


class ReadyAuth:
    """Authenticate for the audience in the setting ``API_READY``."""

    def __call__(self, request: HttpRequest) -> bool:
        actor = authenticate_for(request, conf.API_READY)
        if actor is not None:
            require(actor, "durable_jobs.view_worker")
        return True


def authenticators(
    check: Check | None = None, *, lines: bool = False
) -> Sequence[AuthBase]:
    """Return the authenticators of an endpoint. ``lines`` allows NDJSON bodies."""
    return [KeyAuth(check, lines=lines), StaffSession(check, lines=lines)]


def with_permission(*permissions: str) -> Check:
    """Return a check for at least one of these permissions."""

    def check(request: HttpRequest, actor: Actor) -> None:
        if not any(actor.may(one) for one in permissions):
            require(actor, permissions[0])

    return check


def address_part(request: HttpRequest, name: str) -> str:
    """Return a parameter of the request's URL."""
    match = request.resolver_match
    return str(match.kwargs[name]) if match is not None else ""


def actor_of(request: HttpRequest) -> Actor:
    """Return the authenticated actor."""
    return cast(Actor, cast(Any, request).auth)


def actor_with(request: HttpRequest, permission: str) -> Actor:
    """Return the actor of a request. Raise without the permission."""
    return require(actor_of(request), permission)


def require(actor: Actor, permission: str) -> Actor:
    """Return the actor. Raise if the key or its owner lacks the permission."""
    require_scope(actor, permission)
    if not actor.may(permission):
        msg = f"You lack the permission {permission}."
        raise PermissionDenied(msg)
    return actor


def require_scope(actor: Actor, permission: str) -> None:
    """Raise if the actor's key, if any, lacks the scope of a permission."""
    if not actor.within_scope(permission):
        msg = f"The key lacks the scope {scope_of(permission)}."
        raise PermissionDenied(msg)
