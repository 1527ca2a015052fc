"""All writes of one attempt. The thread that began the attempt makes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from django.db import IntegrityError

from durable_jobs import clock
from durable_jobs.engine import scope
from durable_jobs.engine.history import History
from durable_jobs.engine.scope import Scope
from durable_jobs.engine.suspend import BranchDiscarded, Suspend
from durable_jobs.engine.write_queue import WriteQueue
from durable_jobs.models import Run
from durable_jobs.signals import announce, step_changed
from durable_jobs.statuses import RunStatus, StepStatus
from durable_jobs.store import runs, steps
from durable_jobs.store.leases import Lease
from durable_jobs.store.runs import SuspendedStep
from durable_jobs.store.steps import StepRecord

T = TypeVar("T")


class Recorder:
    """Writes step records and suspended steps, and keeps what is written later.

    ``suspended_steps`` are written when the run suspends. ``deferred_records`` are
    written with the next record. ``post_commit_checks`` are called after the run has
    suspended. ``progress`` counts the steps that this attempt recorded.
    """

    def __init__(self, run: Run, lease: Lease, history: History) -> None:
        self.lease = lease
        self.deferred_records: list[StepRecord] = []
        self.suspended_steps: list[SuspendedStep] = []
        self.post_commit_checks: list[Callable[[], None]] = []
        self.progress = 0
        self.waited = False
        self.paused = False
        self._run = run
        self._history = history
        self._queue = WriteQueue(self._record)
        self._lock = threading.Lock()

    # The thread of the attempt

    @property
    def on_own_thread(self) -> bool:
        """Return whether the caller is in the thread that began the attempt."""
        return self._queue.on_own_thread

    @property
    def closed(self) -> bool:
        """Return whether the attempt has ended."""
        return self._queue.closed

    def write(self, call: Callable[[], T]) -> T:
        """Make a database call in the thread that began the attempt."""
        return self._queue.write(call)

    def serve(self, done: Callable[[], bool]) -> None:
        """Make the calls that branch threads queue, until ``done`` returns true."""
        self._queue.serve(done)

    def wake(self) -> None:
        """Make ``serve`` call ``done`` again."""
        self._queue.wake()

    def close(self) -> None:
        """Reject later calls of branch threads that outlast the attempt."""
        self._queue.close()

    # Records

    def record(self, step_record: StepRecord, branch: Scope) -> None:
        """Write a step and the deferred records; return after the commit.

        Raise ``BranchDiscarded`` if ``branch`` was discarded.
        """
        self._queue.record(step_record, branch)

    def record_together(
        self, writes: Sequence[tuple[StepRecord, Scope]]
    ) -> list[BaseException | None]:
        """Write the steps of several branches in one commit; return their errors.

        Only the thread that began the attempt may call this.
        """
        try:
            return self._queue.record_together(writes)
        finally:
            self._history.clear_reserved()

    def record_with(
        self, effect: Callable[[], StepRecord], *, drop_waits: bool = False
    ) -> StepRecord:
        """Call ``effect`` and write the record that it returns, in one transaction."""
        return self.write(lambda: self._record_with(effect, drop_waits))

    def _record_with(
        self, effect: Callable[[], StepRecord], drop_waits: bool
    ) -> StepRecord:
        deferred = self._take_deferred()
        step_record, status = steps.record_with(
            self.lease, deferred, effect, drop_waits=drop_waits
        )
        self.add_written(step_record, status)
        return step_record

    def _record(self, step_records: Sequence[StepRecord]) -> None:
        status = steps.record(self.lease, [*self._take_deferred(), *step_records])
        for step_record in step_records:
            self.add_written(step_record, status)

    def add_written(self, step_record: StepRecord, run_status: str) -> None:
        """Add a record that a transaction has written; ``run_status`` is from there."""
        step_record.input = step_record.logs = (
            None  # a replay has neither; both may be large
        )
        self._history.add(step_record)
        self._history.add_bytes(step_record)
        self.progress += 1
        if run_status == RunStatus.PAUSED:
            self.paused = True
        self._announce(step_record)

    def _announce(self, step_record: StepRecord) -> None:
        announce(
            step_changed,
            run_id=self._run.pk,
            function=self._run.function,
            step=step_record.name,
            kind=step_record.kind,
            status=step_record.status,
            attempt=step_record.attempt,
        )

    def defer(self, step_record: StepRecord) -> None:
        """Keep a record, and write it with the next one."""
        branch = scope.current_scope()
        with self._lock:
            if not branch.alive:
                raise BranchDiscarded
            self._history.add(step_record)
            self.deferred_records.append(step_record)

    def _take_deferred(self) -> list[StepRecord]:
        with self._lock:
            deferred, self.deferred_records = self.deferred_records, []
        return deferred

    def cancel(self, keys: Iterable[str]) -> tuple[list[str], list[SuspendedStep]]:
        """Cancel open steps and their open descendants in memory.

        Return the keys of all these, and the suspended steps among them. Mark their
        branches as discarded before, so that they record nothing more.
        """
        now = clock.now()
        history = self._history
        with self._lock:
            cancelled = {
                step_record.key: step_record.but(
                    status=StepStatus.CANCELLED, due_at=None, ended_at=now
                )
                for step_record in history.tree(keys)
                if not step_record.ended
            }
            suspended = [
                item for item in self.suspended_steps if item.record.key in cancelled
            ]
            self.suspended_steps = [
                item
                for item in self.suspended_steps
                if item.record.key not in cancelled
            ]
            unwritten = {step_record.key for step_record in self.deferred_records}
            unwritten |= {item.record.key for item in suspended}
            self.deferred_records = [
                step_record
                for step_record in self.deferred_records
                if step_record.key not in cancelled
            ]
            self.deferred_records += [
                step_record
                for key, step_record in cancelled.items()
                if key in unwritten
            ]
            history.step_records.update(cancelled)
        return list(cancelled), suspended

    # Suspended steps

    def suspend_step(
        self,
        item: SuspendedStep,
        *,
        at_once: bool,
        check: Callable[[], None] | None = None,
    ) -> Suspend:
        """Suspend a step; return the exception to raise.

        Its waits are written when the run suspends. With ``at_once``, waits that an
        event, a person or another run can end are written now: other branches may
        delay the suspension for long. ``check`` is called after the commit of the
        waits.
        """
        # Always in the attempt's thread: it raises if the branch was discarded.
        self.write(
            lambda: self._suspend_step(item, at_once and item.has_untimed_wait, check)
        )
        return Suspend()

    def _suspend_step(
        self, item: SuspendedStep, now: bool, check: Callable[[], None] | None
    ) -> None:
        if now:
            deferred = self._take_deferred()
            try:
                status = runs.suspend_step(self.lease, deferred, item)
            except IntegrityError:
                with self._lock:  # the transaction wrote nothing
                    self.deferred_records = [*deferred, *self.deferred_records]
                raise
            self.paused = self.paused or status == RunStatus.PAUSED
        else:
            self.suspended_steps.append(item)
        self._history.add(item.record)
        self.waited = True
        self._announce(item.record)
        if check is not None:
            if now:
                check()
            else:
                self.post_commit_checks.append(check)
