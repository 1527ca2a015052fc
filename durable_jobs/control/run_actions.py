"""What people do to runs: an action with an actor, its permission, a reason and an
entry.

Each action has a permission of its own. What was done is written to the admin's log,
for the run and for the instances that it is about, in the transaction that does it.
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
from durable_jobs.definitions.registry import OWN, registry
from durable_jobs.exceptions import ActionNotAllowed
from durable_jobs.models import Run, WaitKind
from durable_jobs.statuses import LIVE, REDRIVABLE, RunStatus
from durable_jobs.store import db


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something that a person may do to a run.

    ``of``: the statuses in which it makes sense. ``perform`` gets the run, the reason
    and what else the action takes; it returns False when another was first, the new run
    when there is one, else True.
    """

    name: str
    label: str | Promise
    done: str | Promise
    of: frozenset[RunStatus]
    perform: Callable[[Run, str, Mapping[str, Any]], bool | Run]

    @property
    def permission(self) -> str:
        """Return the permission that it needs, with its app."""
        return f"durable_jobs.{self.name}_run"


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What came of an action: whether this call did it, and the new run, if any."""

    changed: bool
    run: Run | None = None


def _rerun(run: Run, reason: str, values: Mapping[str, Any]) -> bool | Run:
    return _begin_again(run, None, values)


def _edit(run: Run, reason: str, values: Mapping[str, Any]) -> bool | Run:
    return _begin_again(run, values.get("data"), values)


def _begin_again(run: Run, data: Any, values: Mapping[str, Any]) -> bool | Run:
    new = values.get("new")
    if new is not None and new.version != 7:
        raise ActionNotAllowed("Expected an id as a page has given it out.")
    try:
        return runs.rerun(run, values.get("from_step"), data, new)
    except IntegrityError:
        if new is None or not db.rows(Run).filter(pk=new).exists():
            raise
        return False  # the same form, sent twice


def _answer(run: Run, reason: str, values: Mapping[str, Any]) -> bool:
    return runs.answer(run, values["step"], values.get("value"))


_ENDED = frozenset(RunStatus) - LIVE
ACTIONS: dict[str, Action] = {
    verb.name: verb
    for verb in (
        Action(
            name="cancel",
            label=_("Cancel"),
            done=_("cancelled"),
            of=LIVE,
            perform=lambda run, reason, values: runs.cancel(run, reason),
        ),
        Action(
            name="pause",
            label=_("Pause"),
            done=_("paused"),
            of=LIVE - {RunStatus.PAUSED},
            perform=lambda run, reason, values: runs.pause(run, reason),
        ),
        Action(
            name="resume",
            label=_("Resume"),
            done=_("resumed"),
            of=frozenset({RunStatus.PAUSED}),
            perform=lambda run, reason, values: runs.resume(run),
        ),
        Action(
            name="retry",
            label=_("Retry now"),
            done=_("retried at once"),
            of=frozenset({RunStatus.QUEUED, RunStatus.WAITING}),
            perform=lambda run, reason, values: runs.retry_now(run),
        ),
        Action(
            name="wake",
            label=_("Wake"),
            done=_("woken"),
            of=frozenset({RunStatus.QUEUED, RunStatus.WAITING}),
            perform=lambda run, reason, values: runs.wake(run),
        ),
        Action(
            name="answer",
            label=_("Answer"),
            done=_("answered for"),
            of=frozenset({RunStatus.WAITING, RunStatus.RUNNING, RunStatus.QUEUED}),
            perform=_answer,
        ),
        Action(
            name="redrive",
            label=_("Redrive"),
            done=_("redriven"),
            of=REDRIVABLE,
            perform=lambda run, reason, values: runs.redrive(run),
        ),
        Action(
            name="rerun",
            label=_("Rerun"),
            done=_("rerun"),
            of=frozenset(RunStatus),
            perform=_rerun,
        ),
        Action(
            name="edit",
            label=_("Rerun with changes"),
            done=_("rerun with changes"),
            of=frozenset(RunStatus),
            perform=_edit,
        ),
    )
}


#: The actions that would let somebody act as another by a run of the app's own.
FORGING = frozenset({"answer", "edit", "rerun"})
#: The actions that give a run data of the actor's.
FEEDING = frozenset({"answer", "edit"})


def may(actor: Actor, verb: str, run: Run) -> bool:
    """Tell whether an actor may do something to a run, in whatever state it is."""
    return actor.may(ACTIONS[verb].permission, run)


def applies(verb: str, run: Run) -> bool:
    """Tell whether something can be done to a run in the state that it was read in."""
    return run.status in ACTIONS[verb].of


def worthwhile(verb: str, run: Run, waiting: Collection[str]) -> bool:
    """Tell whether an action would change anything, by the kinds of the run's waits."""
    if verb not in ("retry", "wake"):
        return True
    later = run.status == RunStatus.QUEUED and run.due_at > clock.now()
    if verb == "retry":
        return WaitKind.RETRY in waiting or (later and run.attempt > 0)
    return bool({WaitKind.SLEEP, WaitKind.POLL} & {*waiting}) or (
        later and run.attempt == 0
    )


def act(
    actor: Actor, verb: str, run: Run, *, reason: str = "", **values: Any
) -> ActionResult:
    """Do something to a run, and write down who did it.

    ``rerun`` takes ``from_step``, ``edit`` that and ``data``, ``answer`` a ``step`` and
    a ``value``. Raises ``PermissionDenied``, and ``Refused`` when the run's state does
    not allow it, or another was first.
    """
    known = ACTIONS[verb]
    if not may(actor, verb, run):
        raise PermissionDenied
    if verb in FORGING and run.function.startswith(OWN):
        # Its data says who acts: none but the one who began it may say that.
        msg = f"Run {run.pk} is the app's own: it cannot be {known.done}. Begin anew."
        raise ActionNotAllowed(msg)
    if verb in FEEDING:
        actor.check_feeding(registry.find(run.function))
    with db.atomic():
        made = known.perform(run, reason, values)
        if made is False:
            run.refresh_from_db()
            msg = f"Run {run.pk} is {run.status}: it was not {known.done} by this call."
            raise ActionNotAllowed(msg)
        fresh = made if isinstance(made, Run) else None
        audit.record(actor, run, _entry(known, reason, fresh))
    return ActionResult(changed=True, run=fresh)


def _entry(verb: Action, reason: str, made: Run | None) -> str:
    what = f"Run {verb.done}"
    if made is not None:
        what += f" as {made.pk}"
    return f"{what}: {reason}" if reason else f"{what}."
