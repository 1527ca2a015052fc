"""What a live run waits for, and which of its steps are executing.

The queries read at most ``MAX_WAITS`` waits and their steps. ``run.explain()`` and the
page of a run use the same sentences.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Q, TextField
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Left
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from durable_jobs.models import Run, Step, Wait, WaitKind
from durable_jobs.models.steps import OPEN
from durable_jobs.queries import json_paths
from durable_jobs.statuses import STEP_ENDED, RunStatus, StepStatus
from durable_jobs.store import db

#: Waits that are read, and executing steps that are returned.
MAX_WAITS, MAX_RUNNING = 200, 50
#: Paths of ``match`` whose values are read, and characters of one value.
MAX_PATHS, MAX_VALUE = 3, 80
#: Waits that end the run. The run does not wait for them.
LIMITS = (WaitKind.CANCEL, WaitKind.START_BY, WaitKind.FINISH_BY)
#: Waits whose due time is what the run waits for.
TIMED = (WaitKind.SLEEP, WaitKind.RETRY, WaitKind.POLL)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWait:
    """A wait with the name of its step.

    ``until`` is the due time, or the deadline of the step. ``error`` is the type of the
    error that the next attempt follows. ``value`` is the value that the event must
    have.
    """

    wait: Wait
    step: str
    until: datetime | None
    error: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStep:
    """A step that is executing, or that ended last, with that time."""

    pk: uuid.UUID
    name: str
    at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """The waits and steps of a live run.

    ``more``: the run has more waits. ``last`` is the step that ended last, if no
    executing step is recorded: most steps are recorded when they end.
    """

    waits: list[LiveWait] = field(default_factory=list)
    more: bool = False
    running: list[LiveStep] = field(default_factory=list)
    last: LiveStep | None = None


def live_state(run: Run, *, values: bool = True) -> LiveState:
    """Return what a run waits for and executes now.

    With ``values``, also return parts of the run's data that an event must have.
    """
    rows = db.rows(Wait).filter(run_id=run.pk).exclude(kind__in=LIMITS)
    found = list(rows.order_by("pk")[: MAX_WAITS + 1])
    waits = found[:MAX_WAITS]
    executing = run.status == RunStatus.RUNNING
    steps = _open_steps(run, {wait.step for wait in waits}, executing)
    running = _running(steps) if executing else []
    return LiveState(
        waits=_live_waits(run, waits, steps, values),
        more=len(found) > MAX_WAITS,
        running=running[:MAX_RUNNING],
        last=_last(run) if executing and not running else None,
    )


def _open_steps(run: Run, keys: Set[str], executing: bool) -> list[Any]:
    if not (keys - {""} or executing):
        return []
    wanted = Q(key__in=keys)
    if executing:
        wanted |= Q(status=StepStatus.RUNNING)
    rows = db.rows(Step).filter(OPEN, wanted, run_id=run.pk)
    named = rows.annotate(error_type=KT("error__type")).order_by("position", "pk")
    columns = ("pk", "key", "name", "status", "parent_id", "started_at", "error_type")
    return list(named.values_list(*columns, named=True)[: 2 * MAX_WAITS])


def _running(steps: Sequence[Any]) -> list[LiveStep]:
    """Return the executing steps, without those that are open for inner steps."""
    around = {step.parent_id for step in steps}
    return [
        LiveStep(pk=step.pk, name=step.name, at=step.started_at)
        for step in steps
        if step.status == StepStatus.RUNNING and step.pk not in around
    ]


def _last(run: Run) -> LiveStep | None:
    ended = db.rows(Step).filter(run_id=run.pk, status__in=sorted(STEP_ENDED))
    rows = ended.order_by("-position", "-pk").values_list("pk", "name", "ended_at")
    return next((LiveStep(pk=pk, name=name, at=at) for pk, name, at in rows[:1]), None)


def _live_waits(
    run: Run, waits: Sequence[Wait], steps: Sequence[Any], values: bool
) -> list[LiveWait]:
    by_key = {step.key: step for step in steps}
    deadlines = _deadlines(waits)
    wanted = _values(run, waits) if values else {}
    found = []
    for wait in waits:
        if wait.kind == WaitKind.TIMEOUT:
            continue
        wait.run = run  # permissions are checked against the run
        step = by_key.get(wait.step)
        found.append(
            LiveWait(
                wait=wait,
                step=step.name if step else "",
                until=wait.due_at if wait.kind in TIMED else deadlines.get(wait.step),
                error=(step.error_type or "") if step else "",
                value=wanted.get(_path(wait), ""),
            )
        )
    return found


def _deadlines(waits: Sequence[Wait]) -> dict[str, datetime]:
    """Return the earliest timeout of each step."""
    found: dict[str, datetime] = {}
    for wait in waits:
        if wait.kind == WaitKind.TIMEOUT and wait.due_at is not None:
            found[wait.step] = min(found.get(wait.step, wait.due_at), wait.due_at)
    return found


def _path(wait: Wait) -> str:
    """Return the path of the value that the event must share with the run's data."""
    return str((wait.condition or {}).get("match") or "")


