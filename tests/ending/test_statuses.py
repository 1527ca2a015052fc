"""The legal moves between statuses: in the table, the actions and the database."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from durable_jobs import durable
from durable_jobs.models import Run, Step
from durable_jobs.statuses import (
    LIVE,
    REDRIVABLE,
    RUN_MOVES,
    TERMINAL,
    RunStatus,
    sources,
)
from durable_jobs.testing import Kit


def made(kit: Kit, status: str) -> Run:
    """Bring a run into a status by public actions alone."""

    @durable.function(
        id=f"to-{status}",
        retries=0,
        on=durable.Event("to/skip", if_=lambda event: 1 / 0),
    )
    def go(ctx):
        if status == "running":
            ctx.step.run("die", lambda: None)
        if status == "failed":
            raise ValueError("no")
        if status != "completed":
            ctx.step.sleep("long", "1d")

    if status == "skipped":
        kit.send("to/skip")
        return Run.objects.get()
    if status == "running":
        kit.crash_at("die")
    run = go.enqueue()
    if status != "queued":
        kit.run_until_idle()
    if status == "paused":
        run.pause()
    if status == "cancelled":
        run.cancel()
    run.refresh_from_db()
    assert run.status == status
    return run


@pytest.mark.parametrize("status", RunStatus.values)
def test_every_status_is_reached_and_has_its_actions(
    durable_kit: Kit, status: str
) -> None:
    expected = {
        "cancel": status in LIVE,
        "pause": status in LIVE and status != "paused",
        "resume": status == "paused",
        "redrive": status in REDRIVABLE,
    }
    run = made(durable_kit, status)
    for action, answer in expected.items():
        with transaction.atomic():
            assert getattr(run, action)() is answer, action
            assert (run.status == status) is not answer
            transaction.set_rollback(True)
        run.refresh_from_db()
        assert run.status == status
    assert run.is_live is (status in LIVE)
    assert (run.ended_at is not None) is (status in TERMINAL)


def test_table_is_complete() -> None:
    assert set(RUN_MOVES) == set(RunStatus)
    assert set(RunStatus) == LIVE | TERMINAL
    assert not LIVE & TERMINAL
    for status in TERMINAL:
        # Only a redrive leaves a final status.
        expected = {RunStatus.QUEUED} if status in REDRIVABLE else set()
        assert RUN_MOVES[status] == expected
    for status in LIVE:
        assert {RunStatus.CANCELLED, RunStatus.FAILED} <= RUN_MOVES[status]
    assert sources(RunStatus.COMPLETED) == ["running"]
    # A paused run whose attempt is still executing.
    assert sources(RunStatus.RUNNING) == ["paused", "queued"]


def test_database_refuses_unknown_statuses(durable_kit: Kit) -> None:
    run = made(durable_kit, "waiting")
    for status in ("timed_out", "", "COMPLETED"):
        with pytest.raises(IntegrityError), transaction.atomic():
            Run.objects.filter(pk=run.pk).update(status=status)
        with pytest.raises(IntegrityError), transaction.atomic():
            Step.objects.filter(run=run).update(status=f"x{status}")


def test_database_refuses_an_end_without_a_time(durable_kit: Kit) -> None:
    run = made(durable_kit, "waiting")
    for status in TERMINAL:
        with pytest.raises(IntegrityError), transaction.atomic():
            Run.objects.filter(pk=run.pk).update(status=status)
    with pytest.raises(IntegrityError), transaction.atomic():
        Run.objects.filter(pk=run.pk).update(ended_at=durable_kit.now())


def test_live_runs_are_the_same_in_the_database_and_in_python(durable_kit: Kit) -> None:
    runs = {status: made(durable_kit, status) for status in ("waiting", "completed")}
    assert list(Run.objects.live()) == [runs["waiting"]]
