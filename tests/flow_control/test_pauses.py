"""Pausing a function, a key or a queue: running work ends, new runs are kept."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_jobs import durable
from durable_jobs.flow_control import pauses
from durable_jobs.lifecycle import admission
from durable_jobs.maintenance import stalled_backlogs, tick
from durable_jobs.models import Backlog, Pause, Run, Slot
from durable_jobs.store import leases
from tests.flow_control.conftest import Diary, count, reasons, statuses


@pytest.mark.parametrize("limited", [False, True])
def test_runs_sent_during_a_pause_are_kept_in_order(
    diary: Diary, limited: bool
) -> None:
    work = diary.work(concurrency=durable.Concurrency(1) if limited else None)
    diary.send(0)
    assert work.pause(reason="the bank is closed")
    diary.sends(3)
    diary.kit.advance("1d")
    assert diary.order == []
    assert "the bank is closed" in str(Run.objects.first().explain())
    assert work.resume()
    diary.kit.run_until_idle()
    assert diary.order == [0, 0, 1, 2]


def test_pause_and_resume_return_whether_they_changed_it(diary: Diary) -> None:
    work = diary.work(concurrency=durable.Concurrency(1, key="event.data.k"))
    assert (work.pause(), work.pause(), work.resume(), work.resume()) == (
        True, False, True, False
    )  # fmt: skip
    assert (work.pause(key=1), work.pause(key=1), work.pause(key="1")) == (
        True, False, True
    )  # fmt: skip
    assert (work.resume(key=1), work.resume(key=1)) == (True, False)
    pause, resume = durable.pause_queue, durable.resume_queue
    assert (pause("q"), pause("q"), resume("q"), resume("q")) == (
        True, False, True, False
    )  # fmt: skip


@pytest.mark.parametrize("limited", [False, True])
def test_runs_that_have_begun_go_on_to_their_end(diary: Diary, limited: bool) -> None:
    work = diary.work(concurrency=1 if limited else None)
    diary.send(0, nap="1h")
    diary.kit.run_until_idle()
    work.pause()
    diary.send(1)
    diary.kit.advance("2h")
    assert statuses() == ["completed", "queued"]
    work.resume()
    diary.kit.run_until_idle()


@pytest.mark.parametrize("limited", [False, True])
def test_pause_with_skip_records_new_runs_as_skipped(
    diary: Diary, limited: bool
) -> None:
    work = diary.work(concurrency=1 if limited else None)
    work.pause(skip=True, reason="Black Friday")
    diary.sends(2)
    diary.kit.advance("1m")
    assert statuses() == ["skipped"] * 2
    assert reasons()[0] == "flow.work was paused: Black Friday"
    work.resume()
    diary.send(9)
    diary.kit.run_until_idle()
    assert diary.order == [9]


def test_paused_key_leaves_the_others_running(diary: Diary) -> None:
    work = diary.work(concurrency=durable.Concurrency(1, key="event.data.tenant"))
    work.pause(key="a")
    for n, tenant in enumerate(["a", "b", "a", None]):
        diary.send(n, tenant=tenant)
    diary.kit.run_until_idle()
    assert diary.order == [1, 3]
    assert Run.objects.get(data__n=0).explain().state == "paused"
    work.resume(key="a")
    diary.kit.run_until_idle()
    assert diary.order == [1, 3, 0, 2]


def test_key_can_be_null_and_any_other_value(diary: Diary) -> None:
    work = diary.work(throttle=durable.Throttle(1, "1s", key="event.data.tenant"))
    for key in (None, 1, "x" * 100_000):
        work.pause(key=key)
        diary.send(key if key != "x" * 100_000 else "long", tenant=key)
    diary.send("1", tenant="1")
    diary.kit.run_until_idle()
    assert diary.order == ["1"]
    for key in (None, 1, "x" * 100_000):
        assert work.resume(key=key)
    diary.kit.run_until_idle()
    assert count("completed") == 4


@pytest.mark.parametrize(
    "value", [uuid.UUID(int=7), Decimal("1.5"), ("a", 1), "x" * 300, {"b": 1, "a": 2}]
)
def test_key_is_paused_by_the_value_that_events_have(diary: Diary, value: Any) -> None:
    limit = durable.Concurrency(1, key=lambda event: event.data["k"])
    work = diary.work(concurrency=limit)
    work.pause(key=value)
    diary.send(0, k=value)
    diary.kit.run_until_idle()
    assert diary.order == []
    assert work.resume(key=value)
    diary.kit.run_until_idle()
    assert diary.order == [0]


def test_invalid_key_cannot_be_paused(diary: Diary) -> None:
    work = diary.work(concurrency=durable.Concurrency(1, key="event.data.k"))
    with pytest.raises(durable.DurableError, match="can be no key"):
        work.pause(key=float("nan"))


def test_paused_key_with_skip_skips_only_its_runs(diary: Diary) -> None:
    work = diary.work(concurrency=durable.Concurrency(1, key="event.data.tenant"))
    work.pause(key="a", skip=True)
    for n, tenant in enumerate("ab"):
        diary.send(n, tenant=tenant)
    diary.kit.run_until_idle()
    assert statuses() == ["skipped", "completed"]
    assert reasons()[0] == 'key "a" of flow.work was paused.'


def test_key_of_a_function_without_keys_is_refused(diary: Diary) -> None:
    work = diary.work(concurrency=1)
    with pytest.raises(durable.ConfigurationError, match="no flow control with a key"):
        work.pause(key="a")


@pytest.mark.parametrize("limited", [False, True])
def test_paused_queue_executes_nothing(diary: Diary, limited: bool) -> None:
    diary.work(concurrency=1 if limited else None, queue="slow")
    diary.work("flow.other")
    durable.pause_queue("slow")
    diary.sends(3)
    diary.kit.advance("1h")
    assert count("completed", function="flow.work") == 0
    assert count("completed", function="flow.other") == 3
    assert Run.objects.get(function="flow.work", data__n=0).explain().state == "paused"
    durable.resume_queue("slow")
    diary.kit.run_until_idle()
    assert count("completed") == 6


def test_paused_queue_saves_up_no_starts_of_a_throttle(diary: Diary) -> None:
    diary.work(throttle=durable.Throttle(1, "1m"))
    durable.pause_queue("default")
    diary.sends(4)
    for _ in range(5):
        diary.kit.advance("5m")
        admission.admit("default", 10)
    durable.resume_queue("default")
    diary.kit.advance("10m")
    assert diary.times == [1500, 1560, 1620, 1680]


def test_run_promoted_before_a_pause_obeys_the_limit_later(
    diary: Diary,
) -> None:
    work = diary.work(concurrency=2)
    diary.sends(6)
    assert admission.admit("default", 10) == 2
    work.pause()
    diary.kit.advance("10m")
    assert diary.order == []
    work.resume()
    diary.kit.run_until_idle()
    assert diary.peak == 2
    assert sorted(diary.order) == list(range(6))


def test_paused_function_leaves_the_budget_of_the_account_to_others(
    diary: Diary,
) -> None:
    shared = durable.Concurrency(1, key="'k'", scope="account", of="runs")
    one = diary.work("flow.one", concurrency=shared, on=durable.Event("one"))
    diary.work("flow.two", concurrency=shared, on=durable.Event("two"))
    one.pause()
    diary.kit.send("one", {"n": 1})
    diary.kit.send("two", {"n": 2})
    diary.kit.run_until_idle()
    assert diary.order == [2]
    one.resume()
    diary.kit.run_until_idle()
    assert diary.order == [2, 1]


def test_events_are_buffered_during_a_pause(diary: Diary) -> None:
    work = diary.work(batch=durable.Batch(2, "1m"))
    work.pause()
    diary.sends(4)
    diary.kit.advance("1h")
    assert diary.order == []
    work.resume()
    diary.kit.run_until_idle()
    assert diary.order == [0, 2]


def test_run_cancelled_during_a_pause_does_not_return(diary: Diary) -> None:
    work = diary.work(concurrency=1)
    plain = diary.work("flow.plain")
    for function in (work, plain):
        function.pause()
    diary.sends(2)
    diary.kit.advance("1m")
    Run.objects.filter(data__n=0).cancel()
    for function in (work, plain):
        function.resume()
    diary.kit.run_until_idle()
    assert diary.order == [1, 1]
    assert not Slot.objects.filter(released_at__isnull=True).exists()


def test_thousands_of_paused_runs_do_not_slow_claims(diary: Diary) -> None:
    from tests.flow_control.conftest import EVENT

    work = diary.work()
    diary.kit.send_many(durable.NewEvent(EVENT, {"n": n}) for n in range(1500))
    work.pause()
    diary.kit.advance("20s")
    assert not Run.objects.filter(status="queued", backlog__isnull=True).exists()
    work.resume()
    # The first runs may be claimed at once, the others after the tick.
    assert 0 < Run.objects.filter(status="queued", backlog__isnull=True).count() < 1500
    stalled_backlogs.sweep()
    assert Run.objects.filter(status="queued", backlog__isnull=True).count() == 1500
    Run.objects.all().delete()


def _queued(diary: Diary, number: int) -> None:
    from tests.flow_control.conftest import EVENT

    diary.kit.send_many(durable.NewEvent(EVENT, {"n": n}) for n in range(number))


def test_pause_and_resume_cost_the_same_for_any_backlog(
    diary: Diary,
) -> None:
    work, counts = diary.work(), []
    for number in (1200, 4800):
        _queued(diary, number)
        with CaptureQueriesContext(connection) as paused:
            work.pause()
        assert Run.objects.filter(backlog__isnull=True).count() == number
        while Run.objects.filter(backlog__isnull=True).exists():
            stalled_backlogs.sweep()
        with CaptureQueriesContext(connection) as resumed:
            work.resume()
        restored = Run.objects.filter(backlog__isnull=True).count()
        counts.append((len(paused), len(resumed), restored))
        Run.objects.all().delete()
        Backlog.objects.all().delete()
    assert counts[0] == counts[1]


def test_runs_do_not_start_while_a_pause_is_applied(
    diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PAUSED_BATCH", 2)
    monkeypatch.setattr(admission, "LONGEST", -1.0)
    work = diary.work()
    _queued(diary, 6)
    work.pause()
    for kept in (0, 2, 4, 6):
        assert Run.objects.filter(backlog__isnull=False).count() == kept
        assert leases.claim("default", 8, "w") == []
        assert tick.pending() >= {"backlogs"} or kept in (0, 6)
        stalled_backlogs.sweep()


def test_function_is_resumed_while_its_pause_is_carried_out(
    diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PAUSED_BATCH", 2)
    monkeypatch.setattr(admission, "LONGEST", -1.0)
    work = diary.work()
    _queued(diary, 6)
    work.pause()
    stalled_backlogs.sweep()
    assert Run.objects.filter(backlog__isnull=False).count() == 2
    work.resume()
    diary.kit.advance("1m")
    assert sorted(diary.order) == list(range(6))


def test_function_may_be_paused_again_during_its_resume(
    diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = diary.work()
    _queued(diary, 6)
    work.pause()
    stalled_backlogs.sweep()
    monkeypatch.setattr(pauses, "RESTORED", 2)
    work.resume()
    work.pause()
    diary.kit.advance("1m")
    assert diary.order == []
    work.resume()
    diary.kit.advance("1m")
    assert sorted(diary.order) == list(range(6))


def test_backlog_missed_by_a_resume_restarts(diary: Diary) -> None:
    work = diary.work(concurrency=durable.Concurrency(1, key="event.data.k"))
    plain = diary.work("flow.plain")
    work.pause()
    plain.pause()
    diary.sends(3, k=1)
    diary.kit.advance("20s")
    assert diary.order == []
    # As if the resume had come while an admission was about to write.
    Pause.objects.all().delete()
    Backlog.objects.update(active=False)
    diary.kit.advance("11s")
    diary.kit.run_until_idle()
    assert sorted(diary.order) == [0, 0, 1, 1, 2, 2]


def test_run_paused_for_two_reasons_is_resumed_at_once(diary: Diary) -> None:
    """An operator pauses it while it diverges, and resumes it after its release."""
    from durable_jobs.definitions.registry import registry

    def declare(kind: str) -> durable.Function:
        @durable.function(id="flow.moved", concurrency=1)
        def work(ctx):
            if kind == "sleep":
                ctx.step.sleep("one", "1h")
            else:
                Run.objects.get(pk=ctx.run_id).pause("an operator's")
                ctx.step.run("one", lambda: None)

        return work

    run = declare("sleep").enqueue()
    diary.kit.run_until_idle()
    registry._functions.pop("flow.moved")
    declare("run")
    diary.kit.advance("2h")
    run.refresh_from_db()
    assert (run.status, run.reason) == ("paused", "an operator's")
    assert run.lease_token is None
    assert not Slot.objects.filter(released_at=None).exists()
