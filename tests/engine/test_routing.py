"""Matching of events with waits: in pages, within a budget, by an index."""

from __future__ import annotations

import itertools
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pytest_django import Settings

from durable_jobs import clock, durable, notifier
from durable_jobs.engine.suspend import SimulatedCrash
from durable_jobs.events import routing, wait_matches
from durable_jobs.expressions import compile_expression
from durable_jobs.expressions.equalities import equalities
from durable_jobs.lifecycle import condition_keys
from durable_jobs.models import Event, Run, Wait
from durable_jobs.serialization.match_keys import leaf_keys
from durable_jobs.testing import Kit


@pytest.fixture
def waiting(durable_kit: Kit) -> list[Run]:
    """Return runs that wait for one event each, by a condition that no index covers."""

    @durable.function(id="waits")
    def waits(ctx):
        return ctx.step.wait_for_event(
            "w", "a/come", if_="event.data.n >= async.data.n"
        ).data["n"]

    runs = [waits.enqueue({"n": n}) for n in range(10)]
    durable_kit.run_until_idle()
    return runs


def woken() -> int:
    return Run.objects.exclude(status="waiting").count()


def test_event_is_matched_to_many_waits_in_several_turns(
    durable_kit: Kit, waiting: list[Run], settings: Settings
) -> None:
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MATCH_BUDGET": 4}
    event = durable_kit.send("a/come", {"n": 0})
    found = []
    for _ in range(3):
        assert Event.objects.get(pk=event).pending
        routing.route_pending()
        found.append(woken())
    assert found == [4, 8, 10]
    row = Event.objects.get(pk=event)
    assert not row.pending


def test_rest_of_an_event_notifies_the_default_queue(
    durable_kit: Kit,
    waiting: list[Run],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MATCH_BUDGET": 4}
    event = durable_kit.send("a/come", {"n": 10})
    notified: list[str] = []
    monkeypatch.setattr(notifier, "notify", notified.append)
    for _ in range(3):
        routing.route_pending()
    assert not Event.objects.get(pk=event).pending
    assert notified == ["default", "default"]


def test_progress_of_an_event_is_shown(
    durable_kit: Kit, waiting: list[Run], settings: Settings, admin_client: Any
) -> None:
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MATCH_BUDGET": 4}
    event = durable_kit.send("a/come", {"n": 0})
    routing.route_pending()
    text = "4 conditions were evaluated. The router continues in its next round."
    assert text in str(Run.objects.get(pk=waiting[-1].pk).explain())
    page = admin_client.get(f"/admin/durable_jobs/event/{event}/change/")
    assert text in page.content.decode()
    durable_kit.run_until_idle()
    assert str(waiting[-1].explain()) == "The run is completed."


def test_waits_that_begin_between_two_turns_are_for_later_events(
    durable_kit: Kit, waiting: list[Run], settings: Settings
) -> None:
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MATCH_BUDGET": 4}
    durable_kit.send("a/come", {"n": 0})
    routing.route_pending()
    late = durable.function(id="late")(
        lambda ctx: ctx.step.wait_for_event("w", "a/come")
    ).enqueue()
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MATCH_BUDGET": 1000}
    durable_kit._serve("default")
    durable_kit.run_until_idle()
    assert Run.objects.get(pk=late.pk).status == "waiting"
    assert Run.objects.filter(status="completed").count() == 10


def test_later_event_of_the_name_does_not_overtake(
    durable_kit: Kit, waiting: list[Run], settings: Settings
) -> None:
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MATCH_BUDGET": 4}
    durable_kit.send("a/come", {"n": 0})
    durable_kit.send("a/come", {"n": -1})
    durable_kit.run_until_idle()
    assert {Run.objects.get(pk=run.pk).result() for run in waiting} == {0}


def test_pages_are_transactions_of_their_own(
    durable_kit: Kit, waiting: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "PAGE", 3)
    written = []
    original = routing._apply
    monkeypatch.setattr(
        routing,
        "_apply",
        lambda event, acts, progress: (
            written.append(len(acts)),
            original(event, acts, progress),
        )[1],
    )
    durable_kit.send("a/come", {"n": 5})
    routing.route_pending()
    assert written == [0, 1, 3, 1]
    assert woken() == 5


@pytest.mark.parametrize("crash", range(1, 5))
def test_crash_between_two_pages_loses_and_duplicates_nothing(
    durable_kit: Kit,
    waiting: list[Run],
    monkeypatch: pytest.MonkeyPatch,
    crash: int,
) -> None:
    monkeypatch.setattr(routing, "PAGE", 3)
    passed = itertools.count(1)

    def hit(name: str, detail: str = "") -> None:
        if name == "route.committed" and next(passed) == crash:
            raise SimulatedCrash

    with monkeypatch.context() as patch:
        patch.setattr(routing, "failpoint", hit)
        durable_kit.send("a/come", {"n": 0})
        with pytest.raises(SimulatedCrash):
            routing.route_pending()
    durable_kit.run_until_idle()
    assert [Run.objects.get(pk=run.pk).result() for run in waiting] == 10 * [0]
    assert not Event.objects.filter(pending=True).exists()


def test_match_by_another_router_is_not_repeated(
    durable_kit: Kit, waiting: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    durable_kit.send("a/come", {"n": 0})
    event = Event.objects.get()
    judge = routing._evaluate

    def judged(*args: Any) -> Any:
        result = judge(*args)
        monkeypatch.setattr(routing, "_evaluate", judge)
        routing.route_pending()  # another event, sent meanwhile
        return result

    monkeypatch.setattr(routing, "_evaluate", judged)
    held: set[str] = set()
    routing._route_one(event, held, clock.monotonic() + 9)
    assert held == {"a/come"}
    durable_kit.run_until_idle()
    assert [Run.objects.get(pk=run.pk).result() for run in waiting] == 10 * [0]


@pytest.mark.parametrize(
    "condition",
    [
        "event.data.id == async.data.id",
        "async.data.id == event.data.id && async.data.n > 0",
        "(async.data.n > 9 || true) && event.data.id==async.data.id",
    ],
)
def test_equality_in_a_condition_uses_the_index(
    durable_kit: Kit, monkeypatch: pytest.MonkeyPatch, condition: str
) -> None:
    waits = durable.function(id="waits")(
        lambda ctx: ctx.step.wait_for_event("w", "a/come", if_=condition).data["n"]
    )
    runs = [waits.enqueue({"id": n}) for n in range(10)]
    durable_kit.run_until_idle()
    assert not Wait.objects.filter(match="").exists()
    evaluated = []
    meets = wait_matches.meets
    monkeypatch.setattr(
        wait_matches, "meets", lambda *args: evaluated.append(1) or meets(*args)
    )
    durable_kit.send("a/come", {"id": 3, "n": 1})
    durable_kit.run_until_idle()
    assert len(evaluated) == 1
    assert Run.objects.get(status="completed").pk == runs[3].pk


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("event.data.a == async.data.b", [(("data", "a"), ("data", "b"))]),
        ("async.data.b == event.data.a", [(("data", "a"), ("data", "b"))]),
        ("event.data.a == async.data.b || true", []),
        ("true ? event.data.a == async.data.b : true", []),
        ("!(event.data.a == async.data.b)", []),
        ("(event.data.a == async.data.b) == false", []),
        ("event.data.a == async.data.b + 1", []),
        ("event.data.a != async.data.b", []),
        ("event.data.a == event.data.b", []),
        ('async.data.s == "event.data.a == async.data.b && x"', []),
        (
            "event.data.a == async.data.a && event.data.b == async.data.b",
            [(("data", "a"), ("data", "a")), (("data", "b"), ("data", "b"))],
        ),
    ],
)
def test_equality_is_indexed_only_if_it_must_hold(condition: str, found: Any) -> None:
    assert list(equalities(condition, "event", "async")) == found


