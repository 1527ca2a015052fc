"""Records that branch threads queue at the same time share one commit."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from django.db import OperationalError

from durable_jobs.engine.scope import Scope
from durable_jobs.engine.suspend import BranchDiscarded, DatabaseFailed
from durable_jobs.engine.write_queue import WriteQueue
from durable_jobs.statuses import StepStatus
from durable_jobs.store.steps import StepRecord
from tests.lab.processes import until


def step_record(key: str) -> StepRecord:
    return StepRecord(
        key=key, name=key, kind="run", status=StepStatus.COMPLETED, position=0
    )


class Store:
    """Keeps which records were written together; raises ``failure`` if it is set."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.failure: Exception | None = None

    def record(self, step_records: Sequence[StepRecord]) -> None:
        if self.failure is not None:
            raise self.failure
        self.writes.append([step_record.key for step_record in step_records])


class Branches:
    """Threads that queue records before any of them is served."""

    def __init__(self, queue: WriteQueue) -> None:
        self.queue = queue
        self.errors: dict[str, BaseException] = {}
        self.threads: list[threading.Thread] = []

    def begin(self, key: str, place: Scope | None = None) -> None:
        """Start a thread that records a step; return when the record is queued."""

        def work() -> None:
            try:
                self.queue.record(step_record(key), place or Scope(concurrent=True))
            except BaseException as error:  # noqa: BLE001  # the test asserts it
                self.errors[key] = error

        self.threads.append(threading.Thread(target=work))
        waiting = self.queue._queued.qsize()
        self.threads[-1].start()
        until(lambda: self.queue._queued.qsize() > waiting, f"the record of {key}")

    def serve(self) -> None:
        """Serve until all threads have ended."""
        self.queue.serve(lambda: not self.queue._queued.qsize())
        for thread in self.threads:
            thread.join()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def branches(store: Store) -> Branches:
    return Branches(WriteQueue(store.record))


def test_queued_records_share_one_commit(store: Store, branches: Branches):
    for key in ("a", "b", "c"):
        branches.begin(key)
    branches.serve()
    assert store.writes == [["a", "b", "c"]]
    assert branches.errors == {}


def test_records_of_a_discarded_branch_are_not_written(
    store: Store, branches: Branches
):
    loser = Scope(concurrent=True)
    branches.begin("a")
    branches.begin("b", loser)
    loser.discarded = True
    branches.serve()
    assert store.writes == [["a"]]
    assert isinstance(branches.errors["b"], BranchDiscarded)


def test_failed_commit_raises_for_all_its_records(store: Store, branches: Branches):
    store.failure = OperationalError("the connection is gone")
    branches.begin("a")
    branches.begin("b")
    branches.serve()
    assert store.writes == []
    assert {type(error) for error in branches.errors.values()} == {DatabaseFailed}


def test_closed_queue_rejects_records(store: Store, branches: Branches):
    branches.begin("a")
    branches.queue.close()
    for thread in branches.threads:
        thread.join()
    assert store.writes == []
    assert isinstance(branches.errors["a"], BranchDiscarded)