def _values(run: Run, waits: Sequence[Wait]) -> dict[str, str]:
    """Return the run's values at the paths of waits, as ``path = value``."""
    paths = [*{_path(wait): None for wait in waits if _path(wait)}][:MAX_PATHS]
    if not paths:
        return {}
    texts = {
        f"text_{number}": Left(Cast(_at(path), TextField()), MAX_VALUE)
        for number, path in enumerate(paths)
    }
    rows = db.rows(Run).filter(pk=run.pk).values_list(*texts.values())
    return {
        path: f"{path.removeprefix('data.')} = {text}"
        for path, text in zip(paths, rows.get(), strict=True)
        if text is not None
    }


def _at(path: str) -> Any:
    return json_paths.expression("data", path.split(".")[1:])


# In words

#: The sentence for each kind of wait. ``{until}`` is a time.
_SENTENCES: dict[str, Any] = {
    WaitKind.SLEEP: gettext_lazy("Sleeping in {step} until {until}"),
    WaitKind.RETRY: gettext_lazy("Next attempt of {step} at {until}"),
    WaitKind.POLL: gettext_lazy("Next check of {step} at {until}"),
    WaitKind.EVENT: gettext_lazy("Waiting in {step} for the event {name}"),
    WaitKind.SIGNAL: gettext_lazy("Waiting in {step} for the signal {name}"),
    WaitKind.MODEL: gettext_lazy("Waiting in {step} for {name} {match}"),
    WaitKind.CHILD: gettext_lazy("Waiting in {step} for the run {name}"),
    WaitKind.CALLBACK: gettext_lazy("Waiting in {step} for a callback"),
    WaitKind.APPROVAL: gettext_lazy("Waiting in {step} for approval by {name}"),
}
_COUNTS: dict[str, Any] = {
    WaitKind.SLEEP: ngettext_lazy("%(count)s sleep", "%(count)s sleeps", "count"),
    WaitKind.RETRY: ngettext_lazy("%(count)s retry", "%(count)s retries", "count"),
    WaitKind.POLL: ngettext_lazy("%(count)s check", "%(count)s checks", "count"),
    WaitKind.EVENT: ngettext_lazy("%(count)s event", "%(count)s events", "count"),
    WaitKind.SIGNAL: ngettext_lazy("%(count)s signal", "%(count)s signals", "count"),
    WaitKind.MODEL: ngettext_lazy("%(count)s object", "%(count)s objects", "count"),
    WaitKind.CHILD: ngettext_lazy("%(count)s run", "%(count)s runs", "count"),
    WaitKind.CALLBACK: ngettext_lazy(
        "%(count)s callback", "%(count)s callbacks", "count"
    ),
    WaitKind.APPROVAL: ngettext_lazy(
        "%(count)s approval", "%(count)s approvals", "count"
    ),
}


def template(one: LiveWait) -> str:
    """Return the sentence for a wait, with the fields of ``str.format``.

    The fields are ``step``, ``name``, ``match``, ``until``, ``error`` and ``value``.
    """
    kind = one.wait.kind
    text = str(_SENTENCES.get(kind, _("Waiting in {step}")))
    if one.value:
        text += _(" with {value}")
    if "{until}" not in text and one.until is not None:
        text += _(", until {until}")
    if kind == WaitKind.RETRY and one.error:
        text += _(", after {error}")
    return text


def as_text(one: LiveWait) -> str:
    """Return the sentence for a wait as plain text."""
    return template(one).format(
        step=repr(one.step or one.wait.step),
        name=repr(one.wait.name),
        match=one.wait.match,
        until=None if one.until is None else one.until.isoformat(),
        error=one.error,
        value=one.value,
    )


def summary(state: LiveState) -> str:
    """Return the number of waits, also by kind: ``5 waits: 3 events, 2 sleeps``."""
    count = f"{len(state.waits)}{'+' if state.more else ''}"
    kinds = Counter(one.wait.kind for one in state.waits)
    parts = ", ".join(
        _COUNTS[kind] % {"count": number} if kind in _COUNTS else f"{number} {kind}"
        for kind, number in kinds.most_common()
    )
    return _("%(count)s waits: %(parts)s") % {"count": count, "parts": parts}
