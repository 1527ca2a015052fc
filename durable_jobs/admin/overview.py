"""The overview page: live runs, failures and what needs attention."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from durable_jobs import clock
from durable_jobs.admin.display import length, moment, short, time_ago
from durable_jobs.admin.filters import PERIODS
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import page
from durable_jobs.models import Run
from durable_jobs.queries import overview as model
from durable_jobs.queries.ended_runs import OverviewLine, Period
from durable_jobs.queries.error_groups import ErrorGroup
from durable_jobs.statuses import RunStatus

#: Seconds between two polls of an open page.
POLL_INTERVAL = 10
#: Functions in the table.
MAX_LINES = 30
#: The size of a sparkline and the gap between its bars.
WIDTH, HEIGHT, GAP = 120, 22, 1

ATTENTION_LABELS: dict[str, Any] = {
    "no-tick": gettext_lazy("No scheduler heartbeat for 30 s. Is Celery beat running?"),
    "stuck": gettext_lazy("Worker lost"),
    "paused": gettext_lazy("Paused"),
    "exhausted": gettext_lazy("Failed: worker died on every attempt"),
    "unknown": gettext_lazy("Runs of functions that are not deployed"),
    "newer-version": gettext_lazy("waiting for a newer version of durable_jobs"),
    "paused-function": gettext_lazy("Function paused"),
    "paused-key": gettext_lazy("Key paused"),
    "paused-queue": gettext_lazy("Queue paused"),
    "limit": gettext_lazy("Limit error"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewBar:
    """One hour of a sparkline, in SVG units."""

    x: str
    y: str
    height: str
    failed_y: str
    failed_height: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A figure with its label and the URL of the list that it counts."""

    label: Any
    value: str
    detail: str
    url: str | None
    style: str = ""
    note: SafeString | str = ""


def view(admin: Any, request: HttpRequest) -> HttpResponse:
    """Show the overview."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    links = Links(admin.admin_site, request)
    found, show_payloads = model.overview(), admin.may_view_payloads(request)
    return page(
        admin.admin_site,
        request,
        "overview.html",
        title=_("Overview"),
        current="overview",
        every=POLL_INTERVAL,
        states=[_state(one, links) for one in found.states],
        periods=[_period(one, links, found.capped) for one in found.periods],
        health=[*_health(found)],
        times=_times(found.times),
        lines=[_function_row(one, links) for one in found.lines[:MAX_LINES]],
        width=WIDTH,
        height=HEIGHT,
        errors=[_error(one, links, show_payloads) for one in found.errors],
        # Without the filter on the error, an action would include other errors.
        may_redrive=show_payloads and admin.has_redrive_permission(request),
        attention=[_attention(one, links, show_payloads) for one in found.attention],
    )


def _state(one: model.Counted, links: Links) -> Card:
    return Card(
        label=RunStatus(one.status).label,
        value=f"{one.count:,}" + ("+" if one.more else ""),
        detail="",
        url=links.rows(Run, status=one.status),
        style=one.status if one.count else "",
    )


def _period(one: Period, links: Links, capped: bool) -> Card:
    names = {"1h": "hour", "24h": "day", "7d": "week"}
    filters = {"time": "ended", "period": names[one.name]}
    # Ends are counted. A redriven run may have failed more than once.
    text = ngettext("%(count)s failure", "%(count)s failures", one.failed)
    failures = text % {"count": f"{one.failed:,}"}
    parts: list[Any] = [failures]
    if one.failed:
        url = links.rows(Run, status="failed", **filters)
        parts = [links.anchor(url, failures), f"{one.share:.1%}"]
    since = None if one.since is None else moment(one.since, clock.now())
    return Card(
        label=PERIODS[names[one.name]],
        value=f"{one.ended:,}" + ("+" if capped else ""),
        detail=format_html_join(" · ", "{}", ((part,) for part in parts)),
        url=links.rows(Run, **filters),
        style="failed" if one.failed else "",
        note="" if since is None else format_html(_("since {}, counting…"), since),
    )


def _health(found: model.Overview) -> Iterator[Card]:
    yield Card(
        label=_("Longest wait for a worker"),
        value=length(found.oldest) or _("none waiting"),
        detail="",
        url=None,
    )
    late = found.ticked is None or found.at - found.ticked > model.LATE
    ago = None if found.ticked is None else found.at - found.ticked
    yield Card(
        label=_("Scheduler heartbeat"),
        # The tick records a heartbeat every ten seconds, so newer is no more precise.
        value=_("never") if ago is None else _ago(ago),
        detail="",
        url=None,
        style="failed" if late else "",
    )
    yield Card(
        label=_("Workers online"),
        value=str(found.workers),
        detail=_("past minute"),
        url=None,
    )


def _ago(ago: timedelta) -> str:
    if ago < timedelta(seconds=15):
        return _("just now")
    return _("%(length)s ago") % {"length": length(ago)}


def _times(times: model.Times) -> list[tuple[str, str, str]]:
    """Return each duration's label, median and 95th percentile."""
    if not times.runs:
        return []
    rows = (
        (_("Time in queue"), times.wait_50, times.wait_95),
        (_("Duration"), times.took_50, times.took_95),
    )
    return [(name, length(low) or "", length(high) or "") for name, low, high in rows]


