"""``Kit``: send, let things run, move the clock, and let workers die."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal

from durable_jobs import clock, failpoints, notifier
from durable_jobs.conf import settings
from durable_jobs.definitions.events import NewEvent, check_moment
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.runtime import runtime
from durable_jobs.durations import parse_duration
from durable_jobs.engine import attempt, body_calls, event_loops
from durable_jobs.engine.suspend import SimulatedCrash
from durable_jobs.events import model_waits, routing
from durable_jobs.exceptions import ConfigurationError, StepError
from durable_jobs.flow_control import limits
from durable_jobs.lifecycle import admission, run_log
from durable_jobs.maintenance import tick
from durable_jobs.models import Event, Run, Schedule, Wait
from durable_jobs.schedules import sync
from durable_jobs.statuses import LIVE, RunStatus
from durable_jobs.store import (
    backlogs,
    db,
    event_windows,
    item_errors,
    leases,
    unknown_functions,
)
from durable_jobs.testing import approvals, stubs
from durable_jobs.testing import replay as replay_runs
from durable_jobs.testing.stubs import Stub, StubError
from durable_jobs.types import Duration

Place = Literal["before", "body", "after"]
Unused = Literal["error", "warn", "ignore"]

#: More than this many attempts without the clock moving is a run that never rests.
MOST_ATTEMPTS = 100_000
RESOLUTION = timedelta(microseconds=1)


class Kit:
    """The engine for tests. Use it as a context manager, inside any kind of TestCase.

    Time stands still but for ``advance`` and ``travel_to``. Nothing runs but in
    ``run_until_idle``, ``advance`` and ``run.wait()``. Functions declared while it is
    open are forgotten when it closes.
    """

    def __init__(
        self,
        now: datetime | None = None,
        *,
        unused_stubs: Unused = "error",
        require_stubs: bool = False,
        propagate: bool = False,
    ) -> None:
        """Make a kit.

        ``unused_stubs``: what a stub, a result of a list or a crash is that no step has
        used when the kit closes. ``require_stubs``: no body is called that is not
        stubbed. ``propagate``: what a body raises is raised here too, after the attempt
        was recorded.
        """
        check_moment(now, "the beginning of the kit")
        if unused_stubs not in ("error", "warn", "ignore"):
            msg = (
                f"Expected unused_stubs to be 'error', 'warn' or 'ignore', got "
                f"{unused_stubs!r}."
            )
            raise ConfigurationError(msg)
        self._clock = clock.VirtualClock(now or clock.now().replace(microsecond=0))
        self._stack = ExitStack()
        self._unused, self._required = unused_stubs, require_stubs
        self._propagates = propagate
        self._crashes: dict[tuple[str, str], int] = {}
        self._fresh_crashes: set[tuple[str, str]] = set()
        self._stubs: dict[str, Stub] = {}
        self._met: set[str] = set()
        self._errors: list[BaseException] = []

    def __enter__(self) -> Kit:
        self._stack.enter_context(clock.using(self._clock))
        self._stack.enter_context(registry.temporary())
        self._stack.enter_context(notifier.using(KitNotifier(self)))
        self._stack.enter_context(failpoints.watching(self._pass))
        self._stack.callback(
            body_calls.substitute, body_calls.substitute(self._stubbed)
        )
        self._stack.callback(run_log.watch, run_log.watch(self._failed))
        self._stack.callback(model_waits.watched.forget)
        for clear in (limits.forget, unknown_functions.clear, item_errors.clear):
            clear()
            self._stack.callback(clear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        event_loops.close()
        if error is None:
            self._check_used()

    # Sending

    def send(self, name: str, data: Any = None, **options: Any) -> str:
        """Send an event as ``durable.send`` does."""
        return runtime().send([NewEvent(name, data, **options)])[0]

    def send_many(self, events: Iterable[NewEvent]) -> list[str]:
        """Send events as ``durable.send_many`` does."""
        return runtime().send(list(events))

    # Running

    def run_until_idle(self) -> int:
        """Execute until nothing can go on at this time; return the attempts made."""
        return self._run(passing=False)

    def _run(self, *, passing: bool) -> int:
        sync.sync()  # beat may take ten seconds to note one that was just declared
        count = 0
        while True:
            self._look_after_commits()
            tick.tick(passing=passing)
            routing.route_pending()
            made = self._serve_all()
            count += made
            if not made and not self._timers_due() and not self._admission_due():
                # A save that follows is to know of every wait that began here.
                model_waits.watched.forget()
                return count
            if count > MOST_ATTEMPTS:
                msg = f"The runs do not come to rest after {count} attempts."
                raise AssertionError(msg)

    def _serve_all(self) -> int:
        rows = db.rows(Run).filter(status=RunStatus.QUEUED, due_at__lte=clock.now())
        # A backlog may have had its last run let through, and nobody has seen that yet.
        queues = set(rows.values_list("queue", flat=True)) | backlogs.eligible_queues(
            registry.ids()
        )
        return sum(self._serve(queue) for queue in sorted(queues))

    def _serve(self, queue: str) -> int:
        admission.admit(queue, settings.CLAIM_BATCH)
        claimed = leases.claim(queue, settings.CLAIM_BATCH, "kit")
        for run in admission.recheck_limits(claimed):
            try:
                attempt.execute_attempt(run, threads=0)
            except SimulatedCrash:
                continue  # a dead worker: its lease has to run out
            finally:
                self._raise_first()
        return len(claimed)

    def _timers_due(self) -> bool:
        due = db.rows(Wait).filter(due_at__lte=clock.now())
        return due.exclude(kind="model").exists()

    def _admission_due(self) -> bool:
        return bool(admission.needed())

    def _look_after_commits(self) -> None:
        """Make the looks that saves have asked for and an open test transaction keeps.

        Inside ``TestCase`` nothing ever commits.
        """
        connection = db.connection()
        if connection.in_atomic_block:
            for _, function, *_ in list(connection.run_on_commit):
                if not isinstance(function, model_waits.ModelCheck | db.AfterCommit):
                    continue
                if not function.done:
                    function()

    # Time

    def now(self) -> datetime:
        """Return the time on the virtual clock."""
        return self._clock.moment

    def advance(self, duration: Duration, *, run: bool = True) -> None:
        """Move the clock on; what becomes due on the way runs at its own time.

        ``run=False`` is an outage: nothing runs meanwhile, or at its end.
        """
        self.travel_to(self.now() + parse_duration(duration), run=run)

    def travel_to(self, moment: datetime, *, run: bool = True) -> None:
        """Move the clock to an aware time, not before now."""
        if moment.utcoffset() is None or moment < self.now():
            msg = (
                f"Expected an aware time that is not before {self.now()}, got {moment}."
            )
            raise ConfigurationError(msg)
        if not run:
            self._clock.moment = moment
            return
        self.run_until_idle()
        while (upcoming := self._next_time()) is not None and upcoming <= moment:
            self._clock.moment = max(upcoming, self.now())
            self._run(passing=upcoming < moment)
        self._clock.moment = moment
        self.run_until_idle()

    def _next_time(self) -> datetime | None:
        """Return the next time at which something becomes due."""
        now = self.now()
        runs = db.rows(Run).filter(status__in=sorted(LIVE))
        waits = db.rows(Wait)
        schedules = db.rows(Schedule)
        times = [
            runs.filter(status=RunStatus.QUEUED, due_at__gt=now)
            .order_by("due_at")
            .values_list("due_at", flat=True)
            .first(),
            waits.filter(due_at__gt=now)
            .order_by("due_at")
            .values_list("due_at", flat=True)
            .first(),
            schedules.filter(due_at__gt=now)
            .order_by("due_at")
            .values_list("due_at", flat=True)
            .first(),
            db.rows(Event)
            .filter(pending=True, ts__gt=now)
            .order_by("ts")
            .values_list("ts", flat=True)
            .first(),
            backlogs.next_eligible_at(),
            event_windows.next_due(),
        ]
        leased = runs.filter(lease_token__isnull=False, lease_until__gte=now)
        until = leased.order_by("lease_until").values_list("lease_until", flat=True)
        lease = until.first()
        if lease is not None:
            times.append(lease + RESOLUTION)
        return min((time for time in times if time is not None), default=None)

    # Decisions

    def approve(
        self, step: str, data: Any = None, *, by: Any = None, run: Run | None = None
    ) -> None:
        """Approve what an ``approve`` step asks, with what its form is filled in with.

        It is the oldest one that asks, of ``run`` if that is given. ``by`` is the user,
        who needs the permission; None decides without one. The run goes on in
        ``run_until_idle``. Raises ``InvalidForm``, ``PermissionDenied``, and
        ``Refused`` when nobody asks.
        """
        approvals.approve(approvals.asked(step, run), data or {}, by)

    def reject(
        self,
        step: str,
        reason: str = "rejected in a test",
        *,
        by: Any = None,
        run: Run | None = None,
    ) -> None:
        """Reject what an ``approve`` step asks; the rest is as in ``approve``."""
        approvals.reject(approvals.asked(step, run), reason, by)

    # Trouble

    def crash_at(self, step: str, when: Place = "body", times: int = 1) -> None:
        """Let the worker die at a step, the next ``times`` times that it gets there.

        ``"before"`` its body, after the ``"body"`` and before its checkpoint, or
        ``"after"`` the checkpoint. The lease must run out before work goes on.
        """
        if when not in ("before", "body", "after"):
            msg = f"Expected when to be 'before', 'body' or 'after', got {when!r}."
            raise ConfigurationError(msg)
        self._crashes[f"step.{when}", step] = times
        self._fresh_crashes.add((f"step.{when}", step))

    def replay(self, history: Mapping[str, Any]) -> Run:
        """Run a history of another run here, and return the run when nothing goes on.

        What it has recorded is not run again; what it had not got to is run by the code
        as it is now. Raises ``ConfigurationError`` for what is no history.
        """
        run = replay_runs.begin(history)
        self.run_until_idle()
        run.refresh_from_db()
        return run

    def stub(self, step: str, result: Any) -> Stub:
        """Let a step's body give ``result``, or raise it when it is an exception.

        A callable is called with the body's arguments. A list or tuple that is not
        empty has one result a call. The stub that is returned counts its ``calls``.
        """
        made = self._stubs[step] = Stub(step, result)
        return made

    def _pass(self, place: str, step: str) -> None:
        self._met.add(step)
        left = self._crashes.get((place, step), 0)
        if left:
            self._crashes[place, step] = left - 1
            self._fresh_crashes.discard((place, step))
            msg = f"The worker died at step {step!r} ({place})."
            raise SimulatedCrash(msg)

    def _stubbed(self, step: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        self._met.add(step)
        stub = self._stubs.get(step)
        if stub is not None:
            return stub.body(self._report)
        if not self._required:
            return fn

        def forbidden(*args: Any, **kwargs: Any) -> Any:
            raise self._report(stubs.missing(step))

        return forbidden

    def _report(self, error: StubError) -> StubError:
        """Have an error of the test itself raised when the attempt is over."""
        self._errors.append(error)
        return error

    def _failed(self, error: BaseException) -> None:
        """Keep what a body raised, unless the test itself let it be raised."""
        told = any(error is one for stub in self._stubs.values() for one in stub.raised)
        if self._propagates and not told and not isinstance(error, StepError):
            self._errors.append(error)

    def _raise_first(self) -> None:
        found, self._errors = self._errors, []
        if found:
            raise found[0]

    def _check_used(self) -> None:
        """Refuse what the test prepared for steps that were never met."""
        idle = [stub.step for stub in self._stubs.values() if not stub.calls]
        crash_count = [step for _, step in sorted(self._fresh_crashes)]
        sentences = [
            *stubs.unmet("The stub", idle, self._met),
            *stubs.left_over(self._stubs.values()),
            *stubs.unmet("The crash", crash_count, self._met),
        ]
        if not sentences or self._unused == "ignore":
            return
        msg = " ".join(sentences)
        if self._unused == "warn":
            warnings.warn(msg, stacklevel=3)
            return
        msg = f"{msg} (Kit(unused_stubs='ignore') lets this pass.)"
        raise StubError(msg)


class KitNotifier:
    """Hears no wake-ups: the kit looks for itself."""

    manual_clock = True

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    def notify(self, queue: str, work: int) -> None:
        """Do nothing."""

    def notify_at(self, moment: datetime, queue: str) -> None:
        """Do nothing."""

    def run_pending(self) -> bool:
        """Execute what can go on; tell whether anything did."""
        return self._kit.run_until_idle() > 0
