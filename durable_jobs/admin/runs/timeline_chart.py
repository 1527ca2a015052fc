"""The parts of a timeline that the template draws."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.utils.safestring import SafeString

from durable_jobs.admin.display import length
from durable_jobs.admin.runs.timeline_counts import StepCounts
from durable_jobs.admin.runs.timeline_view import StepChip, TimelineView
from durable_jobs.queries.timeline_choice import StepPage

_SECOND = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
_MORE = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
_DAYS = tuple(86_400 * days for days in (1, 2, 5, 10, 20, 50, 100, 200, 500))
_TICKS = (*_SECOND, *_MORE, *_DAYS)
_MAX_TICKS = 6
#: Where the last round mark may be, as a part of the axis.
_LAST_ROUND_MARK = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineBar:
    """One bar. ``style`` is its CSS class, ``title`` its tooltip.

    ``start`` and ``end`` are seconds from the start of the run. An open bar has no end.
    """

    x: str
    width: str
    style: str
    title: str
    start: str
    end: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineLine:
    """One line of the chart: a step, folded steps or the function itself.

    ``ref`` and ``version`` tell a live page whether it has the line. ``since`` is the
    start of an open step, from which the page counts the duration.
    """

    ref: str
    version: str
    name: str
    kind: str = ""
    status: str = ""
    label: str = ""
    depth: int
    url: str | None = None
    key: str = ""
    took: str | None = None
    since: str = ""
    retries: str = ""
    path: str = ""
    counts: StepCounts | None = None
    folded: bool = False
    bars: list[TimelineBar]
    notes: list[SafeString | str]


@dataclass(frozen=True, slots=True)
class AxisTick:
    """A mark of the axis: its place in percent, its time in seconds, its label."""

    x: str
    at: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The time that a chart covers, in seconds from the start, and its marks."""

    began: str
    until: str
    ticks: list[AxisTick]

    @classmethod
    def of(cls, began: float, until: float) -> Axis:
        """Return the axis from ``began``, which is at most 0, to ``until``.

        The last mark is the end. Round marks that its label would touch are left out.
        """
        step = next((t for t in _TICKS if until / t <= _MAX_TICKS), until)
        marks = [step * n for n in range(int(until / step) + 1)]
        whole = until - began
        ticks = [
            AxisTick(percent(100 * (at - began) / whole), _number(at), _mark(at))
            for at in marks
            if at < _LAST_ROUND_MARK * until
        ]
        end = length(timedelta(seconds=until)) or ""
        ticks.append(AxisTick(percent(100), _number(until), end))
        return cls(began=_number(began), until=_number(until), ticks=ticks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The lines, the axis, and the filters of a timeline."""

    lines: list[TimelineLine]
    axis: Axis
    view: TimelineView
    chips: list[StepChip]
    progress: str
    steps: StepPage
    is_partial: bool

    @property
    def previous(self) -> str:
        """Return the URL of the page before, if there is one."""
        return self.view.page_url(self.steps.page - 1) if self.steps.page > 1 else ""

    @property
    def next(self) -> str:
        """Return the URL of the page after, if there is one."""
        page, pages = self.steps.page, self.steps.pages
        return self.view.page_url(page + 1) if page < pages else ""


def percent(value: float) -> str:
    """Return a part of the width of a chart."""
    return f"{value:.3f}%"


def seconds(offset: timedelta) -> str:
    """Return seconds from the start of the run."""
    return _number(offset.total_seconds())


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _mark(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds * 1000:g} ms" if seconds else "0"
