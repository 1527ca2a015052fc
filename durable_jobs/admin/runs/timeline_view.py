"""Which part of a timeline a page shows. The address holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _lazy

from durable_jobs.queries import timeline_choice
from durable_jobs.queries.step_outline import Phase, StepOutline
from durable_jobs.queries.timeline_choice import StepPage

SLOWEST = "slowest"
#: The value of ``inside`` for the run's own steps.
ALL = "all"
FILTERS: dict[str, Any] = {
    "": _lazy("All"),
    Phase.FAILED: _lazy("Failed"),
    Phase.RUNNING: _lazy("Running"),
    Phase.WAITING: _lazy("Waiting"),
    SLOWEST: _lazy("Slowest"),
}
MAX_NAME, MAX_DIGITS = 200, 6
#: The heading to which links within the timeline lead.
ANCHOR = "#durable-timeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepChip:
    """A filter of the timeline as a link."""

    id: str
    label: str | Promise
    count: int | None
    url: str
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineView:
    """The steps that a page shows.

    ``steps`` is a key of ``FILTERS``, ``name`` a part of names. ``inside`` is the key
    of a step whose children are listed, or ``ALL``. ``step`` is the key of a step to
    draw in any case.
    """

    steps: str = ""
    name: str = ""
    inside: str = ""
    step: str = ""
    page: int = 1

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> TimelineView:
        """Return the view of an address. Unknown values count as missing."""
        steps, page = query.get("steps", ""), query.get("page", "")
        return cls(
            steps=steps if steps in FILTERS else "",
            name=query.get("name", "").strip()[:MAX_NAME],
            inside=query.get("inside", ""),
            step=query.get("step", ""),
            page=int(page) if page.isdecimal() and len(page) <= MAX_DIGITS else 1,
        )

    def choose(self, outline: StepOutline) -> StepPage:
        """Return the steps to draw."""
        parent = outline.find(self.inside) if self.inside else None
        if parent is not None or self.inside == ALL:
            return timeline_choice.children(outline, parent, self.page)
        if self.steps == SLOWEST:
            return timeline_choice.slowest(outline, self.name)
        if self.steps or self.name:
            phase = Phase(self.steps) if self.steps else None
            return timeline_choice.matching(outline, phase, self.name, self.page)
        pinned = outline.find(self.step) if self.step else None
        return timeline_choice.overview(outline, pinned)

    def query(self, **more: Any) -> str:
        """Return the query string of this view."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        if self.page == 1:
            del fields["page"]
        fields |= more
        return "?" + urlencode({name: value for name, value in fields.items() if value})

    def page_url(self, page: int) -> str:
        """Return the URL of another page of the same steps."""
        return self.query(page=page) + ANCHOR

    def chips(self, outline: StepOutline) -> list[StepChip]:
        """Return the filters as links, with the number of steps of each."""
        return [
            StepChip(
                id=f"durable-steps-{value or ALL}",
                label=label,
                count=_count(outline, value),
                url=TimelineView(steps=value, name=self.name).query() + ANCHOR,
                current=value == self.steps and not self.inside,
            )
            for value, label in FILTERS.items()
        ]


def inside_url(key: str, index: int = 0) -> str:
    """Return the URL that lists the children of a step, from the page of one."""
    page = timeline_choice.page_of(index)
    return TimelineView(inside=key, page=page).query() + ANCHOR


def _count(outline: StepOutline, value: str) -> int | None:
    if value == SLOWEST:
        return None
    return len(outline.innermost(Phase(value)) if value else outline.steps)
