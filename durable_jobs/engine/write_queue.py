"""Database calls that branch threads hand to the thread that began the attempt.

One connection, one order of writes. Records that wait at the same time are written
together: while one commit waits for the disk, the next ones gather.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from durable_jobs.engine import scope
from durable_jobs.engine.scope import Scope
from durable_jobs.engine.suspend import BranchDiscarded, own_writes
from durable_jobs.store.steps import StepRecord

T = TypeVar("T")

Record = Callable[[Sequence[StepRecord]], None]


class _Handed:
    """A call to be made, or a step to be recorded, and who asked for it."""

    def __init__(self, place: Scope, what: Callable[[], Any] | StepRecord) -> None:
        self.place = place
        self.what = what
        self.future: Future[Any] = Future()


def _stored(call: Callable[[], T]) -> T:
    with own_writes():
        return call()


class Handover:
    """Where the branches of one attempt leave their calls. ``record`` writes steps."""

    def __init__(self, record: Record) -> None:
        self.closed = False
        self._record = record
        self._thread = threading.get_ident()
        self._calls: queue.SimpleQueue[_Handed | None] = queue.SimpleQueue()

    @property
    def on_own_thread(self) -> bool:
        """Tell whether this is the thread that makes the calls."""
        return threading.get_ident() == self._thread

    def write(self, call: Callable[[], T]) -> T:
        """Make a database call, or have it made, and return its result."""
        if self.on_own_thread:
            _check_alive(scope.current())
            return _stored(call)
        result: T = self._hand(call, scope.current())
        return result

    def record(self, memo: StepRecord, place: Scope) -> None:
        """Record a step, or have it recorded; it is durable when this returns."""
        if self.on_own_thread:
            _check_alive(place)
            _stored(lambda: self._record([memo]))
        else:
            self._hand(memo, place)

    def record_together(
        self, writes: Sequence[tuple[StepRecord, Scope]]
    ) -> list[BaseException | None]:
        """Record steps in one commit, on the own thread; return what went wrong."""
        assert self.on_own_thread
        piece = [_Handed(place, memo) for memo, place in writes]
        if piece:
            self._perform(piece)
        return [handed.future.exception() for handed in piece]

    def _hand(self, what: Callable[[], Any] | StepRecord, place: Scope) -> Any:
        handed = _Handed(place, what)
        self._calls.put(handed)
        if self.closed:
            self.close()
        return handed.future.result()

    def serve(self, done: Callable[[], bool]) -> None:
        """Make what is handed over until ``done``."""
        while not done():
            for handed in self._gathered(self._calls.get()):
                self._perform(handed)

    def _gathered(self, first: _Handed | None) -> list[list[_Handed]]:
        """Return all that waits by now, in order; records in a row are one piece."""
        pieces: list[list[_Handed]] = []
        handed = first
        while True:
            if handed is not None:
                together = isinstance(handed.what, StepRecord) and pieces
                if together and isinstance(pieces[-1][0].what, StepRecord):
                    pieces[-1].append(handed)
                else:
                    pieces.append([handed])
            try:
                handed = self._calls.get_nowait()
            except queue.Empty:
                return pieces

    def _perform(self, piece: list[_Handed]) -> None:
        """Make one call, or record steps; what comes of it goes to whoever asked."""
        # Asked when their turn has come: the others may have decided meanwhile.
        alive = [handed for handed in piece if handed.place.alive]
        for handed in piece:
            if handed not in alive:
                handed.future.set_exception(BranchDiscarded())
        if not alive:
            return
        memos = [handed.what for handed in alive if isinstance(handed.what, StepRecord)]
        what = alive[0].what
        call = what if callable(what) else lambda: self._record(memos)
        try:
            result = _stored(call)
        except BaseException as error:  # noqa: BLE001  # it is raised where it was asked for
            for handed in alive:
                handed.future.set_exception(error)
        else:
            for handed in alive:
                handed.future.set_result(result)

    def nudge(self) -> None:
        """Let ``serve`` ask again whether it is done."""
        self._calls.put(None)

    def close(self) -> None:
        """Refuse what branches that were left behind still hand over."""
        self.closed = True
        while True:
            try:
                handed = self._calls.get_nowait()
            except queue.Empty:
                return
            if handed is not None:
                handed.future.set_exception(BranchDiscarded())


def _check_alive(place: Scope) -> None:
    if not place.alive:
        raise BranchDiscarded
