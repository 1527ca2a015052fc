"""Django signals announce every change of state after its commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from django.dispatch import Signal

from durable_jobs import durable, signals
from durable_jobs.models import Run
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db(transaction=True)

Heard = list[dict[str, Any]]


@pytest.fixture
def listen() -> Iterator[Callable[[Signal], Heard]]:
    """Yield a function that connects a receiver for the duration of the test."""
    connected = []

    def listen(signal: Signal) -> Heard:
        heard: Heard = []

        def receiver(sender: object, signal: Signal, **values: Any) -> None:
            assert not transaction.get_connection().in_atomic_block
            heard.append(values)

        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))
        return heard

    yield listen
    for signal, receiver in connected:
        signal.disconnect(receiver)


@pytest.mark.exact("a signal follows its commit, and is lost with the answer")
def test_signals_announce_each_status_of_a_run(
    durable_kit: Kit, listen: Callable[[Signal], Heard]
) -> None:
    created, changed = listen(signals.run_created), listen(signals.run_changed)

    @durable.function(id="nap")
    def nap(ctx):
        ctx.step.sleep("long", "1h")

    run = nap.enqueue()
    durable_kit.advance("2h")
    assert created == [{"run_id": run.pk, "function": "nap", "status": "queued"}]
    assert {(one["run_id"], one["function"]) for one in changed} == {(run.pk, "nap")}
    told = [one["status"] for one in changed]
    assert told == ["running", "waiting", "queued", "running", "completed"]


def test_signals_announce_actions_of_users(
    durable_kit: Kit, listen: Callable[[Signal], Heard]
) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    changed = listen(signals.run_changed)
    run = look.enqueue()
    run.pause("wait")
    run.resume()
    run.cancel("enough")
    run.redrive()
    told = [(one["status"], one["reason"]) for one in changed]
    assert told == [
        ("paused", "wait"), ("queued", ""), ("cancelled", "enough"), ("queued", "")
    ]  # fmt: skip


@pytest.mark.exact("a signal follows its commit, and is lost with the answer")
def test_signals_announce_retries_and_failures(
    durable_kit: Kit, listen: Callable[[Signal], Heard]
) -> None:
    @durable.function(id="fail", retries=1, backoff=durable.Backoff.fixed("1m"))
    def fail(ctx):
        raise ValueError("no")

    changed = listen(signals.run_changed)
    fail.enqueue()
    durable_kit.advance("1h")
    told = [one["status"] for one in changed]
    assert told == ["running", "queued", "running", "failed"]


@pytest.mark.exact("a signal follows its commit, and is lost with the answer")
def test_signals_announce_a_lost_worker(
    durable_kit: Kit, listen: Callable[[Signal], Heard]
) -> None:
    look = durable.function(id="look")(lambda ctx: ctx.step.run("die", lambda: None))
    changed = listen(signals.run_changed)
    durable_kit.crash_at("die")
    look.enqueue()
    durable_kit.advance("2m")
    told = [(one["status"], one["reason"]) for one in changed]
    assert told[:3] == [
        ("running", ""),
        ("queued", "its lease ran out"),
        ("running", ""),
    ]
    assert told[-1] == ("completed", "")


def test_signals_announce_children_and_handlers(
    durable_kit: Kit, listen: Callable[[Signal], Heard]
) -> None:
    child = durable.function(id="child")(lambda ctx: ctx.step.sleep("long", "1d"))

    @durable.function(id="parent", on_cancel=lambda ctx: None)
    def parent(ctx):
        ctx.step.invoke("call", child)

    created, changed = listen(signals.run_created), listen(signals.run_changed)
    run = parent.enqueue()
    durable_kit.run_until_idle()
    changed.clear()
    run.cancel()
    durable_kit.run_until_idle()
    assert [one["function"] for one in created] == [
        "parent", "child", "parent:on_cancel"
    ]  # fmt: skip
    told = {(one["function"], one["status"]) for one in changed}
    assert told == {
        ("parent", "cancelled"),
        ("child", "cancelled"),
        ("parent:on_cancel", "running"),
        ("parent:on_cancel", "completed"),
    }


@pytest.mark.exact("a signal follows its commit, and is lost with the answer")
def test_signals_announce_steps(
    durable_kit: Kit, listen: Callable[[Signal], Heard]
) -> None:
    fails = [ConnectionError("try later")]

    def flaky() -> int:
        if fails:
            raise fails.pop()
        return 1

    @durable.function(id="work")
    def work(ctx):
        ctx.step.run("flaky", flaky, backoff=durable.Backoff.fixed("1m"))
        ctx.step.atomic("write", lambda: 2)
        ctx.step.sleep("nap", "1m")
        ctx.step.wait_for_event("go", "a/go", timeout="1m")

    changed = listen(signals.step_changed)
    run = work.enqueue()
    durable_kit.advance("1h")
    assert all(one["run_id"] == run.pk and one["function"] == "work" for one in changed)
    told = [
        (one["step"], one["kind"], one["status"], one["attempt"]) for one in changed
    ]
    assert told == [
        ("flaky", "run", "scheduled", 1),
        ("flaky", "run", "completed", 1),
        ("write", "atomic", "completed", 0),
        ("nap", "sleep", "sleeping", 0),
        ("nap", "sleep", "completed", 0),
        ("go", "wait_for_event", "waiting", 0),
        ("go", "wait_for_event", "timed_out", 0),
    ]


def test_signals_announce_events(
    durable_kit: Kit, listen: Callable[[Signal], Heard]
) -> None:
    received = listen(signals.event_received)
    event_id = durable_kit.send("a/b")
    assert received == [{"event_id": event_id, "name": "a/b"}]


def test_skipped_runs_are_announced_as_created(
    durable_kit: Kit, listen: Callable[[Signal], Heard]
) -> None:
    trigger = durable.Event("a/b", if_=lambda event: 1 / 0)
    durable.function(id="picky", on=trigger)(lambda ctx: None)
    created = listen(signals.run_created)
    durable_kit.send("a/b")
    assert [one["status"] for one in created] == ["skipped"]


def test_rolled_back_changes_are_not_announced(
    durable_kit: Kit, listen: Callable[[Signal], Heard]
) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    created, received = listen(signals.run_created), listen(signals.event_received)

    class Regret(Exception):
        pass

    with pytest.raises(Regret), transaction.atomic():  # noqa: PT012  # the start is the point
        look.enqueue()
        durable_kit.send("a/b")
        raise Regret
    assert created == received == []


def test_failing_receiver_disturbs_nothing(
    durable_kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    def receiver(**values: Any) -> None:
        raise RuntimeError("a broken receiver")

    look = durable.function(id="look")(lambda ctx: 1)
    signals.run_changed.connect(receiver)
    try:
        with caplog.at_level(logging.ERROR, logger="durable_jobs"):
            assert look.enqueue().wait(timeout=10).result() == 1
    finally:
        signals.run_changed.disconnect(receiver)
    assert "a broken receiver" in caplog.text
    assert Run.objects.get().status == "completed"
