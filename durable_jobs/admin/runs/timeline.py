"""Draw a run's timeline: one line per step, with bars in percent of the whole time.

The rows come from ``queries.timeline``. Bars use SVG attributes instead of styles,
which a strict content security policy would block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models.fields.json import KT
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from durable_jobs import ids
from durable_jobs.admin.descriptions import describe_decision, describe_wait
from durable_jobs.admin.display import badge, length
from durable_jobs.admin.links import Links
from durable_jobs.engine.step_runner import GROUP
from durable_jobs.engine.steps.parallel import BRANCH
from durable_jobs.models import FailedAttempt, Run, Step, Wait
from durable_jobs.queries import timeline as model
from durable_jobs.queries.timeline import TimelineRow
from durable_jobs.queries.visibility import masked
from durable_jobs.statuses import RunStatus, StepStatus
from durable_jobs.store import db

#: Lines that a page draws. The list of steps has all steps.
MAX_LINES = 300
#: Failed attempts and waits that a timeline reads.
MAX_NOTES = 200
MAX_DEPTH = 8
MAX_MESSAGE_LENGTH = 240
#: The largest part of a chart for the time in the queue, relative to the rest,
#: and the smallest part that is drawn.
MAX_QUEUE_SHARE, MIN_QUEUE_SHARE = 0.5, 0.002
#: The last start of a bar in percent. Bars have a minimum width in pixels.
MAX_BAR_START = 99.4

WAITING_KINDS = frozenset(
    {
        "sleep",
        "sleep_until",
        "wait_for_any",
        "wait_for_callback",
        "wait_for_condition",
        "wait_for_event",
        "wait_for_model",
        "wait_for_signal",
        "approve",
    }
)
FAILED_STATUSES = frozenset({StepStatus.FAILED, StepStatus.TIMED_OUT})
CONTAINERS = frozenset({BRANCH, GROUP, "map", "parallel"})

#: Adds the viewer's actions on a wait to the wait's description.
WaitLinks = Callable[[Wait, SafeString], SafeString]

_SECOND = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
_MORE = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
_DAYS = tuple(86_400 * days for days in (1, 2, 5, 10, 20, 50, 100, 200, 500))
_TICKS = (*_SECOND, *_MORE, *_DAYS)
_MAX_TICKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineBar:
    """One bar. ``style`` is its CSS class, ``title`` its tooltip."""

    x: str
    width: str
    style: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineLine:
    """One line of the chart: a step or the function itself."""

    name: str
    kind: str
    status: str
    label: str
    depth: int
    url: str | None
    key: str
    took: str | None
    retries: str
    bars: list[TimelineBar]
    notes: list[SafeString | str]


@dataclass(frozen=True, slots=True)
class Chart:
    """The lines, the marks of the axis, and how many lines are left out."""

    lines: list[TimelineLine]
    ticks: list[tuple[str, str]]
    left_out: int


def chart(
    run: Run,
    links: Links,
    children: Iterable[Run],
    wait_links: WaitLinks | None = None,
    show_payloads: bool = True,
) -> Chart:
    """Return the timeline of a run, with the links that the viewer may open.

    ``wait_links`` adds the actions that the viewer may use on a wait.
    ``show_payloads`` says whether error messages are shown.
    """
    rows = model.timeline(run)
    return _Drawing(run, links, children, wait_links, show_payloads).chart(rows)


class _Drawing:
    """Draw one run from rows that are read once, however many lines there are."""

    def __init__(
        self,
        run: Run,
        links: Links,
        children: Iterable[Run],
        wait_links: WaitLinks | None,
        show_payloads: bool,
    ) -> None:
        self.run, self.links, self.wait_links = run, links, wait_links
        self.sees = show_payloads
        self.origin = model.origin(run)
        length = max(model.span(run), timedelta(milliseconds=1))
        self.until = self.origin + length
        # Without a maximum, a long time in the queue would hide the rest.
        queued = min(self.origin - run.queued_at, length * MAX_QUEUE_SHARE)
        self.began = self.origin - max(queued, timedelta())
        self.whole = self.until - self.began
        self.failures: dict[str, list[Any]] = {}
        self.waits: dict[str, list[Wait]] = {}
        self.children: dict[str, list[Run]] = {}
        for attempt in _attempts(run):
            self.failures.setdefault(attempt.step, []).append(attempt)
        for wait in _waits(run):
            self.waits.setdefault(wait.step, []).append(wait)
        for child in children:
            self.children.setdefault(child.parent_step, []).append(child)

    def chart(self, rows: list[TimelineRow]) -> Chart:
        drawn = [self.step(row) for row in _with_group_lengths(rows[:MAX_LINES])]
        return Chart([self.function(), *drawn], self.ticks(), len(rows) - len(drawn))

    def function(self) -> TimelineLine:
        run = self.run
        bars = [*self.queued()]
        whole = self.until - self.origin
        if run.started_at is not None:
            style = "around" if run.ended_at else "around open"
            style = "around bad" if run.status == "failed" else style
            title = f"{run.function} · {length(whole)}"
            bars.append(self.bar(self.origin, self.until, style, title))
        bars += self.failed("")
        return TimelineLine(
            name=run.function,
            kind="",
            status=run.status,
            label=run.get_status_display(),
            depth=0,
            url=None,
            key="",
            took=length(whole) if run.started_at else None,
            retries=_retries(len(self.failures.get("", ()))),
            bars=bars,
            notes=[*self.notes("")],
        )

    def queued(self) -> Iterator[TimelineBar]:
        """Yield the bar of the time in the queue."""
        run = self.run
        until = run.started_at or run.ended_at or self.until
        waited = until - run.queued_at
        blocked = run.started_at is None and run.backlog is not None
        if waited > self.whole * MIN_QUEUE_SHARE and run.status != RunStatus.SKIPPED:
            what = _("blocked for %(time)s") if blocked else _("queued for %(time)s")
            title = what % {"time": length(waited)}
            yield self.bar(self.began, until, "blocked" if blocked else "queued", title)

    def step(self, row: TimelineRow) -> TimelineLine:
        key = ids.step_pk(self.run.pk, row.key)
        notes = [*self.notes(row.key)]
        if (decision := describe_decision(row.kind, row.detail)) is not None:
            notes.append(decision)
        if row.error is not None and row.status in FAILED_STATUSES:
            error = masked(row.error, self.sees) or {}
            notes.append(_error_text(error.get("type"), error.get("message")))
        polls = row.kind == "wait_for_condition"
        return TimelineLine(
            name=row.name,
            kind=row.kind.replace("_", " "),
            status=row.status,
            label=StepStatus(row.status).label,
            depth=min(row.depth + 1, MAX_DEPTH),
            url=self.links.page(Step, key),
            key=row.key,
            took=None if row.status == StepStatus.SCHEDULED else length(row.length),
            retries="" if polls else _retries(row.attempt),
            bars=[*self.failed(row.key), *self.own(row)],
            notes=notes,
        )

    def own(self, row: TimelineRow) -> Iterator[TimelineBar]:
        """Yield the bar of a step's last attempt."""
        if row.offset is None or row.started_at is None or row.length is None:
            return
        if row.status == StepStatus.SCHEDULED and row.attempt:
            return  # the failed attempt has a bar already
        style = (
            "idle"
            if row.kind in WAITING_KINDS
            else "child"
            if row.kind == "invoke"
            else "work"
        )
        style = "around" if row.kind in CONTAINERS else style
        if row.status in FAILED_STATUSES:
            style += " bad"
        elif not row.ended:
            style += " open"
        title = f"{row.name} · {length(row.length)} · {row.status}"
        yield self.bar(row.started_at, row.started_at + row.length, style, title)

    def failed(self, key: str) -> Iterator[TimelineBar]:
        """Yield the bars of retried attempts."""
        for attempt in self.failures.get(key, ()):
            ended = attempt.ended_at
            title = _("attempt %(number)s") % {"number": attempt.number + 1}
            yield self.bar(attempt.started_at or ended, ended, "work bad", title)

    def notes(self, key: str) -> Iterator[SafeString | str]:
        """Yield a step's failures, waits and child runs."""
        for attempt in self.failures.get(key, ()):
            which = _("attempt %(number)s failed") % {"number": attempt.number + 1}
            message = attempt.error_message if self.sees else None
            what = _error_text(attempt.error_type, message)
            yield f"{which} · {what}"
        for wait in self.waits.get(key, ()):
            what = describe_wait(wait, self.links)
            yield self.wait_links(wait, what) if self.wait_links else what
        for child in self.children.get(key, ()) if key else ():
            link = self.links.anchor(self.links.page(Run, child.pk), child.function)
            yield format_html("{} {} {}", child.parent_relation, link, badge(child))

    def bar(
        self, start: datetime, end: datetime, style: str, title: str
    ) -> TimelineBar:
        first, last = self.place(start), self.place(end)
        return TimelineBar(
            x=_percent(min(first, MAX_BAR_START)),
            width=_percent(last - first),
            style=style,
            title=title,
        )

    def place(self, moment: datetime) -> float:
        return min(max(100 * ((moment - self.began) / self.whole), 0), 100)

    def ticks(self) -> list[tuple[str, str]]:
        whole = (self.until - self.origin).total_seconds()
        step = next((t for t in _TICKS if whole / t <= _MAX_TICKS), whole)
        marks = [step * n for n in range(int(whole / step) + 1)]
        return [
            (_percent(self.place(self.origin + timedelta(seconds=at))), _mark(at))
            for at in marks
            if at < 0.95 * whole
        ]


