"""The API with all its endpoints, and its URLs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import transaction
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    JsonResponse,
)
from django.urls import URLPattern, URLResolver, path, re_path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation

from durable_jobs.api import (
    approvals,
    callbacks,
    events,
    functions,
    health,
    problems,
    runs,
    runs_write,
    schedules,
)
from durable_jobs.api.auth import authenticate_for, authenticators
from durable_jobs.api.parsing import StrictParser
from durable_jobs.api.problems import NOT_FOUND, Problem, to_response
from durable_jobs.api.schemas import ProblemOut
from durable_jobs.conf import settings
from durable_jobs.queries.visibility import seen_by
from durable_jobs.store import db

DESCRIPTION = "openapi.json"

View = Callable[..., Any]


class Api(NinjaAPI):
    """A NinjaAPI that documents errors with their own media type."""

    def get_openapi_operation_id(self, operation: Operation) -> str:
        """Return the name of the view function."""
        return operation.view_func.__name__

    def get_openapi_schema(self, **kwargs: Any) -> OpenAPISchema:
        """Return the OpenAPI schema. Errors have the problem media type."""
        schema = super().get_openapi_schema(**kwargs)
        for operations in schema["paths"].values():
            for operation in operations.values():
                for status, response in operation["responses"].items():
                    _as_problem(status, response)
        return schema


def _as_problem(status: int, response: dict[str, Any]) -> None:
    content = response.get("content", {})
    shape = content.get("application/json", {}).get("schema", {})
    if status >= 400 and shape.get("$ref", "").endswith(f"/{ProblemOut.__name__}"):
        response["content"] = {problems.MEDIA_TYPE: content["application/json"]}


def build_api() -> Api:
    api = Api(
        title="Durable jobs",
        version="1",
        description="Events, runs, steps and schedules of durable functions.",
        urls_namespace="durable_jobs:api",
        openapi_url=None,
        docs_url=None,
        parser=StrictParser(),
        auth=authenticators(),
    )
    problems.install(api)
    modules = (
        events,
        functions,
        runs,
        runs_write,
        schedules,
        callbacks,
        approvals,
        health,
    )
    for module in modules:
        api.add_router("", module.router)
    return api


def patterns() -> tuple[list[URLPattern | URLResolver], str, str]:
    """Return the URLs of the API, for ``path()``."""
    api = build_api()
    found, app, namespace = api.urls
    for pattern in found:
        if isinstance(pattern, URLPattern):
            pattern.callback = _with_headers(pattern.callback)
    described = path(DESCRIPTION, _with_headers(_described(api)), name="openapi")
    # The first pattern hides ninja's own root URL.
    routes = [path("", _not_found), described, *found, re_path("", _not_found)]
    return routes, app, namespace


def _described(api: Api) -> View:
    @require_safe
    def described(request: HttpRequest) -> HttpResponse:
        try:
            authenticate_for(request, settings.API_DESCRIPTION)
        except Http404:
            return _not_found(request)
        except Problem as problem:
            return to_response(problem)
        # Use the requested path: projects include these URLs under any prefix.
        prefix = request.path.removesuffix(DESCRIPTION)
        return JsonResponse(api.get_openapi_schema(path_prefix=prefix))

    return described


def _with_headers(view: View) -> View:
    """Forbid caching of a view's response, and turn its errors into problems."""

    @wraps(view)
    def view_with_headers(
        request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        method = request.method
        if method == "HEAD":
            request.method = "GET"  # Django removes the body
        with seen_by(None):  # until the request is authenticated
            response: HttpResponse = view(request, *args, **kwargs)
        request.method = method
        if isinstance(response, HttpResponseNotAllowed):
            allowed = response["Allow"]
            detail = f"Expected {allowed}."
            headers = {"Allow": allowed}
            response = to_response(
                Problem(405, "method-not-allowed", detail, headers=headers)
            )
        response.setdefault("Cache-Control", "no-store")
        response.setdefault("X-Content-Type-Options", "nosniff")
        return response

    # Views manage their own transactions, even with ATOMIC_REQUESTS. Otherwise a
    # transaction would stay open while a request waits for a run.
    return transaction.non_atomic_requests(using=db.alias())(view_with_headers)


@csrf_exempt
def _not_found(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return to_response(Problem(404, "not-found", NOT_FOUND))