def _function_row(one: OverviewLine, links: Links) -> dict[str, Any]:
    ended, failed = sum(one.ended), sum(one.failed)
    return {
        "function": links.anchor(links.rows(Run, function=one.function), one.function),
        "ended": f"{ended:,}",
        "failed": f"{failed:,}" if failed else "",
        "share": f"{failed / ended:.1%}" if failed else "",
        "bars": [*_bars(one.ended, one.failed)],
        "summary": _(
            "%(ended)s ended, %(failed)s failed, %(most)s in the busiest of 24 hours"
        )
        % {
            "ended": f"{ended:,}",
            "failed": f"{failed:,}",
            "most": f"{max(one.ended):,}",
        },
    }


def _bars(ended: Sequence[int], failed: Sequence[int]) -> Iterator[OverviewBar]:
    most, step = max(ended) or 1, WIDTH / len(ended)
    for hour, (count, bad) in enumerate(zip(ended, failed, strict=True)):
        high, low = HEIGHT * count / most, HEIGHT * bad / most
        high = max(high, 1.0) if count else 0.0
        low = max(low, 1.5) if bad else 0.0
        yield OverviewBar(
            x=f"{hour * step:.1f}",
            y=f"{HEIGHT - high:.1f}",
            height=f"{high:.1f}",
            failed_y=f"{HEIGHT - low:.1f}",
            failed_height=f"{low:.1f}",
        )


def _error(one: ErrorGroup, links: Links, show_payloads: bool) -> dict[str, Any]:
    filters: dict[str, Any] = {"status": "failed", "function": one.function}
    if show_payloads:  # a filter on payloads needs the permission to view them
        filters["where"] = [f"error.type={_value(one.type)}"]
        if one.step:
            filters["where"].append(f"error.step_name={_value(one.step)}")
    return {
        "count": one.count,
        "new": one.new,
        "function": one.function,
        "type": one.type or "Error",
        "step": one.step,
        "message": one.message if show_payloads else "",
        "key": one.run,
        "last": time_ago(one.last),
        "run": links.anchor(links.page(Run, one.run), short(one.run)),
        "all": links.rows(Run, **filters),
    }


def _value(text: str) -> str:
    """Return a string for a filter on payloads, quoted if it would be other JSON."""
    try:
        json.loads(text)
    except ValueError:
        return text
    return json.dumps(text)


def _attention(
    one: model.Attention, links: Links, show_payloads: bool
) -> dict[str, Any]:
    what: Any = ATTENTION_LABELS[one.what]
    runs: SafeString | str = ""
    if one.filters:
        text = ngettext("%(count)s run", "%(count)s runs", one.count)
        label = text % {"count": f"{one.count:,}"}
        runs = links.anchor(links.rows(Run, **one.filters), label)
    name = f"{one.name} {one.key}".rstrip() if show_payloads else one.name
    reason = one.reason or (one.problem if show_payloads else "")
    return {"what": what, "runs": runs, "name": name, "reason": reason}