def _with_group_lengths(rows: list[TimelineRow]) -> Iterator[TimelineRow]:
    """Yield the rows. A group lasts until its last step ends, which is not recorded."""
    for index, row in enumerate(rows):
        if row.kind == GROUP and row.offset is not None:
            ends = list(_ends(rows[index + 1 :], row.depth))
            yield replace(row, length=max(ends) - row.offset) if ends else row
        else:
            yield row


def _ends(rows: list[TimelineRow], depth: int) -> Iterator[timedelta]:
    """Yield the ends of the leading rows that are deeper than ``depth``."""
    for row in rows:
        if row.depth <= depth:
            return
        if row.offset is not None and row.length is not None:
            yield row.offset + row.length


def _attempts(run: Run) -> Iterable[Any]:
    # Thousands of tracebacks would be many megabytes.
    rows = db.rows(FailedAttempt).filter(run_id=run.pk)
    rows = rows.defer("error", "logs")
    named = rows.annotate(
        error_type=KT("error__type"), error_message=KT("error__message")
    )
    return reversed(named.order_by("-pk")[:MAX_NOTES])


def _waits(run: Run) -> Iterable[Wait]:
    rows = db.rows(Wait).filter(run_id=run.pk).defer("condition")
    for wait in rows.order_by("pk")[:MAX_NOTES]:
        wait.run = run  # permissions are checked against the run
        yield wait


def _error_text(kind: Any, message: Any) -> str:
    whole = [str(kind or "Error"), *([] if message is None else [f"{message}"])]
    text = " ".join(": ".join(whole).split())
    return text if len(text) <= MAX_MESSAGE_LENGTH else f"{text[:MAX_MESSAGE_LENGTH]}…"


def _retries(failed: int) -> str:
    text = ngettext("%(count)s retry", "%(count)s retries", failed)
    return text % {"count": failed} if failed else ""


def _percent(value: float) -> str:
    return f"{value:.3f}%"


def _mark(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds * 1000:g} ms" if seconds else "0"
