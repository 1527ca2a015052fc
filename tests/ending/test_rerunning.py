"""Rerunning: as a new run, from a step, with other data, or in bulk."""

from __future__ import annotations

from datetime import datetime

import pytest
from django.db.models import TextField
from django.db.models.functions import Cast

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.models import Tenant


@pytest.fixture
def calls() -> list[str]:
    """Return the list of bodies that were called."""
    return []


@pytest.fixture
def work(durable_kit: Kit, calls: list[str]) -> durable.Function:
    """Declare a function of three steps."""

    @durable.function(id="work", on=durable.Event("a/work"), version="1", retries=0)
    def work(ctx):
        def body(name: str) -> str:
            calls.append(name)
            return f"{name} {ctx.event.data.get('n')}"

        found = [ctx.step.run(name, body, name) for name in ("one", "two", "three")]
        if ctx.event.data.get("fail"):
            raise ValueError("no")
        return found

    return work


def test_rerun_is_a_new_run_of_the_same_event(
    durable_kit: Kit, work: durable.Function, calls: list[str]
) -> None:
    event_id = durable_kit.send("a/work", {"n": 5}, v="2")
    durable_kit.run_until_idle()
    run = Run.objects.get()
    durable_kit.advance("1h")
    again = run.rerun()
    assert again != run
    assert (again.status, again.data, again.parent) == ("queued", {"n": 5}, run)
    assert again.event_id == event_id
    durable_kit.run_until_idle()
    again.refresh_from_db()
    assert again.result() == ["one 5", "two 5", "three 5"]
    assert calls == ["one", "two", "three"] * 2
    run.refresh_from_db()
    assert run.ended_at == run.queued_at


def test_rerun_may_have_other_data(durable_kit: Kit, work: durable.Function) -> None:
    run = work.enqueue({"n": 5, "fail": True}).wait(timeout=10)
    assert run.status == "failed"
    again = run.rerun(data={"n": 6}).wait(timeout=10)
    assert again.result() == ["one 6", "two 6", "three 6"]
    assert run.rerun(data={}).wait(timeout=10).result()[0] == "one None"


@pytest.mark.parametrize(
    ("from_step", "expected"),
    [
        ("one", ["one", "two", "three"]),
        ("two", ["two", "three"]),
        ("three", ["three"]),
    ],
)
def test_rerun_copies_the_steps_before_the_chosen_one(
    durable_kit: Kit,
    work: durable.Function,
    calls: list[str],
    from_step: str,
    expected: list[str],
) -> None:
    run = work.enqueue({"n": 5}).wait(timeout=10)
    calls.clear()
    again = run.rerun(from_step=from_step).wait(timeout=10)
    assert calls == expected
    assert again.result() == run.result()
    assert again.steps.count() == 3


def test_rerun_from_a_step_may_have_other_data(
    durable_kit: Kit, work: durable.Function
) -> None:
    run = work.enqueue({"n": 5}).wait(timeout=10)
    again = run.rerun(from_step="two", data={"n": 6}).wait(timeout=10)
    assert again.result() == ["one 5", "two 6", "three 6"]


def test_unknown_step_is_refused_with_the_existing_ones(
    durable_kit: Kit, work: durable.Function
) -> None:
    run = work.enqueue().wait(timeout=10)
    with pytest.raises(durable.ConfigurationError) as caught:
        run.rerun(from_step="tow")
    message = str(caught.value)
    assert "'tow'" in message
    assert "'one', 'three', 'two'" in message
    assert Run.objects.count() == 1


@pytest.mark.parametrize("wrong", [[1], "text", {"x": object()}, {"x": float("nan")}])
def test_wrong_data_is_refused(
    durable_kit: Kit, work: durable.Function, wrong: dict[str, object]
) -> None:
    run = work.enqueue().wait(timeout=10)
    with pytest.raises(durable.PayloadError, match="'work'"):
        run.rerun(data=wrong)
    assert Run.objects.count() == 1


def test_run_of_a_removed_function_cannot_be_rerun(durable_kit: Kit) -> None:
    with Kit(now=durable_kit.now()):
        gone = durable.function(id="gone")(lambda ctx: None)
        run = gone.enqueue()
    with pytest.raises(durable.UnknownFunction, match="'gone'"):
        run.rerun()
    with pytest.raises(durable.UnknownFunction, match="'gone'"):
        run.redrive()


def test_skipped_run_can_be_rerun(durable_kit: Kit) -> None:
    trigger = durable.Event("a/b", if_=lambda event: event.data["missing"])
    durable.function(id="picky", on=trigger)(lambda ctx: ctx.event.data["n"])
    durable_kit.send("a/b", {"n": 5})
    skipped = Run.objects.get(status="skipped")
    assert skipped.rerun().wait(timeout=10).result() == 5


