"""Rate limit: starts above the limit of a window are skipped with a reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import RateLimitHit, Run
from tests.flow_control.conftest import EVENT, Diary, count, reasons, statuses


def test_runs_above_the_limit_are_skipped_and_the_others_start_at_once(
    diary: Diary,
) -> None:
    diary.work(rate_limit=durable.RateLimit(3, "1m"))
    diary.sends(5)
    diary.kit.run_until_idle()
    assert diary.times == [0, 0, 0]
    assert statuses() == ["completed"] * 3 + ["skipped"] * 2


def test_skipped_run_records_the_reason_and_the_next_possible_time(
    diary: Diary,
) -> None:
    diary.work(rate_limit=durable.RateLimit(1, "1m", key="event.data.tenant"))
    moment = diary.kit.now() + timedelta(minutes=1)
    diary.sends(2, tenant="acme")
    diary.kit.run_until_idle()
    assert reasons()[1] == (
        f'rate limit: 1 starts in 1m were reached for key "acme"; the next start '
        f"is accepted at {moment.isoformat()}."
    )
    with pytest.raises(durable.RunCancelled, match="rate limit"):
        Run.objects.get(status="skipped").result()


def test_next_possible_time_is_the_first_that_accepts_a_start(diary: Diary) -> None:
    diary.work(rate_limit=durable.RateLimit(2, "1m"))
    for pause in ("10s", "20s", "0s"):
        diary.send("x")
        diary.kit.advance(pause)
    named = reasons()[2].rpartition(" ")[2].rstrip(".")
    free_at = diary.began + timedelta(minutes=1)
    assert named == free_at.isoformat()
    diary.kit.travel_to(free_at - timedelta(milliseconds=1))
    diary.send("early")
    diary.kit.advance("1ms")
    diary.send("free")
    diary.kit.run_until_idle()
    assert diary.order == ["x", "x", "free"]


def test_sliding_window_never_exceeds_the_limit(diary: Diary) -> None:
    diary.work(rate_limit=durable.RateLimit(2, "10s"))
    for n in range(40):
        diary.send(n)
        diary.kit.advance("1s")
    assert diary.times == [0, 1, 10, 11, 20, 21, 30, 31]


def test_keys_have_separate_limits(diary: Diary) -> None:
    diary.work(rate_limit=durable.RateLimit(1, "1m", key="event.data.tenant"))
    for tenant in ("a", "b", None, 1, "1"):
        diary.sends(2, tenant=tenant)
    diary.kit.run_until_idle()
    assert diary.order == [0] * 5
    assert count("skipped") == 5


@pytest.mark.parametrize("per", ["1ms", 0.001, timedelta(days=366)])
def test_periods_of_a_millisecond_and_of_a_year(diary: Diary, per: Any) -> None:
    diary.work(rate_limit=durable.RateLimit(1, per))
    short = per != timedelta(days=366)
    diary.sends(2)
    diary.kit.advance("1ms" if short else "365d")
    diary.send(2)
    diary.kit.advance("1ms" if short else "1d")
    diary.send(3)
    diary.kit.run_until_idle()
    assert diary.order == ([0, 2, 3] if short else [0, 3])


def test_retries_and_resumes_are_no_starts(diary: Diary) -> None:
    diary.work(rate_limit=durable.RateLimit(1, "1d"))
    diary.send(0, nap="1m")
    diary.kit.crash_at("note", "body")
    diary.kit.advance("1h")
    assert statuses() == ["completed"]


def test_accepted_run_may_be_redriven(diary: Diary) -> None:
    diary.work(rate_limit=durable.RateLimit(1, "1d"))
    diary.send(0, nap="1h")
    diary.kit.run_until_idle()
    run = Run.objects.get()
    run.cancel()
    assert run.redrive()
    diary.kit.advance("1h")
    assert statuses() == ["completed"]


def test_skipped_run_can_be_rerun_when_the_window_allows(diary: Diary) -> None:
    diary.work(rate_limit=durable.RateLimit(1, "1m"))
    diary.sends(2)
    diary.kit.run_until_idle()
    skipped = Run.objects.get(status="skipped")
    assert not skipped.redrive(), "the run never began"
    refused = skipped.rerun()
    diary.kit.advance("1m")
    refused.refresh_from_db()
    assert refused.status == "skipped"
    again = skipped.rerun()
    diary.kit.run_until_idle()
    assert again.wait().status == "completed"


def test_invoke_of_a_skipped_run_raises(diary: Diary) -> None:
    child = diary.work("flow.child", rate_limit=durable.RateLimit(1, "1d"))

    @durable.function(id="flow.parent", retries=0)
    def parent(ctx):
        ctx.step.invoke("first", child)
        try:
            ctx.step.invoke("second", child)
        except durable.InvokeFailed as error:
            return str(error)

    run = parent.enqueue()
    diary.kit.run_until_idle()
    assert "rate limit" in run.wait().result()


def test_run_that_was_skipped_does_not_count(diary: Diary) -> None:
    diary.work(rate_limit=durable.RateLimit(1, "10s"))
    for _ in range(10):
        diary.sends(3)
        diary.kit.advance("5s")
    assert diary.times == [0, 10, 20, 30, 40]


def test_delayed_runs_count_when_they_begin(diary: Diary) -> None:
    work = diary.work(rate_limit=durable.RateLimit(1, "1m"))
    work.using(run_after="1h").enqueue({"n": 1})
    work.enqueue({"n": 0})
    diary.kit.advance("1h")
    assert diary.entries == [(0, 0), (1, 3600)]


def test_outage_accepts_the_starts_of_its_own_windows(diary: Diary) -> None:
    diary.work(rate_limit=durable.RateLimit(1, "10s"))
    for n in range(4):
        diary.send(n)
        diary.kit.advance("5s", run=False)
    diary.kit.advance("1h")
    assert diary.order == [0, 2]
    assert statuses() == ["completed", "skipped", "completed", "skipped"]


def test_start_checked_late_counts_by_its_arrival(
    diary: Diary,
) -> None:
    work = diary.work(rate_limit=durable.RateLimit(2, "10s"))
    diary.sends(2)
    diary.kit.advance("9900ms")
    late = work.enqueue({"n": "late"})
    diary.kit.advance("1100ms", run=False)
    work.using(priority=600).enqueue({"n": "ahead"})
    diary.kit.advance("1h", run=False)
    diary.kit.run_until_idle()
    late.refresh_from_db()
    assert late.status == "skipped", "the window that ends with this start has two"
    assert diary.order == [0, 1, "ahead"]


def test_expired_hits_are_deleted(diary: Diary) -> None:
    diary.work(rate_limit=durable.RateLimit(5, "10s"))
    diary.sends(5)
    diary.kit.run_until_idle()
    assert RateLimitHit.objects.count() == 5
    diary.kit.advance("1h")
    diary.kit.advance("1m")
    assert not RateLimitHit.objects.exists()


def test_concurrent_starts_are_counted_exactly(diary: Diary) -> None:
    diary.work(rate_limit=durable.RateLimit(700, "1m"))
    new = [durable.NewEvent(EVENT, {"n": n}) for n in range(1200)]
    diary.kit.send_many(new)
    from durable_jobs.lifecycle import admission

    admission.admit()
    assert count("skipped") == 500
    assert RateLimitHit.objects.count() == 700
    Run.objects.live().cancel()
