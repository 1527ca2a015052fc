"""``{% load durable_jobs %}``: runs and progress in your project's templates."""

from __future__ import annotations

import uuid
from typing import Any

from django import template
from django.urls import NoReverseMatch, reverse

from durable_jobs.models import Run
from durable_jobs.progress.rendering import template_context
from durable_jobs.progress.tokens import ProgressView
from durable_jobs.queries import progress

register = template.Library()


@register.inclusion_tag("admin/durable_jobs/object_runs.html", takes_context=True)
def durable_runs(context: template.Context, instance: Any) -> dict[str, Any]:
    """Show the newest runs of an object, to users who may view runs.

    For pages of an admin site. The context must contain the request.
    """
    from django.contrib.admin import site
    from django.contrib.admin.sites import all_sites

    from durable_jobs.admin.project.panel import panel

    request = context["request"]
    name = getattr(request, "current_app", None)
    here = next((one for one in all_sites if one.name == name), site)
    return {"runs": panel(here, request, instance)}


@register.inclusion_tag("durable_jobs/progress.html")
def durable_progress(
    run: Run | uuid.UUID | str | None,
    names: bool = True,
    total: int | None = None,
    every: int = 3,
) -> dict[str, Any]:
    """Show the progress of a run. htmx polls it ``every`` seconds.

    Everyone who sees the page can follow this run without a login, for the time in the
    setting ``PROGRESS_TOKEN_MAX_AGE``. ``names`` shows the names of running steps.
    ``total`` is the expected number of steps.
    """
    if run is None:
        return {}
    key = run.pk if isinstance(run, Run) else uuid.UUID(str(run))
    now = progress.of_run(key)
    if now is None:
        return {}
    view = ProgressView(key, names=bool(names), total=total)
    found = template_context(view, now)
    if now.ended:
        return found
    token = view.token()
    try:
        url = reverse("durable_jobs:progress_fragment", args=[token])
        json_url = reverse("durable_jobs:progress", args=[token])
    except NoReverseMatch:
        return found  # the project does not include the package's URLs
    return found | {"url": url, "json_url": json_url, "every": max(int(every), 1)}
