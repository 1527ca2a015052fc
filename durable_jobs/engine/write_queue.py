"""Database calls of branch threads, made by the thread that began the attempt.

One connection writes everything, in one order. Records that are queued at the same time
share one commit: while a commit waits for the disk, further records queue up.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from durable_jobs.engine import scope
from durable_jobs.engine.scope import Scope
from durable_jobs.engine.suspend import BranchDiscarded, engine_writes
from durable_jobs.store.steps import StepRecord

T = TypeVar("T")

WriteRecords = Callable[[Sequence[StepRecord]], None]


class _QueuedWrite:
    """A call to make or a step to record, for the branch ``scope``."""

    def __init__(self, scope: Scope, work: Callable[[], Any] | StepRecord) -> None:
        self.scope = scope
        self.work = work
        self.future: Future[Any] = Future()


def _make(call: Callable[[], T]) -> T:
    with engine_writes():
        return call()


class WriteQueue:
    """The database calls that the branches of one attempt queue.

    ``write_records`` writes steps in one commit.
    """

    def __init__(self, write_records: WriteRecords) -> None:
        self.closed = False
        self._write_records = write_records
        self._thread = threading.get_ident()
        self._queued: queue.SimpleQueue[_QueuedWrite | None] = queue.SimpleQueue()

    @property
    def on_own_thread(self) -> bool:
        """Return whether the caller is in the thread that makes the calls."""
        return threading.get_ident() == self._thread

    def write(self, call: Callable[[], T]) -> T:
        """Make a database call in the queue's thread; return its result."""
        if self.on_own_thread:
            _check_alive(scope.current_scope())
            return _make(call)
        result: T = self._enqueue(call, scope.current_scope())
        return result

    def record(self, step_record: StepRecord, branch: Scope) -> None:
        """Record a step in the queue's thread; return after the commit."""
        if self.on_own_thread:
            _check_alive(branch)
            _make(lambda: self._write_records([step_record]))
        else:
            self._enqueue(step_record, branch)

    def record_together(
        self, writes: Sequence[tuple[StepRecord, Scope]]
    ) -> list[BaseException | None]:
        """Record steps in one commit, in the queue's thread; return their errors."""
        assert self.on_own_thread
        group = [_QueuedWrite(branch, step_record) for step_record, branch in writes]
        if group:
            self._make_group(group)
        return [write.future.exception() for write in group]

    def _enqueue(self, work: Callable[[], Any] | StepRecord, branch: Scope) -> Any:
        write = _QueuedWrite(branch, work)
        self._queued.put(write)
        if self.closed:
            self.close()
        return write.future.result()

    def serve(self, done: Callable[[], bool]) -> None:
        """Make queued calls until ``done`` returns true."""
        while not done():
            for group in self._groups(self._queued.get()):
                self._make_group(group)

    def _groups(self, first: _QueuedWrite | None) -> list[list[_QueuedWrite]]:
        """Empty the queue, in order; consecutive records are one group."""
        groups: list[list[_QueuedWrite]] = []
        write = first
        while True:
            if write is not None:
                together = isinstance(write.work, StepRecord) and groups
                if together and isinstance(groups[-1][0].work, StepRecord):
                    groups[-1].append(write)
                else:
                    groups.append([write])
            try:
                write = self._queued.get_nowait()
            except queue.Empty:
                return groups

    def _make_group(self, group: list[_QueuedWrite]) -> None:
        """Make one call, or record steps in one commit; set the futures."""
        # Checked this late: an earlier write may have decided the parallel step.
        alive = [write for write in group if write.scope.alive]
        for write in group:
            if write not in alive:
                write.future.set_exception(BranchDiscarded())
        if not alive:
            return
        step_records = [
            write.work for write in alive if isinstance(write.work, StepRecord)
        ]
        work = alive[0].work
        call = work if callable(work) else lambda: self._write_records(step_records)
        try:
            result = _make(call)
        except BaseException as error:  # noqa: BLE001  # raised in the thread of the branch
            for write in alive:
                write.future.set_exception(error)
        else:
            for write in alive:
                write.future.set_result(result)

    def wake(self) -> None:
        """Make ``serve`` call ``done`` again."""
        self._queued.put(None)

    def close(self) -> None:
        """Reject queued and later calls with ``BranchDiscarded``."""
        self.closed = True
        while True:
            try:
                write = self._queued.get_nowait()
            except queue.Empty:
                return
            if write is not None:
                write.future.set_exception(BranchDiscarded())


def _check_alive(branch: Scope) -> None:
    if not branch.alive:
        raise BranchDiscarded
