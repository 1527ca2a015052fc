"""Format statuses, times, durations and ids for the pages."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from durable_jobs import clock
from durable_jobs.statuses import RunStatus, StepStatus

_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s"))


def badge(row: Any) -> SafeString:
    """Return the coloured status of a run or step."""
    return format_html(
        '<span class="durable-status durable-is-{}">{}</span>',
        row.status,
        row.get_status_display(),
    )


def badge_of(status: str) -> SafeString:
    """Return the coloured status of a run, from the status alone."""
    return format_html(
        '<span class="durable-status durable-is-{}">{}</span>',
        status,
        RunStatus(status).label,
    )


def moment(value: datetime | None, since: datetime | None = None) -> SafeString | None:
    """Return a time to the second. Leave out the date if ``since`` has the same."""
    if value is None:
        return None
    local = timezone.localtime(value)
    beside = timezone.localtime(since) if since else None
    if beside and beside.date() == local.date():
        pattern = "H:i:s"
    elif local.year == timezone.localtime(clock.now()).year:
        pattern = "j M H:i:s"
    else:
        pattern = "j M Y H:i:s"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(),
        f"{local:%Y-%m-%d %H:%M:%S.%f %Z}",
        date_format(local, pattern),
    )


def relative_time(value: datetime | None) -> SafeString | None:
    """Return a time with its distance from now."""
    if value is None:
        return None
    left = value - clock.now()
    pattern = _("in %(length)s") if left >= timedelta() else _("%(length)s ago")
    text = pattern % {"length": length(abs(left))}
    quiet = format_html('<span class="durable-quiet">· {}</span>', text)
    return format_html("{} {}", moment(value), quiet)


def time_ago(value: datetime) -> SafeString:
    """Return how long ago a time was. The tooltip has the time."""
    local = timezone.localtime(value)
    ago = _("%(length)s ago") % {"length": length(clock.now() - value)}
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(),
        f"{local:%Y-%m-%d %H:%M:%S %Z}",
        ago,
    )


def length(value: timedelta | None) -> str | None:
    """Return a duration in at most two units."""
    if value is None:
        return None
    total = max(value.total_seconds(), 0)
    if total < 1:
        return f"{total * 1000:.3g} ms"
    if total < 59.95:
        return f"{total:.3g} s"
    whole = round(total)
    for size, unit, part, smaller in _UNITS:
        if whole >= size:
            count, rest = divmod(whole, size)
            return f"{count} {unit} {rest // part:02} {smaller}"
    return f"{whole} s"


def elapsed(row: Any) -> timedelta | None:
    """Return the duration of a run or step, until now if it has not ended.

    The time between the end of a run and its redrive does not count.
    """
    between = getattr(row, "status", None) == StepStatus.SCHEDULED
    if row.started_at is None or between:
        return None
    length: timedelta = (row.ended_at or clock.now()) - row.started_at
    stopped = getattr(row, "stopped_for", None) or timedelta()
    return max(length - stopped, timedelta())


def short(value: Any) -> SafeString:
    """Return the last characters of an id. Ids of one minute share the first ones."""
    return format_html(
        '<span class="durable-id" title="{}">{}</span>', value, tail(value)
    )


def tail(value: Any) -> str:
    return str(value)[-8:] if len(str(value)) > 12 else str(value)
