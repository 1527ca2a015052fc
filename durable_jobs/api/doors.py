"""Who asks: a program by its key, a person by the admin's session, or anybody.

A door lets in or raises; only where no key is shown is the session looked at, and then
with Django's own check against forged requests. Whoever is in is counted, and then the
body is read.
"""

from __future__ import annotations

from typing import Any, cast

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from ninja.security.base import AuthBase
from ninja.utils import check_csrf

from durable_jobs.api import bodies
from durable_jobs.api.problems import Problem, too_many, unauthorized
from durable_jobs.conf import settings as conf
from durable_jobs.control import keys, limiting
from durable_jobs.control.acting import Actor
from durable_jobs.control.scopes import scope_of


def _count(who: str) -> None:
    """Count a request of somebody; raise the problem of one too many."""
    wait = limiting.wait(who, conf.API_RATE)
    if wait is not None:
        raise too_many(wait)


class ApiKey(AuthBase):
    """Let in who shows a key. One that opens nothing is refused, whatever else."""

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __init__(self, *, lines: bool = False) -> None:
        super().__init__()
        self.lines = lines

    def __call__(self, request: HttpRequest) -> Actor | None:
        """Return who acts; None when no key is shown."""
        shown = request.headers.get("Authorization")
        if shown is None:
            return None
        scheme, _space, text = shown.partition(" ")
        actor = keys.identify(text.strip()) if scheme.lower() == "bearer" else None
        if actor is None:
            _count(limiting.address(request))
            raise unauthorized()
        _count(f"key:{actor.key}:{text.strip() if actor.key is None else ''}")
        bodies.read(request, lines=self.lines)
        return actor


class Session(AuthBase):
    """Let in the staff, by the session that the admin uses."""

    openapi_type = "apiKey"
    openapi_in = "cookie"

    def __init__(self, *, lines: bool = False) -> None:
        self.openapi_name = settings.SESSION_COOKIE_NAME
        super().__init__()
        self.lines = lines

    def __call__(self, request: HttpRequest) -> Actor:
        """Return who acts."""
        user = getattr(request, "user", None)
        if user is None or not (user.is_active and getattr(user, "is_staff", False)):
            _count(limiting.address(request))
            raise unauthorized()
        if check_csrf(request) is not None:
            msg = "Expected the token against forged requests, as X-CSRFToken."
            raise Problem(403, "csrf-failed", msg)
        _count(f"user:{user.pk}")
        bodies.read(request, lines=self.lines)
        return Actor(user, via="API")


class Anybody:
    """Let in everybody: what they show, or ask for, is enough."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def __call__(self, request: HttpRequest) -> bool:
        """Count the request, and read its body."""
        _count(self.name + limiting.address(request))
        bodies.read(request)
        return True


#: For all endpoints but those that the next two are for.
DOORS = [ApiKey(), Session()]
#: For events, which may come one a line.
LINES = [ApiKey(lines=True), Session(lines=True)]


def actor(request: HttpRequest) -> Actor:
    """Return who was let in."""
    return cast(Actor, cast(Any, request).auth)


def need_scope(request: HttpRequest, permission: str) -> Actor:
    """Return who asks; raise when the key does not cover a permission."""
    found = actor(request)
    if not found.within_scope(permission):
        msg = f"The key lacks the scope {scope_of(permission)}."
        raise PermissionDenied(msg)
    return found


def need(request: HttpRequest, permission: str) -> Actor:
    """Return who asks; raise when the key, or its owner, may not do this."""
    found = need_scope(request, permission)
    if not found.may(permission):
        msg = f"You lack the permission {permission}."
        raise PermissionDenied(msg)
    return found