def test_rerun_uses_the_stored_data(durable_kit: Kit) -> None:
    look = durable.function(
        id="look", cancel_on=durable.CancelOn("a/stop", match="data.tenant")
    )(lambda ctx: [ctx.event.data["when"], ctx.event.data["tenant"].name])
    tenant = Tenant.objects.create(name="Ada")
    run = look.enqueue({"tenant": tenant, "when": durable_kit.now()})
    durable_kit.run_until_idle()
    assert run.rerun().wait(timeout=10).result() == [durable_kit.now(), "Ada"]
    tenant.delete()
    # Its data refers to a deleted object: the new run fails as the old one would.
    gone = Run.objects.get(pk=run.pk).rerun()
    stored = Run.objects.values_list(Cast("data", TextField()), flat=True)
    assert len(set(stored)) == 1
    assert gone.cancel() is True
    assert gone.redrive() is True


def test_live_run_can_be_rerun_beside_itself(
    durable_kit: Kit, work: durable.Function
) -> None:
    run = work.enqueue({"n": 1})
    again = run.rerun()
    durable_kit.run_until_idle()
    assert Run.objects.filter(status="completed").count() == 2
    assert again.parent == run


def test_parallel_step_can_be_rerun_from_inside_a_branch(durable_kit: Kit) -> None:
    calls: list[str] = []

    @durable.function(id="fan")
    def fan(ctx):
        def branch(name):
            ctx.step.run(f"{name} first", lambda: calls.append(f"{name} first"))
            return ctx.step.run(f"{name} second", lambda: calls.append(name) or name)

        ctx.step.run("before", lambda: calls.append("before"))
        found = ctx.step.map("all", branch, ["a", "b"])
        with ctx.step.group("end"):
            ctx.step.run("after", lambda: calls.append("after"))
        return found

    run = fan.enqueue().wait(timeout=10)
    assert run.result() == ["a", "b"]
    calls.clear()
    again = run.rerun(from_step="b second").wait(timeout=10)
    assert again.result() == ["a", "b"]
    assert calls == ["b", "after"]
    calls.clear()
    run.rerun(from_step="after").wait(timeout=10)
    assert calls == ["after"]


def test_copied_child_run_is_not_invoked_again(durable_kit: Kit) -> None:
    child = durable.function(id="child")(lambda ctx: ctx.event.data["n"])

    @durable.function(id="parent")
    def parent(ctx):
        first = ctx.step.invoke("call", child, {"n": 1})
        return [first, ctx.step.run("last", lambda: 2)]

    run = parent.enqueue().wait(timeout=10)
    again = run.rerun(from_step="last").wait(timeout=10)
    assert again.result() == [1, 2]
    assert Run.objects.filter(function="child").count() == 1


def test_rerun_of_a_queryset_reruns_many_runs(
    durable_kit: Kit, work: durable.Function
) -> None:
    for number in range(3):
        work.enqueue({"n": number, "fail": number == 1})
    durable_kit.run_until_idle()
    again = Run.objects.filter(status="failed").rerun()
    assert [run.data["n"] for run in again] == [1]
    assert len(Run.objects.filter(function="work").rerun()) == 4
    assert Run.objects.count() == 8


def queued(kit: Kit, work: durable.Function) -> list[datetime]:
    """Queue one run an hour, of which the second fails; return the times."""
    moments = []
    for number in range(4):
        moments.append(kit.now())
        work.enqueue({"n": number, "fail": number == 1})
        kit.advance("1h")
    return moments


def test_replay_runs_a_stretch_of_time_again(
    durable_kit: Kit, work: durable.Function
) -> None:
    other = durable.function(id="other")(lambda ctx: None)
    other.enqueue()
    moments = queued(durable_kit, work)
    again = durable.replay(work, since=moments[1], until=moments[3])
    assert [run.data["n"] for run in again] == [1, 2]
    assert {run.status for run in again} == {"queued"}
    durable_kit.run_until_idle()
    assert len(durable.replay(work, until=moments[1])) == 1
    assert len(durable.replay(other)) == 1


def test_replay_can_choose_by_status(durable_kit: Kit, work: durable.Function) -> None:
    moments = queued(durable_kit, work)
    failed = durable.replay(work, moments[0], statuses=["failed"])
    assert [run.data["n"] for run in failed] == [1]
    ended = durable.replay(work, statuses=(Run.Status.COMPLETED, "failed"))
    assert len(ended) == 4


def test_replay_refuses_invalid_times_and_statuses(
    durable_kit: Kit, work: durable.Function
) -> None:
    with pytest.raises(durable.ConfigurationError, match="since"):
        durable.replay(work, since=datetime(2026, 1, 1))  # noqa: DTZ001  # wrong on purpose
    with pytest.raises(durable.ConfigurationError, match="until"):
        durable.replay(work, until="yesterday")
    for wrong in (["faild"], "failed"):
        with pytest.raises(durable.ConfigurationError) as caught:
            durable.replay(work, statuses=wrong)
        assert "'completed'" in str(caught.value)
    assert not Run.objects.exists()
