"""The guarantees that must hold in the database after any fault.

Each rule returns a sentence for each violation. The rules read rows alone: the
engine's, the effects that bodies recorded, and the journal of database triggers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from django.db.models import F, Sum

from durable_jobs.maintenance import doctor
from durable_jobs.models import Run, Step, Wait
from durable_jobs.statuses import (
    LIVE,
    RUN_MOVES,
    STEP_ENDED,
    TERMINAL,
    RunStatus,
    StepStatus,
)
from durable_jobs.store.runs import HANDLER, INVOKE
from tests.lab.models import Account, Change, Effect

Rule = Callable[[], Iterator[str]]

#: Findings of the doctor about time and live processes. The checker reads rows alone,
#: and the workers belong to the test.
LATE = {
    "tick", "expired-lease", "overdue-wait", "undelivered-event", "not-begun",
    "unserved-queue", "other-installation",
}  # fmt: skip


def check() -> None:
    """Fail with a list of all violated guarantees."""
    found = violations()
    assert not found, "The guarantees do not hold:\n" + "\n".join(found)


def violations() -> list[str]:
    """Return a sentence for each violation of a guarantee."""
    return [f"{rule.__name__[1:]}: {one}" for rule in RULES for one in rule()]


def _ended_runs_are_at_rest() -> Iterator[str]:
    ended = Run.objects.filter(status__in=sorted(TERMINAL))
    for wait in Wait.objects.filter(run__in=ended):
        yield f"run {wait.run_id} has ended and waits for {wait}"
    for run in ended.filter(lease_token__isnull=False):
        yield f"run {run.pk} has ended and is held by {run.worker}"
    for step in Step.objects.filter(run__in=ended).exclude(status__in=STEP_ENDED):
        yield f"run {step.run_id} has ended and its step {step.name} is {step.status}"


def _a_recorded_body_is_never_called_again() -> Iterator[str]:
    # An attempt without its lease may have been inside its body: its record is void.
    for effect in Effect.objects.filter(recorded=True, held=True):
        yield f"{effect.step} was recorded, and its body did {effect}"


def _atomic_effects_are_there_exactly_once() -> Iterator[str]:
    booked = Effect.objects.filter(booked__isnull=False)
    counts = Counter(booked.values_list("run", "step"))
    done = Step.objects.filter(kind="atomic", status=StepStatus.COMPLETED)
    steps = Counter((str(run), name) for run, name in done.values_list("run", "name"))
    for key in sorted(counts.keys() | steps.keys()):
        if counts[key] != steps[key]:
            yield f"{key} is recorded {steps[key]} times, and was done {counts[key]}"
    for account in Account.objects.all():
        total = booked.filter(label=account.name).aggregate(sum=Sum("booked"))["sum"]
        if account.balance != (total or 0):
            yield f"account {account} was booked {total}"


def _recorded_results_never_change() -> Iterator[str]:
    changed = Change.objects.filter(kind="step", before__in=sorted(STEP_ENDED))
    for change in changed:
        yield f"{change} after it was recorded"
    ends = Change.objects.filter(kind="run", before=F("after"), altered=True)
    for change in ends.filter(before__in=sorted(TERMINAL)):
        yield f"the output of {change.subject} changed after its end"


def _a_function_sees_what_is_recorded() -> Iterator[str]:
    """Check that a run's ``drawn`` values are those that its steps recorded.

    Each call draws another value. An attempt whose record lost the race must not
    continue with its own result.
    """
    for run in Run.objects.filter(status=RunStatus.COMPLETED):
        drawn = run.output.get("drawn", {}) if isinstance(run.output, dict) else {}
        steps = Step.objects.filter(run=run, name__in=drawn)
        if dict(steps.values_list("name", "output")) != drawn:
            yield f"run {run.pk} went on with {drawn}"


def _runs_move_as_they_may() -> Iterator[str]:
    for change in Change.objects.filter(kind="run").exclude(before=F("after")):
        if change.after not in RUN_MOVES[RunStatus(change.before)]:
            yield str(change)


def _children_agree_with_their_parents() -> Iterator[str]:
    invoked = Step.objects.filter(kind="invoke", status__in=sorted(STEP_ENDED))
    for step in invoked.filter(detail__isnull=False):
        child = Run.objects.filter(pk=(step.detail or {}).get("child")).first()
        if child is None:
            continue
        if child.status in LIVE:
            yield f"step {step.name} has ended, and its child {child.pk} goes on"
        elif step.status == StepStatus.COMPLETED and child.output != step.output:
            yield f"step {step.name} has another result than its child {child.pk}"
    orphans = Run.objects.filter(parent_relation=INVOKE, status__in=sorted(LIVE))
    for run in orphans.filter(parent__status__in=sorted(TERMINAL)):
        yield f"run {run.pk} goes on, and its parent has ended"
    steps = Counter(
        Run.objects.filter(parent_relation=INVOKE).values_list("parent", "parent_step")
    )
    for (parent, key), count in steps.items():
        if count > 1:
            yield f"step {key} of {parent} invoked {count} children"


def _an_end_is_followed_once() -> Iterator[str]:
    handlers = Run.objects.filter(parent_relation=HANDLER).values_list(
        "parent", flat=True
    )
    for parent, count in Counter(handlers).items():
        ends = Change.objects.filter(subject=parent, after__in=sorted(TERMINAL)).count()
        if count > max(ends, 1):
            yield f"run {parent} ended {ends} times and has {count} handlers"


def _the_doctor_finds_nothing() -> Iterator[str]:
    for finding in doctor.examine(deep=True).findings:
        if finding.problem and finding.check not in LATE:
            yield f"{finding.count} {finding.message}: {finding.examples}"


RULES: tuple[Rule, ...] = (
    _ended_runs_are_at_rest,
    _a_recorded_body_is_never_called_again,
    _atomic_effects_are_there_exactly_once,
    _recorded_results_never_change,
    _a_function_sees_what_is_recorded,
    _runs_move_as_they_may,
    _children_agree_with_their_parents,
    _an_end_is_followed_once,
    _the_doctor_finds_nothing,
)
