"""What ``run.explain()`` says of a run that is not queued."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run, Step
from durable_jobs.queries import live_waits
from durable_jobs.testing import Kit
from tests.admin.conftest import make_runs, make_steps

pytestmark = pytest.mark.django_db


def start(kit: Kit, body: Any, data: Any = None, **options: Any) -> Run:
    run = durable.function(id=f"tests.{body.__name__}", **options)(body).enqueue(data)
    kit.run_until_idle()
    return run


def test_sleeping_run_names_its_step_and_the_time(durable_kit: Kit) -> None:
    def nap(ctx: Any) -> None:
        ctx.step.sleep("settle", "2h")

    run = start(durable_kit, nap)
    due = Step.objects.get().due_at
    assert due is not None
    found = run.explain()
    assert found.state == "waiting"
    assert str(found) == (
        f"The run is waiting. Sleeping in 'settle' until {due.isoformat()}."
    )
    assert found.waits == [f"Sleeping in 'settle' until {due.isoformat()}"]


def test_wait_for_an_event_names_the_value_and_the_deadline(durable_kit: Kit) -> None:
    def pay(ctx: Any) -> None:
        ctx.step.wait_for_event(
            "paid", "shop/paid", match="data.order.id", timeout="3d"
        )

    run = start(durable_kit, pay, {"order": {"id": 4711}})
    due = Step.objects.get().due_at
    assert due is not None
    assert run.explain().waits == [
        f"Waiting in 'paid' for the event 'shop/paid' with order.id = 4711, until "
        f"{due.isoformat()}"
    ]
    (hidden,) = live_waits.live_state(run, values=False).waits
    assert "4711" not in live_waits.as_text(hidden)


def test_next_attempt_of_a_step_names_its_error(durable_kit: Kit) -> None:
    def broken() -> None:
        raise KeyError("GBP")

    def price(ctx: Any) -> None:
        ctx.step.run("price", broken)

    run = start(durable_kit, price, retries=1, backoff=durable.Backoff.fixed("10m"))
    (text,) = run.explain().waits
    assert text.startswith("Next attempt of 'price' at ")
    assert text.endswith(", after KeyError")


def test_next_attempt_of_a_function_names_its_error(durable_kit: Kit) -> None:
    def careless(ctx: Any) -> None:
        raise LookupError("nothing there")

    run = start(durable_kit, careless, backoff=durable.Backoff.fixed("10m"))
    found = run.explain()
    assert found.state == "delayed"
    assert str(found).startswith("The next attempt starts at ")
    assert str(found).endswith(", after LookupError.")


def test_many_waits_are_counted_by_kind(durable_kit: Kit) -> None:
    def many(ctx: Any) -> None:
        naps = [lambda n=n: ctx.step.sleep(f"nap {n}", "1h") for n in range(2)]
        events = [
            lambda n=n: ctx.step.wait_for_event(f"event {n}", "shop/paid")
            for n in range(3)
        ]
        ctx.step.parallel("all", naps + events)

    found = start(
        durable_kit, many, cancel_on=durable.CancelOn("shop/stopped")
    ).explain()
    assert str(found) == "The run is waiting. 5 waits: 3 events, 2 sleeps."
    assert len(found.waits) == 5


def test_executing_run_names_the_innermost_open_steps(durable_kit: Kit) -> None:
    run = make_runs(1, status="running", ended_at=None, worker="web:1")[0]
    assert str(run.explain()) == "The run is running. Executing on worker 'web:1'."
    (ended,) = make_steps(run, 1)
    assert "; step 'step 0' ended at " in str(run.explain())
    ended.delete()
    outer, inner = make_steps(run, 2, status="running", ended_at=None, output=None)
    Step.objects.filter(pk=inner.pk).update(parent=outer)
    assert str(run.explain()) == (
        "The run is running. Executing 'step 1' on worker 'web:1'."
    )


def test_paused_run_gives_the_reason(durable_kit: Kit) -> None:
    run = make_runs(1, status="paused", ended_at=None, reason="look first")[0]
    assert str(run.explain()) == "The run is paused: look first"


def test_waits_beyond_the_maximum_are_not_read(
    durable_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(ctx: Any) -> None:
        naps = [lambda n=n: ctx.step.sleep(f"nap {n}", "1h") for n in range(6)]
        ctx.step.parallel("all", naps)

    run = start(durable_kit, many)
    monkeypatch.setattr(live_waits, "MAX_WAITS", 4)
    assert str(run.explain()) == "The run is waiting. 4+ waits: 4 sleeps."
