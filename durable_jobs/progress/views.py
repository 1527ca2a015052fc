"""``GET progress/<token>/``: JSON; ``fragment/`` below it: a piece of a page.

No login is needed: the token says which run. Tokens that are wrong, too old, or of a
run that is gone are answered alike.
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
from durable_jobs.queries.progress import Progress
from durable_jobs.queries.visibility import PROGRESS, Viewer, seen_by

#: With this status htmx stops to poll, and shows what came.
STOP_POLLING = 286


@never_cache
@require_safe
def data(request: HttpRequest, token: str) -> HttpResponse:
    """Answer with JSON; with 204 while the progress is that of ``?seen=``."""
    return _respond(request, token, lambda view, now: JsonResponse(as_dict(view, now)))


@never_cache
@require_safe
def fragment(request: HttpRequest, token: str) -> HttpResponse:
    """Answer with HTML for htmx: 204 for nothing new, 286 when it is over."""

    def show(view: ProgressView, now: Progress) -> HttpResponse:
        status = STOP_POLLING if now.ended or view.last else 200
        context = template_context(view, now)
        return render(request, "durable_jobs/progress_now.html", context, status=status)

    return _respond(request, token, show)


def _respond(
    request: HttpRequest,
    token: str,
    show: Callable[[ProgressView, Progress], HttpResponse],
) -> HttpResponse:
    view = read(token)
    # Of a valid token by its run: visitors behind one proxy share an address.
    client = request_throttle.address(request) if view is None else str(view.run_id)
    wait = request_throttle.wait(f"progress:{client}", settings.PROGRESS_RATE)
    if wait is not None:
        message = "Too many requests: ask again later."
        headers = {"Retry-After": str(math.ceil(wait))}
        return JsonResponse({"error": message}, status=429, headers=headers)
    who = Viewer(getattr(request, "user", None), PROGRESS, request)
    with seen_by(who):
        now = progress.of_run(view.run_id) if view is not None else None
    if view is None or now is None:
        message = "There is no such progress, or its time is over."
        return JsonResponse({"error": message}, status=404)
    over = now.ended or view.last
    if request.GET.get("seen") == now.version and not over:
        return HttpResponse(status=204)
    return show(view, now)