VALUES: list[Any] = [
    *(1, 1.0, 0, -0.0, True, False, "1", "", "x", None, 2**53, 2**60, 1e20, 10**20),
    *(Decimal("1"), Decimal("1.50"), 1.5, [1], {"a": 1}),
    *(UUID(int=7), str(UUID(int=7)), timedelta(seconds=1)),
]


def test_index_loses_no_event() -> None:
    text = "event.data.x == async.data.x"
    condition = compile_expression(
        text, variables=("event", "async"), where="here", condition=True
    )
    for own, other in itertools.product(VALUES, VALUES):
        key = condition_keys.key_of(text, {"x": own})
        event = {"data": {"x": other}}
        holds = condition.test({"event": {"data": {"x": own}}, "async": event})
        if holds and key:
            assert key in (leaf_keys(event) or set()), (own, other)


def test_cancelling_event_uses_the_index_of_its_condition(durable_kit: Kit) -> None:
    cancel = durable.CancelOn("a/stop", if_="event.data.id == async.data.id")
    waits = durable.function(id="waits", cancel_on=cancel)(
        lambda ctx: ctx.step.sleep("s", "1h")
    )
    runs = [waits.enqueue({"id": n}) for n in range(3)]
    durable_kit.run_until_idle()
    assert not Wait.objects.filter(kind="cancel", match="").exists()
    durable_kit.send("a/stop", {"id": 1})
    durable_kit.run_until_idle()
    assert Run.objects.get(status="cancelled").pk == runs[1].pk


def test_progress_of_a_newer_release_is_read() -> None:
    event = Event(routing={"after": 3, "failed": [1], "of a newer version": True})
    assert routing.Progress.of(event) == routing.Progress(after=3, failed=(1,))
