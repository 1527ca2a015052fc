"""Errors as RFC 9457 problems, with a stable ``code``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from django.core.exceptions import (
    ObjectDoesNotExist,
    PermissionDenied,
    RequestDataTooBig,
    TooManyFieldsSent,
)
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from durable_jobs.api.schemas import ProblemOut
from durable_jobs.exceptions import (
    ActionNotAllowed,
    CallbackClosed,
    ConfigurationError,
    DuplicateKeyError,
    DurableError,
    ExpressionError,
    FilterError,
    LimitExceeded,
    PayloadError,
    UnknownFunction,
)

MEDIA_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="durable_jobs"'
NOT_FOUND = "Not found, or not visible to you."
#: The most errors in one problem, and the longest location of an error.
MOST_ERRORS, LONGEST_AT = 20, 200
#: Every endpoint may return these. Django itself returns 400 for a malformed request.
COMMON_STATUSES = (400, 401, 403, 413, 422, 429)
FORBIDDEN = "You lack the permission to do this."


class Problem(Exception):
    """Raise to return a problem response. ``code`` is for programs."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: list[dict[str, Any]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}


def too_many_requests(wait: float) -> Problem:
    """Return a 429 problem with the seconds to wait."""
    seconds = max(math.ceil(wait), 1)
    detail = f"Too many requests. Try again in {seconds} s."
    headers = {"Retry-After": str(seconds)}
    return Problem(429, "too-many-requests", detail, headers=headers)


def unauthorized() -> Problem:
    """Return the 401 problem, which is the same for every failed authentication."""
    detail = "Expected a valid API key as a bearer token, or an admin session."
    headers = {"WWW-Authenticate": CHALLENGE}
    return Problem(401, "unauthorized", detail, headers=headers)


def to_response(problem: Problem) -> HttpResponse:
    """Return a problem as a response."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
    }
    if problem.errors is not None:
        content["errors"] = problem.errors
    response = JsonResponse(content, status=problem.status, content_type=MEDIA_TYPE)
    for name, value in problem.headers.items():
        response[name] = value
    return response


#: The package's errors with their status and code.
ERRORS: dict[type[DurableError], tuple[int, str]] = {
    CallbackClosed: (410, "callback-closed"),
    ConfigurationError: (422, "invalid"),
    DuplicateKeyError: (409, "duplicate-key"),
    DurableError: (422, "invalid"),
    ExpressionError: (422, "expression-failed"),
    FilterError: (422, "invalid-filter"),
    LimitExceeded: (413, "limit-exceeded"),
    PayloadError: (422, "invalid-payload"),
    ActionNotAllowed: (409, "refused"),
    UnknownFunction: (404, "unknown-function"),
}


def responses(
    good: dict[int, Any], *problems: int, open: bool = False
) -> dict[Any, Any]:
    """Return the response shapes of an endpoint by status, for the OpenAPI document.

    ``open`` endpoints need no authentication and never return 401 or 403.
    """
    common = [
        status for status in COMMON_STATUSES if not (open and status in (401, 403))
    ]
    return {**good, frozenset({*common, *problems}): ProblemOut}


def install(api: NinjaAPI) -> None:
    """Install handlers that turn errors into problems.

    Unexpected errors go to Django, which logs and reports them.
    """

    def handle(kind: type[Exception], make: Callable[[Any], Problem]) -> None:
        api.add_exception_handler(kind, lambda request, error: to_response(make(error)))

    for kind, (status, code) in ERRORS.items():
        handle(kind, _as_problem(status, code))
    handle(Problem, lambda problem: problem)
    handle(AuthenticationError, lambda error: unauthorized())
    handle(Http404, lambda error: Problem(404, "not-found", NOT_FOUND))
    handle(ObjectDoesNotExist, lambda error: Problem(404, "not-found", NOT_FOUND))
    handle(PermissionDenied, _forbidden)
    handle(RequestDataTooBig, _too_big)
    handle(TooManyFieldsSent, _too_big)
    handle(HttpError, lambda e: Problem(e.status_code, "http-error", e.message))
    handle(ValidationError, _invalid)
    api.add_exception_handler(Exception, _unexpected)


def _as_problem(status: int, code: str) -> Callable[[DurableError], Problem]:
    return lambda error: Problem(status, code, error.message)


def _forbidden(error: PermissionDenied) -> Problem:
    return Problem(403, "forbidden", str(error) or FORBIDDEN)


def _too_big(error: Exception) -> Problem:
    return Problem(413, "limit-exceeded", "The body is too large.")


def error_item(location: str, at: Iterable[object], detail: str) -> dict[str, Any]:
    """Return an item of a problem's ``errors``."""
    return {"in": location, "at": ".".join(map(str, at))[:LONGEST_AT], "detail": detail}


def _invalid(error: ValidationError) -> Problem:
    found = [
        error_item(str(one["loc"][0]), one["loc"][1:], one["msg"])
        for one in error.errors[:MOST_ERRORS]
    ]
    detail = "; ".join(f"{one['at']}: {one['detail']}" for one in found[:5])
    return Problem(422, "invalid", detail, errors=found)


def _unexpected(request: HttpRequest, error: Any) -> HttpResponse:
    raise error
