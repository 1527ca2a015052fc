"""Who asks: a program by its key, a person by the admin's session, or anybody.

A door lets in or raises; only where no key is header is the session looked at, and then
with Django's own check against forged requests. The request is counted, then the check
of the endpoint decides by the address alone, and only then the body is read.
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

#: What decides before the body is read: it raises what the endpoint would raise.
Check = Callable[[HttpRequest, Actor], object]


def _count(who: str) -> None:
    """Count a request of somebody; raise the problem of one too many."""
    wait = request_throttle.wait(who, conf.API_RATE)
    if wait is not None:
        raise too_many_requests(wait)


class KeyAuth(AuthBase):
    """Let in who shows a key. One that opens nothing is refused, whatever else."""

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __init__(self, check: Check | None = None, *, lines: bool = False) -> None:
        super().__init__()
        self.check = check
        self.lines = lines

    def __call__(self, request: HttpRequest) -> Actor | None:
        """Return who acts; None when no key is header."""
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
    """Let in the staff, by the session that the admin uses."""

    openapi_type = "apiKey"
    openapi_in = "cookie"

    def __init__(self, check: Check | None = None, *, lines: bool = False) -> None:
        self.openapi_name = settings.SESSION_COOKIE_NAME
        super().__init__()
        self.check = check
        self.lines = lines

    def __call__(self, request: HttpRequest) -> Actor:
        """Return who acts."""
        user = getattr(request, "user", None)
        if user is None or not (user.is_active and getattr(user, "is_staff", False)):
            _count(request_throttle.address(request))
            raise unauthorized()
        parsing.refuse_form(request)
        if check_csrf(request) is not None:
            msg = "Expected the token against forged requests, as X-CSRFToken."
            raise Problem(403, "csrf-failed", msg)
        _count(f"user:{user.pk}")
        actor = Actor(user, via="API", space=id_namespaces.of_user(user))
        _authorize(request, actor, self.check, self.lines)
        return actor


def _authorize(
    request: HttpRequest, who: Actor, check: Check | None, lines: bool
) -> None:
    """Let the endpoint's own check decide, and then read the body."""
    set_viewer(Viewer(who.user, API, request, key=who.key))
    if check is not None:
        check(request, who)
    parsing.read(request, lines=lines)


class CallbackAuth:
    """Let in the holder of a callback's token, if a run waits for its answer."""

    def __call__(self, request: HttpRequest) -> bool:
        """Count the request, check the token, and read the body."""
        _count(request_throttle.address(request))
        callbacks.check(address_part(request, "token"))
        parsing.read(request)
        return True


def authenticate_for(request: HttpRequest, audience: str) -> Actor | None:
    """Return who asks for what is public, private or off; raise if it is not for them.

    A stranger to what is public is None, and has been counted.
    """
    if audience == "off":
        raise Http404
    if audience == "private":
        return KeyAuth()(request) or StaffSession()(request)
    _count(f"probe:{request_throttle.address(request)}")
    return None


class ReadyAuth:
    """Let in whom the setting ``API_READY`` names."""

    def __call__(self, request: HttpRequest) -> bool:
        """Return True, or raise."""
        who = authenticate_for(request, conf.API_READY)
        if who is not None:
            require(who, "durable_jobs.view_worker")
        return True


def authenticators(
    check: Check | None = None, *, lines: bool = False
) -> Sequence[AuthBase]:
    """Return the ways into an endpoint. ``lines``: its body may be one value a line."""
    return [KeyAuth(check, lines=lines), StaffSession(check, lines=lines)]


def with_permission(*permissions: str) -> Check:
    """Return the check that an actor has one of these permissions."""

    def check(request: HttpRequest, who: Actor) -> None:
        if not any(who.may(one) for one in permissions):
            require(who, permissions[0])

    return check


def address_part(request: HttpRequest, name: str) -> str:
    """Return a part of the request's address, by the name that the endpoint gives."""
    match = request.resolver_match
    return str(match.kwargs[name]) if match is not None else ""


def actor(request: HttpRequest) -> Actor:
    """Return who was let in."""
    return cast(Actor, cast(Any, request).auth)


def actor_with(request: HttpRequest, permission: str) -> Actor:
    """Return who asks; raise when the key, or its owner, may not do this."""
    return require(actor(request), permission)


def require(who: Actor, permission: str) -> Actor:
    """Return an actor; raise when the key, or its owner, may not do this."""
    require_scope(who, permission)
    if not who.may(permission):
        msg = f"You lack the permission {permission}."
        raise PermissionDenied(msg)
    return who


def require_scope(who: Actor, permission: str) -> None:
    """Raise when the key, if there is one, does not cover a permission."""
    if not who.within_scope(permission):
        msg = f"The key lacks the scope {scope_of(permission)}."
        raise PermissionDenied(msg)
