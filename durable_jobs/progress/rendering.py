"""Render a run's progress as JSON and as template context."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from durable_jobs.progress.tokens import ProgressView
from durable_jobs.queries.progress import RunProgress


def as_dict(view: ProgressView, progress: RunProgress) -> dict[str, Any]:
    """Return a run's status, counts and names of running steps."""
    found: dict[str, Any] = {
        "status": progress.status.value,
        "label": progress.status.label,
        "ended": progress.ended,
        "done": progress.done,
        "failed": progress.failed,
        "total": view.total,
        "version": progress.version,
    }
    if view.names:
        found["current"] = progress.open_steps()
    return found


def template_context(view: ProgressView, progress: RunProgress) -> dict[str, Any]:
    """Return the context of the progress template."""
    shown = as_dict(view, progress)
    # A run may have more steps than ``total`` says.
    total = max(view.total or 0, progress.done) or None
    if view.total:
        counts = _("%(done)s of %(total)s steps done")
    else:
        counts = ngettext("%(done)s step done", "%(done)s steps done", progress.done)
    return shown | {
        "counts": counts % {"done": progress.done, "total": total},
        "value": total if progress.status == "completed" else progress.done,
        "total": total if view.total or progress.ended else None,
    }
