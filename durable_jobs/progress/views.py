"""``GET progress/<token>/`` returns JSON, and ``fragment/`` below it returns HTML.

The token identifies the run, so no login is needed. Invalid tokens, expired tokens and
tokens of deleted runs give the same 404.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from durable_jobs.conf import settings
from durable_jobs.control import request_throttle
from durable_jobs.progress.rendering import as_dict, template_context
from durable_jobs.progress.tokens import ProgressView, read
from durable_jobs.queries import progress
from durable_jobs.queries.progress import RunProgress
from durable_jobs.queries.visibility import PROGRESS, Viewer, seen_by

#: With this status htmx stops polling and swaps in the response.
STOP_POLLING = 286


@never_cache
@require_safe
def data(request: HttpRequest, token: str) -> HttpResponse:
    """Return JSON, or 204 while ``?seen=`` is the current version."""
    return _respond(request, token, lambda view, now: JsonResponse(as_dict(view, now)))


@never_cache
@require_safe
def fragment(request: HttpRequest, token: str) -> HttpResponse:
    """Return HTML for htmx: 204 if nothing changed, 286 if the run has ended."""

    def show(view: ProgressView, now: RunProgress) -> HttpResponse:
        status = STOP_POLLING if now.ended or view.last else 200
        context = template_context(view, now)
        return render(request, "durable_jobs/progress_now.html", context, status=status)

    return _respond(request, token, show)


def _respond(
    request: HttpRequest,
    token: str,
    show: Callable[[ProgressView, RunProgress], HttpResponse],
) -> HttpResponse:
    view = read(token)
    # Count valid tokens by run: visitors behind one proxy share an address.
    client = request_throttle.address(request) if view is None else str(view.run_id)
    wait = request_throttle.wait(f"progress:{client}", settings.PROGRESS_RATE)
    if wait is not None:
        message = "Too many requests. Try again later."
        headers = {"Retry-After": str(math.ceil(wait))}
        return JsonResponse({"error": message}, status=429, headers=headers)
    viewer = Viewer(getattr(request, "user", None), PROGRESS, request)
    with seen_by(viewer):
        now = progress.of_run(view.run_id) if view is not None else None
    if view is None or now is None:
        message = "The progress link is invalid or has expired."
        return JsonResponse({"error": message}, status=404)
    over = now.ended or view.last
    if request.GET.get("seen") == now.version and not over:
        return HttpResponse(status=204)
    return show(view, now)
