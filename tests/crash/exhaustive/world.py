"""The world of one function: its client, worker and tick, and the outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import OperationalError, connection, models
from django.db.models import Exists

from durable_jobs import durable
from durable_jobs.durations import parse_duration
from durable_jobs.engine.suspend import SimulatedCrash
from durable_jobs.events import model_waits
from durable_jobs.maintenance import doctor
from durable_jobs.maintenance.invariants import VIOLATIONS
from durable_jobs.models import (
    Backlog,
    BufferedEvent,
    Event,
    EventWindow,
    FailedAttempt,
    IdempotencyKey,
    Limit,
    RateLimitHit,
    Run,
    Schedule,
    Slot,
    Step,
    Subject,
    Wait,
    Worker,
)
from durable_jobs.statuses import STEP_ENDED
from durable_jobs.store import exists_probe
from durable_jobs.testing import Kit
from tests.crash.exhaustive.dying import Fate
from tests.lab.models import Account

Action = Callable[[], object]

BEGINNING = datetime(2026, 3, 4, 12, tzinfo=UTC)
#: Covers a lease, a tick, and retries a moment later.
RECOVERY = timedelta(minutes=3)

_TABLES: list[type[models.Model]] = [
    Wait, FailedAttempt, Step, Subject, Run, Event, IdempotencyKey, Schedule, Worker,
    Account,
    Slot, RateLimitHit, Backlog, Limit, BufferedEvent, EventWindow,
]  # fmt: skip
_CLEAR = "; ".join(f"DELETE FROM {model._meta.db_table}" for model in _TABLES)  # noqa: S608  # our own tables


@dataclass(frozen=True, slots=True)
class Ending:
    """The final state when all is idle, without ids, times and tracebacks."""

    runs: Any
    events: Any
    balance: int
    #: How often each body was executed, where this is counted.
    effects: Counter[str] = field(compare=False)


class World:
    """One installation with one client; its process may die at any moment.

    A client without a response retries its request under the same key or id.
    """

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.kit = Kit(now=BEGINNING)
        self.effects: Counter[str] = Counter()
        self.repeated: list[str] = []
        #: Steps with more than one valid outcome.
        self.either: set[str] = set()
        self.tokens: list[str] = []
        #: The number of actions begun so far.
        self.stage = 0
        #: The end of the client's current wait, kept across retries.
        self.until: datetime | None = None

    # What functions do

    def effect(self, ctx: durable.Context, label: str) -> str:
        """Count one execution of the body of step ``label``."""
        self.effects[label] += 1
        recorded = Step.objects.filter(run=ctx.run_id, name=label)
        if recorded.filter(status__in=STEP_ENDED).exists():
            self.repeated.append(label)
        return label

    def book(self, amount: int = 1) -> int:
        """Change a balance, inside an ``atomic`` step."""
        Account.objects.filter(name="ledger").update(
            balance=models.F("balance") + amount
        )
        return Account.objects.get(name="ledger").balance

    # What the client does

    def enqueue(self, function: durable.Function, data: Any = None) -> Action:
        """Return an action that starts a run."""
        return lambda: function.using(key="asked").enqueue(data)

    def send(self, name: str, data: Any = None, id: str = "told") -> Action:
        """Return an action that sends an event."""
        return lambda: durable.send(name, data, id=id)

    def answer(self, data: Any) -> Action:
        """Return an action that answers a callback, unless a retry has answered it."""

        def answering() -> None:
            with suppress(durable.CallbackClosed):
                durable.callbacks.succeed(self.tokens[-1], data)

        return answering

    def decide(self, decision: Action) -> Action:
        """Return an action that decides, unless a retry has decided."""

        def deciding() -> None:
            with suppress(durable.ActionNotAllowed):
                decision()

        return deciding

    def wait(self, duration: str) -> Action:
        """Return an action that lets time pass."""

        def waiting() -> None:
            self.until = self.until or self.kit.now() + parse_duration(duration)
            self.kit.travel_to(max(self.until, self.kit.now()))

        return waiting

    # How it goes

    def live(self, build: Callable[[World], list[Action]]) -> Ending:
        """Perform all actions of the client, and return the ending."""
        clear()
        Account.objects.create(name="ledger")
        with self.kit:
            script = build(self)
            with self.fate.watching():
                for action in script:
                    self.do(action)
                if not self.fate.struck:
                    self.survives(lambda: self.kit.advance(RECOVERY))
            problems = self.problems()
            assert not problems, problems
            return self._ending()

    def do(self, action: Action) -> None:
        """Repeat an action until it succeeds, then run until idle."""
        self.stage += 1
        while not self.survives(action):
            pass
        # Only after success: a client that fails repeats the wait to the same time.
        self.until = None
        self.stage += 1
        while not self.survives(self.kit.run_until_idle):
            pass

    def survives(self, action: Action) -> bool:
        """Return whether an action met no fault. After a fault, let time pass."""
        before = self.fate.struck
        try:
            action()
        except (SimulatedCrash, OperationalError):
            if self.fate.struck == before:
                raise
        if self.fate.struck == before:
            return True
        self.fate.revive()
        self.left_behind()
        self.recover()
        return False

    def left_behind(self) -> None:
        """Observe the state after a crash. A hook for subclasses."""

    def left(self) -> object:
        """Return the uncommitted state that a crash now would leave."""
        done = sum(self.effects.values()), len(self.tokens)
        return self.stage, self.kit.now(), self.until, *done

    def recover(self) -> None:
        """Let the system recover: memory is lost and leases expire."""
        model_waits.watched.forget()
        self.kit.advance(RECOVERY, run=False)

    def problems(self) -> list[str]:
        """Return violations of the expected final state."""
        found = []
        if not self.fate.struck or impossible():
            findings = doctor.examine(deep=True).findings
            # The kit executes runs, so no worker serves the queues.
            found += [one.message for one in findings if one.check != "unserved-queue"]
        found += [f"{label} was done again" for label in self.repeated]
        found += [f"{wait!r} is left" for wait in Wait.objects.all()]
        found += [
            f"{one!r} is still acquired"
            for one in Slot.objects.filter(released_at=None)
        ]
        waiting = BufferedEvent.objects.filter(run=None)
        found += [f"{one!r} was not given to a run" for one in waiting]
        live = Run.objects.live() | Run.objects.filter(lease_token__isnull=False)
        found += [f"{run.function} is {run.status}: {run.reason}" for run in live]
        return found

    def _ending(self) -> Ending:
        names = {str(run.pk): f"<{run.function}>" for run in Run.objects.all()}
        names |= {event.pk: f"<{event.name}>" for event in Event.objects.all()}
        runs = sorted(
            (
                _run(run, names, self.either)
                for run in Run.objects.prefetch_related("steps")
            ),
            key=repr,
        )
        events = sorted(Event.objects.values_list("name", "pending"))
        balance = Account.objects.get(name="ledger").balance
        return Ending(runs, events, balance, self.effects)


def impossible() -> bool:
    """Return whether the doctor finds an invariant violation, in one statement."""
    asking = exists_probe.Probe(
        lambda: {one.name: Exists(one.rows()) for one in VIOLATIONS}
    )
    return any(asking.evaluate([]).values())


def clear() -> None:
    """Delete all rows that a world leaves."""
    with connection.cursor() as cursor:
        cursor.execute(_CLEAR)


#: Keys whose values differ between runs.
_PASSING = frozenset({"id", "ts", "traceback", "at"})


def _run(run: Run, names: dict[str, str], either: set[str]) -> Any:
    steps = {
        step.key: (
            step.name,
            step.kind,
            step.status,
            _plain(step.output, names),
            _plain(step.error, names),
        )
        for step in run.steps.all()
        if step.name not in either
    }
    return [
        run.function,
        run.status,
        _plain(run.output, names),
        _plain(run.error, names),
        _plain(run.reason, names),
        names.get(str(run.parent_id)),
        steps,
    ]


def _plain(value: Any, names: dict[str, str]) -> Any:
    """Return a value with names in place of ids, and without times."""
    if isinstance(value, dict):
        kept = {
            key: value[key] for key in sorted(value, key=repr) if key not in _PASSING
        }
        return {key: _plain(one, names) for key, one in kept.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, names) for one in value]
    if isinstance(value, models.Model):
        return value._meta.label
    if isinstance(value, str):
        for id, name in names.items():
            value = value.replace(id, name)
    return value
