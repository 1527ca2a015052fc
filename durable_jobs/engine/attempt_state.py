"""One attempt of one run: its memos, and every write it makes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from django.db import IntegrityError

from durable_jobs import clock, ids, serialization
from durable_jobs.conf import settings
from durable_jobs.definitions.function import Function
from durable_jobs.engine import scope, time_limits
from durable_jobs.engine.scope import Scope
from durable_jobs.engine.suspend import BranchDiscarded, Suspend, is_over
from durable_jobs.engine.write_queue import Handover
from durable_jobs.exceptions import (
    ConfigurationError,
    LimitExceeded,
    NonDeterminismError,
)
from durable_jobs.models import Run
from durable_jobs.signals import announce, step_changed
from durable_jobs.statuses import RunStatus, StepStatus
from durable_jobs.store import connection_state, db, runs, steps
from durable_jobs.store.connection_state import Guard
from durable_jobs.store.leases import LeaseLost
from durable_jobs.store.runs import SuspendedStep
from durable_jobs.store.steps import StepRecord

T = TypeVar("T")


def stored_bytes(text: str | None) -> int:
    """Return how many bytes a text takes where it is stored."""
    if text is None:
        return 0
    return len(text) if text.isascii() else len(text.encode())


class AttemptState:
    """What an attempt knows and writes. Writes are made by the thread that began it.

    ``parked`` holds the steps whose waits are written together with the suspension,
    ``notes`` the records that ride with the next write.
    """

    def __init__(
        self,
        run: Run,
        function: Function,
        memos: dict[str, StepRecord],
        *,
        threads: int,
        lost: Callable[[], bool] = lambda: False,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        assert run.lease_token is not None
        self.run = run
        self.function = function
        self.memos = memos
        self.threads = threads
        self.lost = lost
        self.stopping = stopping
        self.lease = (run.pk, run.lease_token)
        self.deferred_records: list[StepRecord] = []
        self.suspended_steps: list[SuspendedStep] = []
        self.post_commit_checks: list[Callable[[], None]] = []
        self.move_to_queue: str | None = None
        self.requeue = False
        self.progress = 0
        self.waited = False
        self.paused = False
        self.diverged: NonDeterminismError | None = None
        self.abort_error: BaseException | None = None
        self.met: set[str] = set()
        self.replay_position = -1
        self.bytes = sum(stored_bytes(memo.output) for memo in memos.values())
        self._position = max((memo.position for memo in memos.values()), default=-1)
        self._last_loaded = self._position
        self._handover = Handover(self._record)
        #: How the connections of its thread were before user code ran.
        self.guard = Guard()
        self._lock = threading.Lock()
        #: The bytes of steps that are about to be recorded together, by key.
        self._wanted: dict[str, int] = {}

    @property
    def limited(self) -> bool:
        """Tell whether the attempt holds slots, one for each step at the same time."""
        return self.run.requeue_to is not None

    # Looking

    def replay(self, key: str, name: str, kind: str) -> StepRecord | None:
        """Return what is recorded under a key; raise when it is of another kind."""
        if self.diverged is not None:
            raise self.diverged  # the function has caught it, and goes on
        memo = self.memos.get(key)
        if memo is None:
            return None
        if memo.kind != kind:
            msg = (
                f"Step {name!r} of {self.run.function} is recorded as {memo.kind!r}, "
                f"and the code now has it as {kind!r}. Give the new step another id, "
                f"or keep the old one for runs in flight with ctx.patched()."
            )
            self.diverged = NonDeterminismError(msg)
            raise self.diverged
        with self._lock:
            self.met.add(key)
            self.replay_position = max(self.replay_position, memo.position)
        return memo

    def meet_below(self, *keys: str) -> None:
        """Take note that the answers of steps stand for all that is below them."""
        with self._lock:
            for memo in self._tree(keys):
                self.met.add(memo.key)
                self.replay_position = max(self.replay_position, memo.position)

    def _tree(self, keys: Iterable[str]) -> list[StepRecord]:
        """Return what is recorded of steps and of all that is below them."""
        memos = list(self.memos.values())
        level = [memo for key in keys if (memo := self.memos.get(key)) is not None]
        found = []
        while level:
            found += level
            parents = {ids.step_pk(self.run.pk, memo.key) for memo in level}
            level = [memo for memo in memos if memo.parent in parents]
        return found

    @property
    def replaying(self) -> bool:
        """Tell whether the code has yet to reach what was recorded last."""
        return self.replay_position < self._last_loaded

    def unreplayed(self) -> list[StepRecord]:
        """Return what is recorded and the code did not meet."""
        return [memo for memo in list(self.memos.values()) if memo.key not in self.met]

    # Beginning

    def begin(self, name: str, queue: str | None = None) -> None:
        """Make sure that a new body may start here and now."""
        self.check_going()
        wanted = queue or self.function.queue
        if self.run.queue != wanted:
            self.move_to_queue = wanted
            raise Suspend

    def check_going(self) -> None:
        """Make sure that the run is still ours, and neither paused nor to be left."""
        self.check_alive()
        if self.paused:
            raise Suspend
        # One that has not got on yet would be handed on for ever.
        if self.stopping() or (self.progress and time_limits.near()):
            self.requeue = True
            raise Suspend

    def end_if_over(self, error: BaseException | None = None) -> None:
        """Raise what has ended the attempt, be it ``error``, again and again."""
        if self.abort_error is None and is_over(error):
            self.abort_error = error
        if self.abort_error is not None:
            raise self.abort_error

    def check_committing(self, name: str) -> None:
        """Raise when the function has a transaction open, which could roll back."""
        around = self.guard.depth(db.alias()) if self.on_own_thread else 0
        if connection_state.depth(db.connection()) > around:
            msg = (
                f"Step {name!r} is called inside a transaction (transaction.atomic(), "
                f"BEGIN or set_autocommit(False)): a rollback would undo its record "
                f"but not what it did. Call it outside, or use ctx.step.atomic()."
            )
            raise ConfigurationError(msg)

    def check_alive(self) -> None:
        """Raise when another worker or a person has taken the run."""
        if self._handover.closed:
            raise BranchDiscarded  # a thread that the attempt has left behind
        if self.lost():
            raise LeaseLost

    def check_room(self, name: str) -> None:
        """Raise when the run has as many steps as it may, without this one."""
        if len(self.memos.keys() | self._wanted.keys()) >= settings.MAX_STEPS:
            msg = (
                f"Run {self.run.pk} of {self.run.function} has {len(self.memos)} "
                f"steps, and step {name!r} is one more: it may have "
                f"{settings.MAX_STEPS} (setting MAX_STEPS)."
            )
            raise LimitExceeded(msg)

    @property
    def on_own_thread(self) -> bool:
        """Tell whether this is the thread that began the attempt."""
        return self._handover.on_own_thread

    def next_position(self) -> int:
        """Return the next place in the order of recording."""
        with self._lock:
            self._position += 1
            return self._position

    def encode(self, value: Any, name: str, *, own: bool = False) -> str:
        """Return a step's result as JSON text, within the limits of the run.

        ``own``: the engine made it, of values that it had accepted.
        """
        text = serialization.dumps(
            value,
            what=f"the result of step {name!r} of run {self.run.pk}",
            limit=settings.MAX_STEP_BYTES,
            limit_setting="MAX_STEP_BYTES",
            own=own,
        )
        total = self.bytes + sum(self._wanted.values()) + stored_bytes(text)
        if total > settings.MAX_RUN_BYTES:
            msg = (
                f"Run {self.run.pk} of {self.run.function} would hold {total} bytes "
                f"with step {name!r}: it may hold {settings.MAX_RUN_BYTES} (setting "
                f"MAX_RUN_BYTES)."
            )
            raise LimitExceeded(msg)
        return text

    # Writing

    def write(self, call: Callable[[], T]) -> T:
        """Make a database call on the thread that began the attempt."""
        return self._handover.write(call)

    def serve(self, done: Callable[[], bool]) -> None:
        """Make the calls that branch threads hand over until ``done``."""
        self._handover.serve(done)

    def nudge(self) -> None:
        """Let ``serve`` ask again whether it is done."""
        self._handover.nudge()

    def close(self) -> None:
        """Refuse what branches that were left behind still hand over."""
        self._handover.close()

    def record(self, memo: StepRecord, place: Scope) -> None:
        """Write a step, and what rides with it; it is durable when this returns.

        Raise BranchDropped when ``place`` is, or is in, a branch that was dropped.
        """
        self._handover.record(memo, place)

    def record_together(
        self, writes: Sequence[tuple[StepRecord, Scope]]
    ) -> list[BaseException | None]:
        """Write the steps of several branches in one commit; return what went wrong.

        On the thread that began the attempt.
        """
        try:
            return self._handover.record_together(writes)
        finally:
            self._wanted.clear()

    def want(self, memo: StepRecord) -> None:
        """Take note of a step that will be recorded together with others."""
        self._wanted[memo.key] = stored_bytes(memo.output)

    def record_with(
        self, effect: Callable[[], StepRecord], *, dropping_waits: bool = False
    ) -> StepRecord:
        """Do something and write the step that it makes, in one transaction."""
        return self.write(lambda: self._record_with(effect, dropping_waits))

    def _record_with(
        self, effect: Callable[[], StepRecord], dropping_waits: bool
    ) -> StepRecord:
        notes = self._take_notes()
        memo, status = steps.record_with(
            self.lease, notes, effect, dropping_waits=dropping_waits
        )
        self.recorded(memo, status)
        return memo

    def go_on(self) -> None:
        """Leave the function after each step, in the mode that tests replay by."""
        if settings.ALWAYS_SUSPEND:
            self.requeue = True
            raise Suspend

    def _record(self, memos: Sequence[StepRecord]) -> None:
        status = steps.record(self.lease, [*self._take_notes(), *memos])
        for memo in memos:
            self.recorded(memo, status)

    def recorded(self, memo: StepRecord, status: str) -> None:
        """Take note of a step that was written, by whatever transaction."""
        memo.input = memo.logs = None  # as a replay has it: they may be large
        self.memos[memo.key] = memo
        self.met.add(memo.key)
        self.replay_position = max(self.replay_position, memo.position)
        self.bytes += stored_bytes(memo.output)
        self.progress += 1
        if status == RunStatus.PAUSED:
            self.paused = True
        self._tell(memo)

    def _tell(self, memo: StepRecord) -> None:
        announce(
            step_changed,
            run_id=self.run.pk,
            function=self.run.function,
            step=memo.name,
            kind=memo.kind,
            status=memo.status,
            attempt=memo.attempt,
        )

    def note(self, memo: StepRecord) -> None:
        """Keep a record to be written with the next step."""
        place = scope.current()
        with self._lock:
            if not place.alive:
                raise BranchDiscarded
            self.memos[memo.key] = memo
            self.met.add(memo.key)
            self.replay_position = max(self.replay_position, memo.position)
            self.deferred_records.append(memo)

    def drop(self, keys: Iterable[str]) -> tuple[list[str], list[SuspendedStep]]:
        """Cancel steps and what is open below them, as far as it is not written yet.

        Return the keys of all these, and what they would have waited for. Their code
        has been told before: it adds nothing more.
        """
        now = clock.now()
        with self._lock:
            gone = {
                memo.key: memo.but(
                    status=StepStatus.CANCELLED, due_at=None, ended_at=now
                )
                for memo in self._tree(keys)
                if not memo.ended
            }
            parked = [item for item in self.suspended_steps if item.memo.key in gone]
            self.suspended_steps = [
                item for item in self.suspended_steps if item.memo.key not in gone
            ]
            unwritten = {memo.key for memo in self.deferred_records}
            unwritten |= {item.memo.key for item in parked}
            self.deferred_records = [
                memo for memo in self.deferred_records if memo.key not in gone
            ]
            self.deferred_records += [gone[key] for key in gone if key in unwritten]
            self.memos.update(gone)
        return list(gone), parked

    def suspend_step(
        self,
        item: SuspendedStep,
        *,
        at_once: bool,
        look: Callable[[], None] | None = None,
    ) -> Suspend:
        """Let a step wait; return what to raise.

        Its waits are written with the suspension. With ``at_once``, those that somebody
        else may end are written now, for other branches may take long until then; a
        time needs no one to know of it before. ``look`` is called after their commit.
        """
        # On the attempt's own thread, also when nothing is written yet: a branch that
        # the others have dropped meanwhile parks nothing.
        self.write(lambda: self._park(item, at_once and item.urgent, look))
        return Suspend()

    def _park(
        self, item: SuspendedStep, now: bool, look: Callable[[], None] | None
    ) -> None:
        if now:
            notes = self._take_notes()
            try:
                status = runs.park_now(self.lease, notes, item)
            except IntegrityError:
                with self._lock:  # refused, and nothing of it written
                    self.deferred_records = [*notes, *self.deferred_records]
                raise
            self.paused = self.paused or status == RunStatus.PAUSED
        else:
            self.suspended_steps.append(item)
        self.memos[item.memo.key] = item.memo
        self.met.add(item.memo.key)
        self.replay_position = max(self.replay_position, item.memo.position)
        self.waited = True
        self._tell(item.memo)
        if look is not None:
            if now:
                look()
            else:
                self.post_commit_checks.append(look)

    def _take_notes(self) -> list[StepRecord]:
        with self._lock:
            notes, self.deferred_records = self.deferred_records, []
        return notes

    def now(self) -> datetime:
        """Return the time."""
        return clock.now()
