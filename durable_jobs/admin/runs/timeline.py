"""Draw a run's timeline: one line per step, with bars in percent of the whole time.

``queries.timeline_choice`` chooses the steps, ``queries.timeline`` reads them. Bars use
SVG attributes instead of styles, which a strict content security policy would block.
Each bar also holds its times, so that a live page moves it when the axis grows.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models.fields.json import KT
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from durable_jobs.admin.descriptions import describe_decision, describe_wait
from durable_jobs.admin.display import badge, length
from durable_jobs.admin.links import Links
from durable_jobs.admin.runs.timeline_chart import (
    Axis,
    Chart,
    TimelineBar,
    TimelineLine,
    percent,
    seconds,
)
from durable_jobs.admin.runs.timeline_counts import (
    StepCounts,
    counts,
    progress,
    size_of,
)
from durable_jobs.admin.runs.timeline_update import FUNCTION, version_of
from durable_jobs.admin.runs.timeline_view import ALL, TimelineView, inside_url
from durable_jobs.engine.step_runner import GROUP
from durable_jobs.models import FailedAttempt, Run, Step, Wait
from durable_jobs.queries import timeline as model
from durable_jobs.queries.step_outline import CONTAINERS, StepOutline
from durable_jobs.queries.timeline import TimelineRow
from durable_jobs.queries.timeline_choice import ChosenStep, FoldedSteps, StepPage
from durable_jobs.queries.visibility import masked
from durable_jobs.statuses import RunStatus, StepStatus
from durable_jobs.store import db

#: Failed attempts and waits that a timeline reads.
MAX_NOTES = 200
MAX_DEPTH = 8
#: Characters of a step's key that identify its line on a page.
REF = 12
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

#: Adds the viewer's actions on a wait to the wait's description.
WaitLinks = Callable[[Wait, SafeString], SafeString]


def chart(
    run: Run,
    links: Links,
    children: Iterable[Run],
    view: TimelineView,
    wait_links: WaitLinks | None = None,
    show_payloads: bool = True,
) -> Chart:
    """Return the timeline of a run, with the links that the viewer may open.

    ``wait_links`` adds the actions that the viewer may use on a wait.
    ``show_payloads`` says whether error messages are shown.
    """
    outline = StepOutline(run)
    steps = view.choose(outline)
    rows = model.rows_of(run, _keys(steps))
    drawing = _Drawing(run, links, children, wait_links, show_payloads, rows)
    return Chart(
        lines=[drawing.function(), *drawing.lines(steps)],
        axis=drawing.axis(),
        view=view,
        chips=view.chips(outline),
        progress=progress(outline, rows),
        steps=steps,
        is_partial=outline.is_partial,
    )


def _keys(steps: StepPage) -> list[uuid.UUID]:
    return [item.step.pk for item in steps.items if isinstance(item, ChosenStep)]


class _Drawing:
    """Draw one run from rows that are read once, however many lines there are."""

    def __init__(
        self,
        run: Run,
        links: Links,
        children: Iterable[Run],
        wait_links: WaitLinks | None,
        show_payloads: bool,
        rows: dict[uuid.UUID, TimelineRow],
    ) -> None:
        self.run, self.links, self.wait_links = run, links, wait_links
        self.sees, self.rows = show_payloads, rows
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
        keys = ["", *(row.key for row in rows.values())]
        for attempt in _attempts(run, keys):
            self.failures.setdefault(attempt.step, []).append(attempt)
        for wait in _waits(run, keys):
            self.waits.setdefault(wait.step, []).append(wait)
        for child in children:
            self.children.setdefault(child.parent_step, []).append(child)

    def lines(self, steps: StepPage) -> Iterator[TimelineLine]:
        for item in steps.items:
            if isinstance(item, FoldedSteps):
                yield self.folded(item)
            elif item.step.pk in self.rows:  # else it was deleted just now
                yield self.step(item, self.rows[item.step.pk])

    def function(self) -> TimelineLine:
        run = self.run
        bars = [*self.queued()]
        whole = self.until - self.origin
        if run.started_at is not None:
            style = "around" if run.ended_at else "around open"
            style = "around bad" if run.status == "failed" else style
            title = f"{run.function} · {length(whole)}"
            bars.append(self.bar(self.origin, run.ended_at, style, title))
        bars += self.failed("")
        is_open = run.started_at is not None and run.ended_at is None
        return TimelineLine(
            ref=FUNCTION,
            version=version_of(run.status, run.started_at, *self.facts("")),
            name=run.function,
            status=run.status,
            label=run.get_status_display(),
            depth=0,
            took=length(whole) if run.started_at else None,
            since="0" if is_open else "",
            retries=_retries(len(self.failures.get("", ()))),
            bars=bars,
            notes=[*self.notes("")],
        )

    def queued(self) -> Iterator[TimelineBar]:
        """Yield the bar of the time in the queue."""
        run = self.run
        end = run.started_at or run.ended_at
        waited = (end or self.until) - run.queued_at
        blocked = run.started_at is None and run.backlog is not None
        if waited > self.whole * MIN_QUEUE_SHARE and run.status != RunStatus.SKIPPED:
            what = _("blocked for %(time)s") if blocked else _("queued for %(time)s")
            title = what % {"time": length(waited)}
            style = "blocked" if blocked else "queued"
            yield self.bar(run.queued_at, end, style, title)

    def step(self, item: ChosenStep, row: TimelineRow) -> TimelineLine:
        if row.kind == GROUP and row.offset is not None:
            # The end of a group is not recorded: it is that of its last step.
            row = replace(row, length=item.step.length(self.until))
        notes = [*self.notes(row.key)]
        if (decision := describe_decision(row.kind, row.detail)) is not None:
            notes.append(decision)
        if row.error is not None and row.status in FAILED_STATUSES:
            error = masked(row.error, self.sees) or {}
            notes.append(_error_text(error.get("type"), error.get("message")))
        polls = row.kind == "wait_for_condition"
        is_open = not row.ended and row.status != StepStatus.SCHEDULED
        return TimelineLine(
            ref=row.key[:REF],
            version=self.version(item, row),
            name=row.name,
            kind=row.kind.replace("_", " "),
            status=row.status,
            label=StepStatus(row.status).label,
            depth=min(item.depth + 1, MAX_DEPTH),
            url=self.links.page(Step, item.step.pk),
            key=row.key,
            took=None if row.status == StepStatus.SCHEDULED else length(row.length),
            since=seconds(row.offset) if is_open and row.offset is not None else "",
            retries="" if polls else _retries(row.attempt),
            path="".join(f"{name} / " for name in item.path),
            counts=self.counts(item, row),
            bars=[*self.failed(row.key), *self.own(row, item.step.until)],
            notes=notes,
        )

    def counts(self, item: ChosenStep, row: TimelineRow) -> StepCounts | None:
        """Return a step's children in numbers, if they are not all drawn."""
        if item.hidden is None:
            return None
        return counts(item.hidden, inside_url(row.key), row.kind, size_of(row))

    def folded(self, item: FoldedSteps) -> TimelineLine:
        first, last = item.first, item.last
        where = first.parent.key if first.parent else ALL
        known = counts(item.summary, inside_url(where, item.index))
        return TimelineLine(
            ref=f"fold{first.key[:REF]}",
            version=version_of(item.depth, last.pk, last.until, known.text),
            name=first.name if first is last else f"{first.name} … {last.name}",
            depth=min(item.depth + 1, MAX_DEPTH),
            counts=known,
            folded=True,
            bars=[*self.span(item)],
            notes=[],
        )

    def span(self, item: FoldedSteps) -> Iterator[TimelineBar]:
        """Yield the bar from the first to the last of folded steps."""
        start, end = item.first.started_at, item.last.until
        if start is not None and (end is None or end >= self.run.queued_at):
            yield self.bar(start, end, "around", f"{item.summary.total}")

    def version(self, item: ChosenStep, row: TimelineRow) -> str:
        """Return a hash of what a line shows, apart from the time until now."""
        times = (row.started_at, row.ended_at, row.due_at, item.step.until)
        return version_of(
            row.status, row.attempt, times, item.depth, item.path, item.hidden,
            *self.facts(row.key),
        )  # fmt: skip

    def facts(self, key: str) -> Iterator[Any]:
        """Yield what the notes of a line say."""
        yield len(self.failures.get(key, ()))
        yield [(wait.pk, wait.due_at) for wait in self.waits.get(key, ())]
        yield [(child.pk, child.status) for child in self.children.get(key, ())]

    def own(self, row: TimelineRow, end: datetime | None) -> Iterator[TimelineBar]:
        """Yield the bar of a step's last attempt, until its end or until now."""
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
        yield self.bar(row.started_at, end, style, title)

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
        self, start: datetime, end: datetime | None, style: str, title: str
    ) -> TimelineBar:
        """Return a bar. Without an end it reaches to now."""
        first, last = self.place(start), self.place(end or self.until)
        return TimelineBar(
            x=percent(min(first, MAX_BAR_START)),
            width=percent(last - first),
            style=style,
            title=title,
            start=seconds(start - self.origin),
            end=seconds(end - self.origin) if end else "",
        )

    def place(self, moment: datetime) -> float:
        return min(max(100 * ((moment - self.began) / self.whole), 0), 100)

    def axis(self) -> Axis:
        began, until = self.began - self.origin, self.until - self.origin
        return Axis.of(began.total_seconds(), until.total_seconds())


def _attempts(run: Run, keys: list[str]) -> Iterable[Any]:
    # Thousands of tracebacks would be many megabytes.
    rows = db.rows(FailedAttempt).filter(run_id=run.pk, step__in=keys)
    rows = rows.defer("error", "logs")
    named = rows.annotate(
        error_type=KT("error__type"), error_message=KT("error__message")
    )
    return reversed(named.order_by("-pk")[:MAX_NOTES])


def _waits(run: Run, keys: list[str]) -> Iterable[Wait]:
    rows = db.rows(Wait).filter(run_id=run.pk, step__in=keys).defer("condition")
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
