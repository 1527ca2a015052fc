"""Records that branch threads hand over at the same time are written together."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from django.db import OperationalError

from durable_jobs.engine.scope import Scope
from durable_jobs.engine.suspend import BranchDiscarded, DatabaseFailed
from durable_jobs.engine.write_queue import Handover
from durable_jobs.statuses import StepStatus
from durable_jobs.store.steps import StepRecord
from tests.lab.processes import until


def memo(key: str) -> StepRecord:
    return StepRecord(
        key=key, name=key, kind="run", status=StepStatus.COMPLETED, position=0
    )


class Store:
    """Keeps which records were written together, and fails when it is told to."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.failure: Exception | None = None

    def record(self, memos: Sequence[StepRecord]) -> None:
        if self.failure is not None:
            raise self.failure
        self.writes.append([memo.key for memo in memos])


class Branches:
    """Threads that hand something over, all of it before anything is served."""

    def __init__(self, handover: Handover) -> None:
        self.handover = handover
        self.errors: dict[str, BaseException] = {}
        self.threads: list[threading.Thread] = []

    def begin(self, key: str, place: Scope | None = None) -> None:
        """Start a thread that records a step, and wait until its record waits."""

        def work() -> None:
            try:
                self.handover.record(memo(key), place or Scope(concurrent=True))
            except BaseException as error:  # noqa: BLE001  # looked at by the test
                self.errors[key] = error

        self.threads.append(threading.Thread(target=work))
        waiting = self.handover._calls.qsize()
        self.threads[-1].start()
        until(lambda: self.handover._calls.qsize() > waiting, f"the record of {key}")

    def serve(self) -> None:
        """Serve until all threads have ended."""
        self.handover.serve(lambda: not self.handover._calls.qsize())
        for thread in self.threads:
            thread.join()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def branches(store: Store) -> Branches:
    return Branches(Handover(store.record))


def test_records_that_wait_are_one_write(store: Store, branches: Branches):
    for key in ("a", "b", "c"):
        branches.begin(key)
    branches.serve()
    assert store.writes == [["a", "b", "c"]]
    assert branches.errors == {}


def test_a_branch_that_was_dropped_meanwhile_is_left_out(
    store: Store, branches: Branches
):
    loser = Scope(concurrent=True)
    branches.begin("a")
    branches.begin("b", loser)
    loser.dropped = True
    branches.serve()
    assert store.writes == [["a"]]
    assert isinstance(branches.errors["b"], BranchDiscarded)


def test_what_fails_fails_for_all_that_waited(store: Store, branches: Branches):
    store.failure = OperationalError("the connection is gone")
    branches.begin("a")
    branches.begin("b")
    branches.serve()
    assert store.writes == []
    assert {type(error) for error in branches.errors.values()} == {DatabaseFailed}


def test_nothing_is_taken_once_it_is_closed(store: Store, branches: Branches):
    branches.begin("a")
    branches.handover.close()
    for thread in branches.threads:
        thread.join()
    assert store.writes == []
    assert isinstance(branches.errors["a"], BranchDiscarded)
