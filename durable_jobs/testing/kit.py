"""``Kit``: send events, execute runs, move the clock, and simulate crashes."""

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
    claim_exclusions,
    db,
    event_windows,
    item_errors,
    leases,
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

        ``unused_stubs``: how the kit treats a stub, a result of a list or a crash that
        no step has used when the kit closes. ``require_stubs``: an unstubbed body
        raises. ``propagate``: an error of a body is raised here too, after its attempt
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
        for clear in (limits.forget, claim_exclusions.clear, item_errors.clear):
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
        """Execute all runs that can continue now; return the number of attempts."""
        return self._run(passing=False)

    def _run(self, *, passing: bool) -> int:
        sync.sync()  # beat may take ten seconds to store a new cron
        count = 0
        while True:
            self._check_after_commits()
            tick.tick(passing=passing)
            routing.route_pending()
            made = self._serve_all()
            count += made
            if not made and not self._timers_due() and not self._admission_due():
                # A later save has to find every wait that began here.
                model_waits.watched.forget()
                return count
            if count > MOST_ATTEMPTS:
                msg = f"The runs are still not idle after {count} attempts."
                raise AssertionError(msg)

    def _serve_all(self) -> int:
        rows = db.rows(Run).filter(status=RunStatus.QUEUED, due_at__lte=clock.now())
        # A backlog may be eligible although its last run was promoted.
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
                continue  # a dead worker: its lease has to expire
            finally:
                self._raise_first()
        return len(claimed)

    def _timers_due(self) -> bool:
        due = db.rows(Wait).filter(due_at__lte=clock.now())
        return due.exclude(kind="model").exists()

    def _admission_due(self) -> bool:
        return bool(admission.pending_work())

    def _check_after_commits(self) -> None:
        """Run the checks that saves have left for the commit of a test's transaction.

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
        """Move the clock forward. Everything that becomes due runs at its own time.

        ``run=False`` simulates an outage: nothing runs.
        """
        self.travel_to(self.now() + parse_duration(duration), run=run)

    def travel_to(self, moment: datetime, *, run: bool = True) -> None:
        """Move the clock to an aware datetime, not before now."""
        if moment.utcoffset() is None or moment < self.now():
            msg = f"Expected an aware datetime not before {self.now()}, got {moment}."
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
        """Approve the oldest open ``approve`` step with this id, with form ``data``.

        ``run`` restricts the choice to one run. ``by`` is the user, who needs the
        permission. With None, no permission is checked. The run continues in
        ``run_until_idle``. Raise ``InvalidForm``, ``PermissionDenied``, or
        ``ActionNotAllowed`` if no step is open.
        """
        approvals.approve(approvals.open_approval(step, run), data or {}, by)

    def reject(
        self,
        step: str,
        reason: str = "rejected in a test",
        *,
        by: Any = None,
        run: Run | None = None,
    ) -> None:
        """Reject the oldest open ``approve`` step with this id. See ``approve``."""
        approvals.reject(approvals.open_approval(step, run), reason, by)

    # Failures

    def crash_at(self, step: str, when: Place = "body", times: int = 1) -> None:
        """Simulate a crash of the worker at a step, the next ``times`` times.

        The crash is ``"before"`` the body, after the ``"body"`` and before the
        checkpoint, or ``"after"`` the checkpoint. The lease must expire before the run
        continues.
        """
        if when not in ("before", "body", "after"):
            msg = f"Expected when to be 'before', 'body' or 'after', got {when!r}."
            raise ConfigurationError(msg)
        self._crashes[f"step.{when}", step] = times
        self._fresh_crashes.add((f"step.{when}", step))

    def replay(self, history: Mapping[str, Any]) -> Run:
        """Replay the history of another run. Return the run when the kit is idle.

        Recorded steps are not run again. The current code runs the other steps. Raise
        ``ConfigurationError`` if the history is invalid.
        """
        run = replay_runs.begin(history)
        self.run_until_idle()
        run.refresh_from_db()
        return run

    def stub(self, step: str, result: Any) -> Stub:
        """Replace a step's body: return ``result``, or raise it if it is an exception.

        A callable is called with the body's arguments. A non-empty list or tuple has
        one result per call. The returned stub counts its ``calls``.
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
        """Save an error of the test, to raise it after the attempt."""
        self._errors.append(error)
        return error

    def _failed(self, error: BaseException) -> None:
        """Save the error of a body, unless a stub raised it."""
        stubbed = any(
            error is raised for stub in self._stubs.values() for raised in stub.raised
        )
        if self._propagates and not stubbed and not isinstance(error, StepError):
            self._errors.append(error)

    def _raise_first(self) -> None:
        found, self._errors = self._errors, []
        if found:
            raise found[0]

    def _check_used(self) -> None:
        """Raise or warn if stubs or crashes were never used."""
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
    """Ignores notifications, since the kit checks for work itself."""

    manual_clock = True

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    def notify(self, queue: str, work: int) -> None:
        """Do nothing."""

    def notify_at(self, moment: datetime, queue: str) -> None:
        """Do nothing."""

    def run_pending(self) -> bool:
        """Execute pending work. Return whether there was any."""
        return self._kit.run_until_idle() > 0
