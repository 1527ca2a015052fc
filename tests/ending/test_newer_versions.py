"""A run that needs a newer version of the package waits for workers that have it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.definitions import operations as ops
from durable_jobs.engine import newer_version
from durable_jobs.engine.step_runner import KINDS
from durable_jobs.maintenance import doctor
from durable_jobs.models import Run, SweepError
from durable_jobs.queries.overview import overview
from durable_jobs.serialization import decoding
from durable_jobs.store import claim_exclusions, leases
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db


@contextmanager
def earlier_release(
    *, tags: tuple[str, ...] = ("decimal",), kinds: tuple[type, ...] = ()
) -> Iterator[None]:
    """Make this process a release that lacks these tags and step kinds."""
    readers = {tag: decoding._READERS.pop(tag) for tag in tags}
    plans = {kind: KINDS.pop(kind) for kind in kinds}
    newer_version.kinds.cache_clear()
    try:
        yield
    finally:
        decoding._READERS.update(readers)
        KINDS.update(plans)
        newer_version.kinds.cache_clear()


def priced(calls: list[Any]) -> durable.Function:
    @durable.function(id="shop.price")
    def price(ctx):
        found = ctx.step.run("price", lambda: Decimal("1.5"))
        ctx.step.sleep("night", "1h")
        calls.append(ctx.step.run("double", lambda: found * 2))
        return "done"

    return price


def approved(calls: list[Any]) -> durable.Function:
    @durable.function(id="shop.approve")
    def approve(ctx):
        ctx.step.wait_for_signal("go", "go", timeout="1h")
        calls.append("on")
        return "done"

    return approve


LACKS: list[Any] = [(priced, {}), (approved, {"kinds": (ops.WaitForSignal,)})]


@pytest.mark.parametrize(("deploy", "lacks"), LACKS, ids=["tag", "kind"])
def test_run_continues_in_a_worker_of_the_newer_version(
    deploy: Any, lacks: dict[str, Any]
) -> None:
    calls: list[Any] = []
    with Kit() as new:
        run = deploy(calls).enqueue()
        new.run_until_idle()
        now = new.now()
    run.refresh_from_db()
    claims = run.claim_count
    with Kit(now=now) as old, earlier_release(**lacks):
        deploy(calls)
        old.advance("2h")
        run.refresh_from_db()
        assert (run.status, run.attempt, run.lease_token) == ("queued", 0, None)
        assert (run.claim_count, run.crash_count) == (claims, 0)
        assert calls == []
        now = old.now()
    with Kit(now=now) as new:
        deploy(calls)
        new.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "done"
    assert len(calls) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_input_with_an_unknown_tag_is_kept_and_not_retried(
    is_async: bool,
) -> None:
    def deploy() -> durable.Function:
        if is_async:

            async def pay(ctx):
                return ctx.event.data["price"]
        else:

            def pay(ctx):
                return ctx.event.data["price"]

        return durable.function(id="shop.pay")(pay)

    with Kit() as new:
        run = deploy().enqueue({"price": Decimal("2.5")})
        now = new.now()
    with Kit(now=now) as old, earlier_release():
        deploy()
        old.advance("1d")
        run.refresh_from_db()
        assert (run.status, run.attempt, run.claim_count) == ("queued", 0, 0)
        now = old.now()
    with Kit(now=now) as new:
        deploy()
        new.run_until_idle()
    run.refresh_from_db()
    assert run.result() == Decimal("2.5")


@pytest.mark.parametrize("is_async", [False, True])
def test_batched_event_with_an_unknown_tag_is_left(is_async: bool) -> None:
    def deploy() -> durable.Function:
        if is_async:

            async def total(ctx):
                return sum(one.data["price"] for one in ctx.events)
        else:

            def total(ctx):
                try:
                    return sum(one.data["price"] for one in ctx.events)
                except BaseException:  # noqa: BLE001  # as code that catches too much
                    return "swallowed"

        batch = durable.Batch(2, timeout="1m")
        return durable.function(id="shop.total", on=durable.Event("sold"), batch=batch)(
            total
        )

    with Kit() as new:
        deploy()
        new.send("sold", {"price": 1})
        new.send("sold", {"price": Decimal("2.5")})
        now = new.now()
    with Kit(now=now) as old, earlier_release():
        deploy()
        old.advance("1h")
        run = Run.objects.get()
        assert (run.status, run.attempt) == ("queued", 0)
        now = old.now()
    with Kit(now=now) as new:
        deploy()
        new.run_until_idle()
    run.refresh_from_db()
    assert run.result() == Decimal("3.5")


def test_user_of_an_event_with_an_unknown_tag_is_left() -> None:
    def deploy() -> durable.Function:
        return durable.function(id="shop.who", on=durable.Event("who"))(
            lambda ctx: ctx.event.user["share"]
        )

    with Kit() as new:
        deploy()
        new.send("who", {}, user={"share": Decimal("0.5")})
        now = new.now()
    with Kit(now=now) as old, earlier_release():
        deploy()
        old.run_until_idle()
        run = Run.objects.get()
        assert run.status == "queued"
        now = old.now()
    with Kit(now=now) as new:
        deploy()
        new.run_until_idle()
    run.refresh_from_db()
    assert run.result() == Decimal("0.5")


def test_strings_like_tags_are_no_tags() -> None:
    looks = {"text": '{"$durable":"later","value":1}', "$durable": "later"}
    with Kit() as kit:

        @durable.function(id="shop.echo")
        def echo(ctx):
            ctx.step.run("one", lambda: looks)
            ctx.step.sleep("night", "1h")
            return ctx.step.run("two", lambda: ctx.event.data)

        run = echo.enqueue(looks)
        kit.advance("2h")
        run.refresh_from_db()
        assert run.result() == looks


def test_claims_pass_over_the_run_for_a_while_and_over_no_other() -> None:
    with Kit() as kit:
        function = priced([])
        left = function.enqueue()
        kit.run_until_idle()
        Run.objects.filter(pk=left.pk).update(status="queued")
        other = function.enqueue()
        claim_exclusions.exclude_run(left.pk, function.id)
        assert [run.pk for run in leases.claim("default", 10, "w")] == [other.pk]
        kit.travel_to(kit.now() + timedelta(seconds=61), run=False)
        assert [run.pk for run in leases.claim("default", 10, "w")] == [left.pk]


def test_claims_skip_a_function_with_many_such_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claim_exclusions, "MOST_RUNS", 2)
    with Kit():
        function = priced([])
        for run in [function.enqueue() for _ in range(4)][:3]:
            claim_exclusions.exclude_run(run.pk, function.id)
        assert claim_exclusions.excluded_functions() == ["shop.price"]
        assert leases.claim("default", 10, "w") == []


def test_run_that_needs_a_newer_version_is_reported_after_unknown_after(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="durable_jobs")
    with Kit() as new:
        run = priced([]).enqueue()
        new.run_until_idle()
        now = new.now()

    def told() -> tuple[list[str], list[str]]:
        found = doctor.examine().findings
        assert not [one for one in found if one.problem and one.check != "tick"]
        return (
            [e for one in found if one.check == "newer-version" for e in one.examples],
            [one.name for one in overview().attention if one.what == "newer-version"],
        )

    with Kit(now=now) as old, earlier_release():
        priced([])
        old.advance("1h")
        for _ in range(9):
            old.advance("1m")
        assert told() == ([], [])
        assert run.explain().state == "newer-version"
        assert "has the tag 'decimal'" in run.explain().text
        for _ in range(3):
            old.advance("1m")
        (example,), names = told()
        assert example == f"{run.pk}: the result of step 'price' has the tag 'decimal'"
        assert names == ["shop.price"]
        said = [r for r in caplog.records if "needs a newer version" in r.getMessage()]
        assert len(said) == 1
        now = old.now()
    with Kit(now=now) as new:
        priced([])
        new.run_until_idle()
        assert told() == ([], [])
        new.advance("2d")
        assert not SweepError.objects.exists()


def test_run_that_was_paused_during_the_claim_stays_paused() -> None:
    with Kit() as new:
        run = priced([]).enqueue()
        new.run_until_idle()
        now = new.now()
    with Kit(now=now) as old, earlier_release():
        priced([])
        assert run.pause("a person")
        old.advance("2h")
        run.refresh_from_db()
        assert (run.status, run.reason, run.lease_token) == ("paused", "a person", None)
