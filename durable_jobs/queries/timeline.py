"""The timeline of a run: one row per step, parents before their children."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet

from durable_jobs import clock
from durable_jobs.models import FailedAttempt, Run, Step
from durable_jobs.statuses import STEP_ENDED
from durable_jobs.store import db

#: Characters of the bar that shows the time of a step.
BAR = 18
_NAME = 28
_ERROR = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRow:
    """One step of a run in the timeline.

    ``depth`` is 0 for the function's own steps. ``attempt`` is the number of failed
    attempts. ``offset`` is the time from the start of the run to the start of the step,
    or None for a step that has not started or was copied from another run. ``length``
    is the duration of the step until its end or until now.
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
        """Return whether the step has ended."""
        return self.status in STEP_ENDED


def timeline(run: Run) -> list[TimelineRow]:
    """Return the steps of a run in the order of recording, each below its parent."""
    now = clock.now()
    steps = _steps(run).order_by("position", "pk")
    return [_row(step, depth, run, now) for step, depth in _in_tree_order(steps)]


def rows_of(run: Run, keys: Iterable[uuid.UUID]) -> dict[uuid.UUID, TimelineRow]:
    """Return the rows of some steps by primary key, all with depth 0."""
    now = clock.now()
    return {
        step.pk: _row(step, 0, run, now) for step in _steps(run).filter(pk__in=keys)
    }


def _steps(run: Run) -> QuerySet[Step]:
    # The large columns are not shown.
    return db.rows(Step).filter(run_id=run.pk).defer("input", "output", "logs")


def _in_tree_order(steps: Iterable[Step]) -> Iterator[tuple[Step, int]]:
    every = list(steps)
    known = {step.pk for step in every}
    below: dict[uuid.UUID | None, list[Step]] = {}
    for step in every:
        parent = step.parent_id if step.parent_id in known else None
        below.setdefault(parent, []).append(step)
    # A stack, because groups and branches may exceed Python's recursion limit.
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
    """Return the start of a run, from which offsets are measured."""
    return run.started_at or run.queued_at


def span(run: Run) -> timedelta:
    """Return the duration of a run until its end or until now."""
    return max((run.ended_at or clock.now()) - origin(run), timedelta())


# As text


def render_text(run: Run) -> str:
    """Return the timeline of a run as plain ASCII text."""
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
    errors = [*failures]
    if row.error is not None:
        errors.append(_error(row.error))
    return [line, *(margin + error for error in errors)]


def _bar(row: TimelineRow, whole: timedelta) -> str:
    if row.offset is None or row.length is None or not whole:
        return ""
    first = min(int(BAR * (row.offset / whole)), BAR - 1)
    count = max(1, round(BAR * (row.length / whole)))
    return "|" + (" " * first + "=" * count)[:BAR].ljust(BAR) + "|"


def _failures(run: Run) -> dict[str, list[str]]:
    """Return the errors of failed attempts by step."""
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
    """Return a duration for people: seconds, or days and hours."""
    total = length.total_seconds()
    if total < 100:
        return f"{total:.2f}s"
    minutes, seconds = divmod(round(total), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
