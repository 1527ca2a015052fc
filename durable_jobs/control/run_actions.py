"""Actions on runs, with an actor, a permission, a reason and an entry in the log.

Each action has its own permission. The transaction of an action also writes entries to
the admin's log, for the run and for its subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import IntegrityError
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from durable_jobs import clock
from durable_jobs.control import audit, runs
from durable_jobs.control.actor import Actor
from durable_jobs.definitions.registry import PACKAGE_PREFIX, registry
from durable_jobs.exceptions import ActionNotAllowed
from durable_jobs.models import Run, WaitKind
from durable_jobs.statuses import LIVE, REDRIVABLE, RunStatus
from durable_jobs.store import db


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action on a run.

    ``statuses`` are the statuses in which the action applies. ``perform`` takes the
    run, the reason and the other values of the action. It returns False if the run has
    changed, the new run if there is one, and otherwise True.
    """

    name: str
    label: str | Promise
    done: str | Promise
    statuses: frozenset[RunStatus]
    perform: Callable[[Run, str, Mapping[str, Any]], bool | Run]

    @property
    def permission(self) -> str:
        """Return the permission for the action, with its app label."""
        return f"durable_jobs.{self.name}_run"


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The result of an action: the new run, if any."""

    run: Run | None = None


def _rerun(run: Run, reason: str, values: Mapping[str, Any]) -> bool | Run:
    return _start_again(run, None, values)


def _edit(run: Run, reason: str, values: Mapping[str, Any]) -> bool | Run:
    return _start_again(run, values.get("data"), values)


def _start_again(run: Run, data: Any, values: Mapping[str, Any]) -> bool | Run:
    new = values.get("new")
    if new is not None and new.version != 7:
        raise ActionNotAllowed("Expected the id that the page provided.")
    try:
        return runs.rerun(run, values.get("from_step"), data, new)
    except IntegrityError:
        if new is None or not db.rows(Run).filter(pk=new).exists():
            raise
        return False  # the same form was sent twice


def _answer(run: Run, reason: str, values: Mapping[str, Any]) -> bool:
    return runs.answer(run, values["step"], values.get("value"))


ACTIONS: dict[str, Action] = {
    action.name: action
    for action in (
        Action(
            name="cancel",
            label=_("Cancel"),
            done=_("cancelled"),
            statuses=LIVE,
            perform=lambda run, reason, values: runs.cancel(run, reason),
        ),
        Action(
            name="pause",
            label=_("Pause"),
            done=_("paused"),
            statuses=LIVE - {RunStatus.PAUSED},
            perform=lambda run, reason, values: runs.pause(run, reason),
        ),
        Action(
            name="resume",
            label=_("Resume"),
            done=_("resumed"),
            statuses=frozenset({RunStatus.PAUSED}),
            perform=lambda run, reason, values: runs.resume(run),
        ),
        Action(
            name="retry",
            label=_("Retry now"),
            done=_("retried"),
            statuses=frozenset({RunStatus.QUEUED, RunStatus.WAITING}),
            perform=lambda run, reason, values: runs.retry_now(run),
        ),
        Action(
            name="wake",
            label=_("Wake"),
            done=_("woken"),
            statuses=frozenset({RunStatus.QUEUED, RunStatus.WAITING}),
            perform=lambda run, reason, values: runs.wake(run),
        ),
        Action(
            name="answer",
            label=_("Answer"),
            done=_("answered"),
            statuses=frozenset(
                {RunStatus.WAITING, RunStatus.RUNNING, RunStatus.QUEUED}
            ),
            perform=_answer,
        ),
        Action(
            name="redrive",
            label=_("Redrive"),
            done=_("redriven"),
            statuses=REDRIVABLE,
            perform=lambda run, reason, values: runs.redrive(run),
        ),
        Action(
            name="rerun",
            label=_("Rerun"),
            done=_("rerun"),
            statuses=frozenset(RunStatus),
            perform=_rerun,
        ),
        Action(
            name="edit",
            label=_("Rerun with changes"),
            done=_("rerun with changes"),
            statuses=frozenset(RunStatus),
            perform=_edit,
        ),
    )
}


#: Actions with which a user could act as another user through the package's own runs.
IMPERSONATING = frozenset({"answer", "edit", "rerun"})
#: Actions with which the actor sets data of a run.
WITH_DATA = frozenset({"answer", "edit"})


def may(actor: Actor, action: str, run: Run) -> bool:
    """Return whether an actor has the permission for an action on a run."""
    return actor.may(ACTIONS[action].permission, run)


def applies(action: str, run: Run) -> bool:
    """Return whether an action applies to a run in its loaded status."""
    return run.status in ACTIONS[action].statuses


def worthwhile(action: str, run: Run, waiting: Collection[str]) -> bool:
    """Return whether an action has an effect, by the kinds of the run's waits."""
    if action not in ("retry", "wake"):
        return True
    later = run.status == RunStatus.QUEUED and run.due_at > clock.now()
    if action == "retry":
        return WaitKind.RETRY in waiting or (later and run.attempt > 0)
    return bool({WaitKind.SLEEP, WaitKind.POLL} & {*waiting}) or (
        later and run.attempt == 0
    )


def act(
    actor: Actor, action: str, run: Run, *, reason: str = "", **values: Any
) -> ActionResult:
    """Apply an action to a run, with entries in the log.

    ``rerun`` takes ``from_step``; ``edit`` takes ``from_step`` and ``data``; ``answer``
    takes ``step`` and ``value``. Raise ``PermissionDenied``, and ``ActionNotAllowed``
    if the run's status does not allow the action.
    """
    known = ACTIONS[action]
    if not may(actor, action, run):
        raise PermissionDenied
    if action in IMPERSONATING and run.function.startswith(PACKAGE_PREFIX):
        # The data of such a run names the actor, and must not be changed.
        msg = f"Run {run.pk} belongs to durable_jobs and cannot be {known.done}."
        raise ActionNotAllowed(msg)
    if action in WITH_DATA:
        actor.check_may_set_data(registry.find(run.function))
    with db.atomic():
        made = known.perform(run, reason, values)
        if made is False:
            run.refresh_from_db()
            msg = f"Run {run.pk} is {run.status}. This action changed nothing."
            raise ActionNotAllowed(msg)
        fresh = made if isinstance(made, Run) else None
        audit.record(actor, run, _entry(known, reason, fresh))
    return ActionResult(run=fresh)


def _entry(action: Action, reason: str, made: Run | None) -> str:
    what = f"Run {action.done}"
    if made is not None:
        what += f" as {made.pk}"
    return f"{what}: {reason}" if reason else f"{what}."
