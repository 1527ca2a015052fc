"""``{% load durable_jobs %}``: runs in the host's own pages."""

from __future__ import annotations

from typing import Any

from django import template

register = template.Library()


@register.inclusion_tag("admin/durable_jobs/host_runs.html", takes_context=True)
def durable_runs(context: template.Context, instance: Any) -> dict[str, Any]:
    """Show the newest runs of an object, to those who may view runs.

    For pages of an admin site: the request has to be in the context.
    """
    from django.contrib.admin import site
    from django.contrib.admin.sites import all_sites

    from durable_jobs.admin.panels import panel

    request = context["request"]
    name = getattr(request, "current_app", None)
    here = next((one for one in all_sites if one.name == name), site)
    return {"runs": panel(here, request, instance)}
