"""Describe steps that are not drawn: their number by phase, and a stacked bar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy
from django.utils.translation import ngettext

from durable_jobs.admin.display import length
from durable_jobs.queries.step_outline import (
    PARALLEL_KINDS,
    OutlineStep,
    Phase,
    StepOutline,
    StepSummary,
)
from durable_jobs.queries.timeline import TimelineRow

_WORDS: dict[Phase, Any] = {
    Phase.DONE: _lazy("%(count)s done"),
    Phase.RUNNING: _lazy("%(count)s running"),
    Phase.WAITING: _lazy("%(count)s waiting"),
    Phase.FAILED: _lazy("%(count)s failed"),
    Phase.CANCELLED: _lazy("%(count)s cancelled"),
}
_ENDED = (Phase.DONE, Phase.FAILED, Phase.CANCELLED)


@dataclass(frozen=True, slots=True)
class StackPart:
    """A part of a stacked bar, in percent."""

    phase: str
    x: str
    width: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCounts:
    """Steps in numbers, and the URL that lists them."""

    text: str
    parts: list[StackPart]
    url: str


def counts(
    summary: StepSummary, url: str, kind: str = "", size: int | None = None
) -> StepCounts:
    """Describe a summary. ``size`` is the number of branches that a step has."""
    total = max(size or 0, summary.total)
    return StepCounts(
        text=_text(summary, total, kind in PARALLEL_KINDS),
        parts=[*_parts(summary, total)],
        url=url,
    )


def _text(summary: StepSummary, total: int, are_branches: bool) -> str:
    text = (
        ngettext("%(count)s branch", "%(count)s branches", total)
        if are_branches
        else ngettext("%(count)s step", "%(count)s steps", total)
    ) % {"count": total}
    parts = [
        str(words) % {"count": summary.counts[phase]}
        for phase, words in _WORDS.items()
        if summary.counts.get(phase)
    ]
    if are_branches or summary.counts.get(Phase.DONE) != total:
        text = f"{text}: {', '.join(parts)}"
    if summary.median is not None:
        text += ", " + _("median %(length)s") % {"length": length(summary.median)}
    return text


def _parts(summary: StepSummary, total: int) -> Iterator[StackPart]:
    start = 0.0
    for phase in _WORDS:
        share = 100 * summary.counts.get(phase, 0) / max(total, 1)
        if share:
            yield StackPart(phase.value, f"{start:.2f}%", f"{share:.2f}%")
        start += share


def size_of(row: TimelineRow | None) -> int | None:
    """Return the number of branches that a step recorded."""
    detail = row.detail if row is not None else None
    if row is None or row.kind not in PARALLEL_KINDS or not isinstance(detail, dict):
        return None
    names, size = detail.get("branches"), detail.get("size")
    found = len(names) if isinstance(names, list) else size
    return found if isinstance(found, int) else None


def progress(outline: StepOutline, rows: dict[Any, TimelineRow]) -> str:
    """Return a line for screen readers: how much of the run is done."""
    crowds = [step for step in outline.walk() if _is_open_parallel(step)]
    if not crowds:
        done = sum(step.phase in _ENDED for step in outline.steps.values())
        text = ngettext("%(count)s step done", "%(count)s steps done", done)
        return text % {"count": done}
    step = max(crowds, key=lambda one: len(one.children))
    done = sum(child.phase in _ENDED for child in step.children)
    total = max(size_of(rows.get(step.pk)) or 0, len(step.children))
    text = _("%(done)s of %(total)s branches done")
    return text % {"done": done, "total": total}


def _is_open_parallel(step: OutlineStep) -> bool:
    return step.kind in PARALLEL_KINDS and step.phase not in _ENDED
