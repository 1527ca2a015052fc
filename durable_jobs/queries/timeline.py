"""A run as a timeline: one row a step, parents before what happened inside them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from durable_jobs import clock
from durable_jobs.models import FailedAttempt, Run, Step
from durable_jobs.statuses import STEP_ENDED
from durable_jobs.store import db

#: Characters of the bar that shows when a step happened.
BAR = 18
_NAME = 28
_ERROR = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRow:
    """One step of a run, as a screen shows it.

    ``depth`` is 0 for the function's own steps. ``attempt`` counts the attempts that
    failed. ``offset`` is the time from the run's start to the step's, None for a step
    that has not begun, or that was copied from another run. ``length`` is how long it
    took, or has taken until now.
    """

    key: str
    name: str
    kind: str
    status: str
    depth: int
    started_at: datetime | None
    ended_at: datetime | None
    due_at: datetime | None
    attempt: int
    offset: timedelta | None
    length: timedelta | None
    error: dict[str, Any] | None
    detail: dict[str, Any] | None

    @property
    def ended(self) -> bool:
        """Tell whether the step has its result, or its failure."""
        return self.status in STEP_ENDED


def timeline(run: Run) -> list[TimelineRow]:
    """Return a run's steps in the order of recording, each below its parent."""
    steps = (
        db.rows(Step)
        .filter(run_id=run.pk)
        .order_by("position", "pk")
        .defer("input", "output", "logs")  # which may be large, and are not shown
    )
    now = clock.now()
    return [_row(step, depth, run, now) for step, depth in _in_tree_order(steps)]


def _in_tree_order(steps: Iterable[Step]) -> Iterator[tuple[Step, int]]:
    every = list(steps)
    known = {step.pk for step in every}
    below: dict[uuid.UUID | None, list[Step]] = {}
    for step in every:
        parent = step.parent_id if step.parent_id in known else None
        below.setdefault(parent, []).append(step)
    # A stack, not recursion: groups and branches may be nested deeper than Python's.
    stack = [(step, 0) for step in reversed(below.get(None, []))]
    while stack:
        step, depth = stack.pop()
        yield step, depth
        stack += [(child, depth + 1) for child in reversed(below.get(step.pk, []))]


def _row(step: Step, depth: int, run: Run, now: datetime) -> TimelineRow:
    began = step.started_at
    copied = step.ended_at is not None and step.ended_at < run.queued_at
    until = step.ended_at or (None if step.status in STEP_ENDED else now)
    return TimelineRow(
        key=step.key,
        name=step.name,
        kind=step.kind,
        status=step.status,
        depth=depth,
        started_at=began,
        ended_at=step.ended_at,
        due_at=step.due_at,
        attempt=step.attempt,
        offset=None if began is None or copied else began - origin(run),
        length=None if began is None or until is None else until - began,
        error=step.error,
        detail=step.detail,
    )


def origin(run: Run) -> datetime:
    """Return the moment from which a run's offsets count."""
    return run.started_at or run.queued_at


def span(run: Run) -> timedelta:
    """Return how long a run has been going, or went."""
    return max((run.ended_at or clock.now()) - origin(run), timedelta())


# As text


def render_text(run: Run) -> str:
    """Return a run's timeline as lines for a terminal, in plain ASCII."""
    rows = timeline(run)
    whole = span(run)
    failures = _failures(run)
    lines = [*_head(run, whole), ""]
    if rows:
        lines.append(f"{'start':>8} {'took':>8}  {'step':<{_NAME}} status")
    for row in rows:
        lines += _lines(row, whole, failures.get(row.key, ()))
    lines += [f"  ! {text}" for text in failures.get("", ())]
    if not rows:
        lines.append("  no step recorded")
    return "\n".join(line.rstrip() for line in lines)


def _head(run: Run, whole: timedelta) -> list[str]:
    state = run.status + (f" ({run.reason})" if run.reason else "")
    lines = [
        f"Run {run.pk} of {run.function}: {state}",
        f"  queued {_moment(run.queued_at)}, {_course(run, whole)}",
    ]
    if run.trigger:
        lines.append(f"  started by {run.trigger}")
    if run.error:
        lines.append(f"  error: {_error(run.error)}")
    return lines


def _course(run: Run, whole: timedelta) -> str:
    if run.started_at is None:
        return "never started" if run.ended_at else "not started yet"
    took = f"took {_seconds(whole)}" if run.ended_at else f"for {_seconds(whole)} now"
    claim_count = "once" if run.claim_count == 1 else f"{run.claim_count} times"
    return f"{took}, claimed {claim_count}"


def _lines(row: TimelineRow, whole: timedelta, failures: Iterable[str]) -> list[str]:
    start = "" if row.offset is None else f"+{_seconds(row.offset)}"
    if row.offset is None and row.ended:
        start = "copied" if row.started_at else ""
    took = "" if row.length is None else _seconds(row.length)
    name = f"{'  ' * row.depth}{row.name} ({row.kind})"
    if len(name) > _NAME:
        name = name[: _NAME - 3] + "..."
    status = row.status
    if row.due_at is not None and not row.ended:
        status += f" until {_moment(row.due_at)}"
    line = f"{start:>8} {took:>8}  {name:<{_NAME}} {status:<9} {_bar(row, whole)}"
    margin = f"{'':>18}{'  ' * row.depth}  ! "
    notes = [*failures]
    if row.error is not None:
        notes.append(_error(row.error))
    return [line, *(margin + note for note in notes)]


def _bar(row: TimelineRow, whole: timedelta) -> str:
    if row.offset is None or row.length is None or not whole:
        return ""
    first = min(int(BAR * (row.offset / whole)), BAR - 1)
    count = max(1, round(BAR * (row.length / whole)))
    return "|" + (" " * first + "=" * count)[:BAR].ljust(BAR) + "|"


def _failures(run: Run) -> dict[str, list[str]]:
    """Return what went wrong in the attempts that others followed, by step."""
    found: dict[str, list[str]] = {}
    rows = db.rows(FailedAttempt).filter(run_id=run.pk).order_by("pk")
    for row in rows.defer("logs"):
        text = f"attempt {row.number + 1} failed: {_error(row.error)}"
        found.setdefault(row.step, []).append(text)
    return found


def _error(error: dict[str, Any]) -> str:
    text = f"{error.get('type', 'Error')}: {error.get('message', '')}"
    line = " ".join(text.split())
    return line if len(line) <= _ERROR else line[: _ERROR - 3] + "..."


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def _seconds(length: timedelta) -> str:
    """Return a length as people read it: the seconds, in days and hours when long."""
    total = length.total_seconds()
    if total < 100:
        return f"{total:.2f}s"
    minutes, seconds = divmod(round(total), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
