"""Debounce: one run after a quiet period, with the latest event or all events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_jobs import durable
from durable_jobs.lifecycle import admission
from durable_jobs.models import BufferedEvent, EventWindow, Run
from durable_jobs.store import event_windows
from tests.flow_control.conftest import EVENT, Diary, reasons, statuses


def test_run_starts_after_the_quiet_period_with_the_latest_event(diary: Diary) -> None:
    diary.work(debounce=durable.Debounce("10s"))
    for n in range(4):
        diary.send(n)
        diary.kit.advance("5s")
    diary.kit.advance("1m")
    assert diary.entries == [(3, 25)]
    assert Run.objects.count() == 1
    assert not BufferedEvent.objects.filter(run__isnull=True).exists()
    assert not EventWindow.objects.exists()


def test_latest_event_has_the_latest_ts_not_the_last_arrival(
    diary: Diary,
) -> None:
    diary.work(debounce=durable.Debounce("10s"))
    now = diary.kit.now()
    for n, hours in enumerate([3, 1, 2]):
        diary.kit.send(EVENT, {"n": n}, ts=now - timedelta(hours=hours))
    diary.kit.advance("1m")
    assert diary.order == [1]


def test_latest_of_two_events_with_one_ts_is_the_last_arrival(diary: Diary) -> None:
    diary.work(debounce=durable.Debounce("10s"))
    for n in range(3):
        diary.kit.send(EVENT, {"n": n}, ts=diary.began)
    diary.kit.advance("1m")
    assert diary.order == [2]


def test_keys_have_separate_quiet_periods(diary: Diary) -> None:
    diary.work(debounce=durable.Debounce("10s", key="event.data.k"))
    for n, key in enumerate(["a", "b", "a", None, "x" * 100_000]):
        diary.send(n, k=key)
        diary.kit.advance("4s")
    diary.kit.advance("1m")
    assert diary.entries == [(1, 14), (2, 18), (3, 22), (4, 26)]


def test_event_never_waits_longer_than_the_timeout(diary: Diary) -> None:
    diary.work(debounce=durable.Debounce("10s", timeout="25s"))
    for n in range(12):
        diary.send(n)
        diary.kit.advance("5s")
    diary.kit.advance("1m")
    assert diary.entries == [(4, 25), (9, 50), (11, 65)]


def test_collect_gives_the_run_all_events(diary: Diary) -> None:
    got: list[Any] = []

    @durable.function(
        id="flow.all",
        on=durable.Event(EVENT),
        debounce=durable.Debounce("10s", collect=True),
    )
    def all_of_them(ctx):
        got.append([event.data["n"] for event in ctx.events])
        got.append(ctx.event.data["n"])
        ctx.step.sleep("nap", "1m")
        got.append([event.data["n"] for event in ctx.events])

    diary.sends(3)
    diary.kit.advance("1h")
    assert got == [[0, 1, 2], 0, [0, 1, 2], 0, [0, 1, 2]]


def test_run_without_collect_has_one_event_in_events_too(diary: Diary) -> None:
    got: list[Any] = []

    @durable.function(
        id="flow.one", on=durable.Event(EVENT), debounce=durable.Debounce("10s")
    )
    def one(ctx):
        got.append([event.data["n"] for event in ctx.events])

    diary.sends(3)
    diary.kit.advance("1h")
    assert got == [[2]]


def test_calls_are_not_debounced(diary: Diary) -> None:
    work = diary.work(debounce=durable.Debounce("10s"))
    work.enqueue({"n": 0})
    work.enqueue({"n": 1})
    diary.kit.run_until_idle()
    assert diary.entries == [(0, 0), (1, 0)]


def test_event_after_the_quiet_period_is_another_run(diary: Diary) -> None:
    diary.work(debounce=durable.Debounce("10s"))
    diary.send(0)
    diary.kit.advance("10s")
    diary.send(1)
    diary.kit.advance("10s")
    assert diary.entries == [(0, 10), (1, 20)]


def test_outage_does_not_join_windows_that_had_closed(diary: Diary) -> None:
    diary.work(debounce=durable.Debounce("10s"))
    for n in range(3):
        diary.send(n)
        diary.kit.advance("11s", run=False)
    diary.kit.run_until_idle()
    diary.kit.advance("1m")
    assert diary.order == [0, 1, 2]


def test_event_with_a_future_ts_waits_until_then(diary: Diary) -> None:
    diary.work(debounce=durable.Debounce("10s"))
    diary.kit.send(EVENT, {"n": 0}, ts=diary.began + timedelta(hours=1))
    diary.send(1)
    diary.kit.advance("2h")
    assert diary.entries == [(1, 10), (0, 3610)]


def test_rolled_back_event_is_not_buffered(diary: Diary) -> None:
    from django.db import transaction

    diary.work(debounce=durable.Debounce("10s"))
    diary.send(0)
    with transaction.atomic():
        diary.send(1)
        transaction.set_rollback(True)
    diary.kit.advance("1m")
    assert diary.order == [0]


def test_repeated_event_id_is_buffered_once(diary: Diary) -> None:
    @durable.function(
        id="flow.all",
        on=durable.Event(EVENT),
        debounce=durable.Debounce("10s", collect=True),
    )
    def all_of_them(ctx):
        diary.note([event.id for event in ctx.events])

    for id in ("a", "b", "a"):
        diary.kit.send(EVENT, {"n": id}, id=id)
    diary.kit.advance("1m")
    diary.kit.send(EVENT, {"n": 1}, id="b")
    diary.kit.advance("1m")
    assert diary.order == [["a", "b"]]


def test_run_fails_and_is_redriven_with_its_events(diary: Diary) -> None:
    broken = [True]

    @durable.function(
        id="flow.all",
        on=durable.Event(EVENT),
        retries=0,
        debounce=durable.Debounce("10s", collect=True),
    )
    def all_of_them(ctx):
        if broken[0]:
            raise ValueError("broken")
        return [event.data["n"] for event in ctx.events]

    diary.sends(3)
    diary.kit.advance("10s")
    run = Run.objects.get()
    assert run.status == "failed"
    broken.clear()
    broken.append(False)
    again = run.rerun()
    assert run.redrive()
    assert run.wait().result() == [0, 1, 2]
    assert again.wait().result() == [0, 1, 2]


def test_key_that_fails_leaves_a_skipped_run_for_each_event(diary: Diary) -> None:
    diary.work(debounce=durable.Debounce("10s", key=lambda e: e.data["none"]))
    diary.sends(2)
    diary.kit.advance("1m")
    assert statuses() == ["skipped"] * 2
    assert "key of its flow control failed" in reasons()[0]


def test_removed_debounce_starts_its_buffered_events(diary: Diary) -> None:
    from durable_jobs.definitions.registry import registry

    diary.work(debounce=durable.Debounce("1h"))
    diary.sends(2)
    diary.kit.run_until_idle()
    registry._functions.pop("flow.work")
    diary.work()
    diary.kit.advance("2h")
    assert sorted(diary.order) == [0, 1]


@pytest.mark.parametrize("period", ["1ms", "366d"])
def test_quiet_of_a_millisecond_and_of_a_year(diary: Diary, period: str) -> None:
    diary.work(debounce=durable.Debounce(period))
    diary.sends(2)
    diary.kit.advance(period)
    assert diary.order == [1]


def collecting(diary: Diary) -> None:
    """Declare work that records the numbers of the events of each run."""

    @durable.function(
        id="flow.all",
        on=durable.Event(EVENT),
        debounce=durable.Debounce("10s", collect=True),
    )
    def all_of_them(ctx):
        diary.note([event.data["n"] for event in ctx.events])


@pytest.mark.parametrize("apart", [False, True])
def test_run_collects_no_more_events_than_a_request_may_have(
    diary: Diary, settings: Any, apart: bool
) -> None:
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MAX_EVENTS": 3}
    collecting(diary)
    for n in range(7):
        diary.send(n)
        if apart:
            diary.kit.advance("1s")
    diary.kit.advance("1m")
    times = [2, 5, 16] if apart else [0, 0, 10]
    assert diary.entries == list(zip([[0, 1, 2], [3, 4, 5], [6]], times, strict=True))
    assert not EventWindow.objects.exists()


def test_events_collected_before_a_lower_limit_are_split(
    diary: Diary, settings: Any
) -> None:
    collecting(diary)
    diary.sends(4)
    diary.kit.run_until_idle()
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MAX_EVENTS": 3}
    diary.send(4)
    diary.kit.advance("1m")
    assert diary.order == [[0, 1, 2], [3], [4]]


def test_events_of_many_keys_are_buffered_in_few_statements(diary: Diary) -> None:
    diary.work(debounce=durable.Debounce("1m", key="event.data.k"))
    for _ in range(2):  # event windows that are opened, and that exist
        diary.kit.send_many([durable.NewEvent(EVENT, {"k": k}) for k in range(300)])
        with CaptureQueriesContext(connection) as made:
            admission.run_rounds()
        assert len(made) < 40
        assert not BufferedEvent.objects.filter(window=None).exists()
    assert list(EventWindow.objects.values_list("size", flat=True)) == [2] * 300


def test_dropped_events_are_not_read(
    diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary.work(debounce=durable.Debounce("10s"))
    for n in range(20):
        diary.send(n, long="x" * 1000)
    diary.kit.run_until_idle()
    read: list[BufferedEvent] = []
    whole = event_windows.events_in

    def inside(window: EventWindow) -> list[BufferedEvent]:
        read.extend(whole(window))
        return read

    monkeypatch.setattr(event_windows, "events_in", inside)
    diary.kit.advance("1m")
    assert diary.order == [19]
    assert len(read) == 1
