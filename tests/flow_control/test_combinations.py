"""All controls combine, in one documented order."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from tests.flow_control.conftest import EVENT, Diary, count, reasons, statuses


def everything(**other: Any) -> dict[str, Any]:
    """Return a declaration with nearly every control."""
    return {
        "concurrency": [
            durable.Concurrency(2, key="event.data.tenant", of="runs"),
            durable.Concurrency(3),
        ],
        "throttle": durable.Throttle(60, "1m", burst=4),
        "rate_limit": durable.RateLimit(12, "1h", key="event.data.tenant"),
        "priority": "event.data.p",
        "idempotency": "event.data.once",
        **other,
    }


def test_limits_all_hold_at_the_same_time(diary: Diary) -> None:
    diary.work(**everything())
    for n in range(15):
        for tenant in ("a", "b"):
            diary.send(f"{tenant}{n}", tenant=tenant, once=f"{tenant}{n}", nap="7s")
            diary.send(f"{tenant}{n} again", tenant=tenant, once=f"{tenant}{n}")
    diary.kit.run_until_idle()
    assert count("waiting", data__tenant="a") == 2
    assert count("waiting", data__tenant="b") == 2
    diary.kit.advance("1h")
    assert count("completed") == 24
    assert count("skipped") == 6
    assert Run.objects.count() == 30
    starts = sorted(diary.times)
    assert starts[:5] == [0, 0, 0, 0, 7]
    assert diary.peak <= 3


def test_limits_hold_when_workers_die(diary: Diary) -> None:
    diary.work(**everything())
    diary.kit.crash_at("note", "body", times=3)
    diary.kit.crash_at("end", "after", times=2)
    for n in range(8):
        diary.send(n, tenant="ab"[n % 2], once=n, nap="3s")
    diary.kit.advance("1h")
    assert count("completed") == 8
    assert diary.peak <= 3


def test_idempotency_is_checked_first(diary: Diary) -> None:
    diary.work(idempotency="event.data.k", rate_limit=durable.RateLimit(1, "1h"))
    diary.sends(3, k=1)
    diary.kit.run_until_idle()
    assert statuses() == ["completed"]


def test_events_are_buffered_before_the_rate_limit_counts(diary: Diary) -> None:
    diary.work(
        batch=durable.Batch(5, "1m"),
        rate_limit=durable.RateLimit(2, "1h"),
        concurrency=1,
    )
    diary.sends(15)
    diary.kit.run_until_idle()
    assert statuses() == ["completed", "completed", "skipped"]
    assert diary.order == [0, 5]


def test_debounce_is_over_before_the_throttle_counts(diary: Diary) -> None:
    diary.work(
        debounce=durable.Debounce("10s", key="event.data.k"),
        throttle=durable.Throttle(1, "1m"),
    )
    for n in range(6):
        diary.send(n, k=n % 2)
    diary.kit.advance("10m")
    assert diary.entries == [(4, 10), (5, 70)]


def test_pause_with_skip_is_checked_before_the_rate_limit(diary: Diary) -> None:
    work = diary.work(rate_limit=durable.RateLimit(1, "1h"))
    work.pause(skip=True)
    diary.send(0)
    diary.kit.run_until_idle()
    work.resume()
    diary.send(1)
    diary.kit.run_until_idle()
    assert statuses() == ["skipped", "completed"]
    assert "was paused" in reasons()[0]


def test_start_refused_by_a_rate_limit_cancels_no_singleton(diary: Diary) -> None:
    diary.work(
        rate_limit=durable.RateLimit(1, "1h"),
        singleton=durable.Singleton(mode="cancel"),
    )
    diary.sends(2, nap="1m")
    diary.kit.advance("1m")
    assert statuses() == ["completed", "skipped"]


def test_start_skipped_by_a_singleton_does_not_count_in_the_rate_limit(
    diary: Diary,
) -> None:
    diary.work(rate_limit=durable.RateLimit(2, "1h"), singleton=durable.Singleton())
    diary.sends(5, nap="1m")
    diary.kit.advance("1m")
    diary.send(9)
    diary.kit.run_until_idle()
    assert diary.order == [0, 9]


def test_singleton_that_queues_waits_before_the_throttle(diary: Diary) -> None:
    diary.work(
        singleton=durable.Singleton(mode="queue"),
        throttle=durable.Throttle(1, "1m"),
    )
    diary.sends(3, nap="90s")
    diary.kit.advance("1h")
    assert diary.times == [0, 90, 180]


def test_run_that_waits_for_concurrency_uses_up_no_start_of_a_throttle(
    diary: Diary,
) -> None:
    diary.work(
        concurrency=durable.Concurrency(1, key="event.data.k", of="runs"),
        throttle=durable.Throttle(1, "1m"),
    )
    diary.sends(3, k="busy", nap="1h")
    diary.kit.advance("10m")
    for n in (10, 11):
        diary.send(n, k=f"free {n}")
    diary.kit.advance("5m")
    assert diary.entries == [(0, 0), (10, 600), (11, 660)]
    diary.kit.advance("5h")
    assert [n for n in diary.order if n < 5] == [0, 1, 2]


def test_batch_under_ordering_and_concurrency(diary: Diary) -> None:
    diary.work(
        batch=durable.Batch(2, "1m", key="event.data.k"), ordering="event.data.k"
    )
    for n in range(8):
        diary.send(n, k=n % 2, nap="1m")
    diary.kit.advance("1h")
    assert [n for n in diary.order if n % 2 == 0] == [0, 4]
    assert diary.times == [0, 0, 60, 60]


def test_batch_of_a_singleton_that_cancels(diary: Diary) -> None:
    diary.work(batch=durable.Batch(2, "1m"), singleton=durable.Singleton(mode="cancel"))
    diary.sends(4, nap="1h")
    diary.kit.advance("2h")
    assert statuses() == ["cancelled", "completed"]


@pytest.mark.parametrize(
    "control", ["concurrency", "throttle", "singleton", "ordering"]
)
def test_invoking_run_waits_for_its_childs_limits_and_can_be_cancelled(
    diary: Diary, control: str
) -> None:
    declared: dict[str, Any] = {
        "concurrency": durable.Concurrency(1, of="runs"),
        "throttle": durable.Throttle(1, "10m"),
        "singleton": durable.Singleton(mode="queue"),
        "ordering": lambda e: "k",
    }
    child = diary.work("flow.child", **{control: declared[control]})

    @durable.function(id="flow.parent")
    def parent(ctx):
        return ctx.step.invoke("ask", child, {"n": ctx.event.data["n"], "nap": "10m"})

    runs = [parent.enqueue({"n": n}) for n in range(4)]
    diary.kit.run_until_idle()
    assert len(diary.order) == 1
    runs[1].cancel()
    diary.kit.advance("2h")
    assert diary.order == [0, 2, 3]
    for n in (0, 2, 3):
        runs[n].refresh_from_db()
        assert runs[n].result() == n


@pytest.mark.parametrize("seed", range(3))
def test_bulk_actions_under_load_leave_nothing_behind(diary: Diary, seed: int) -> None:
    import random

    chosen = random.Random(seed)  # noqa: S311  # not for secrets
    diary.work(**everything(idempotency=None, rate_limit=None), retries=1)
    diary.kit.send_many(
        durable.NewEvent(EVENT, {"n": n, "tenant": n % 3, "nap": "20s", "p": n % 5})
        for n in range(30)
    )
    for _ in range(8):
        diary.kit.advance(f"{chosen.randint(1, 20)}s")
        some = list(Run.objects.live().order_by("pk"))
        for run in chosen.sample(some, min(4, len(some))):
            chosen.choice([run.cancel, run.pause, run.resume])()
        ended = Run.objects.filter(status="cancelled").order_by("pk").first()
        if ended is not None:
            chosen.choice([ended.redrive, ended.rerun])()
    for run in Run.objects.filter(status="paused"):
        run.resume()
    diary.kit.advance("1h")
    assert not Run.objects.live().exists()
