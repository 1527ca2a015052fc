"""Why a run waits: limit, key, runs with slots, position, an estimate."""

from __future__ import annotations

from datetime import timedelta

from durable_jobs import durable
from durable_jobs.models import Run
from tests.flow_control.conftest import Diary


def run(n: int) -> Run:
    """Return the run of work ``n``."""
    return Run.objects.get(data__n=n)


def test_new_run_explains_that_it_waits_for_flow_control(diary: Diary) -> None:
    diary.work(concurrency=1)
    diary.send(0)
    assert run(0).explain().state == "arriving"
    diary.kit.run_until_idle()


def test_run_that_any_worker_may_take(diary: Diary) -> None:
    diary.work()
    diary.sends(3)
    found = run(2).explain()
    assert (found.state, found.ahead) == ("ready", 2)
    assert "'default', behind 2 others" in str(found)
    diary.kit.run_until_idle()


def test_run_that_ended(diary: Diary) -> None:
    diary.work(rate_limit=durable.RateLimit(1, "1h"))
    diary.sends(2)
    diary.kit.run_until_idle()
    assert str(run(0).explain()) == "The run is completed."
    assert run(1).explain().state == "skipped"
    assert "rate limit" in run(1).explain().text


def test_delayed_run(diary: Diary) -> None:
    work = diary.work(concurrency=1)
    moment = diary.kit.now() + timedelta(hours=1)
    found = work.using(run_after=moment).enqueue({"n": 0}).explain()
    assert (found.state, found.estimate) == ("delayed", moment)
    diary.kit.advance("1h")


def test_run_at_a_full_limit(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(2, key="event.data.tenant", of="runs"))
    diary.sends(5, tenant="acme", nap="10m")
    diary.kit.run_until_idle()
    found = run(4).explain()
    assert found.state == "blocked"
    assert (found.control, found.key, found.limit, found.ahead) == (
        "concurrency", "acme", 2, 2
    )  # fmt: skip
    assert found.holders == [str(run(0).pk), str(run(1).pk)]
    assert found.estimate is None
    assert 'concurrency 2 for key "acme" of flow.work is reached' in str(found)
    diary.kit.advance("10m")
    later = run(4).explain()
    assert later.ahead == 0
    assert later.estimate == diary.kit.now() + timedelta(minutes=5)
    diary.kit.advance("1h")


def test_account_is_named_where_the_limit_is_shared(diary: Diary) -> None:
    shared = durable.Concurrency(1, key="'k'", scope="account", of="runs")
    diary.work("flow.one", concurrency=shared, on=durable.Event("one"))
    diary.work("flow.two", concurrency=shared, on=durable.Event("two"))
    diary.kit.send("one", {"n": 1, "nap": "1h"})
    diary.kit.run_until_idle()
    diary.kit.send("two", {"n": 2})
    diary.kit.run_until_idle()
    found = run(2).explain()
    assert "of the account is reached" in str(found)
    assert found.holders == [str(run(1).pk)]
    diary.kit.advance("1h")


def test_throttled_run_explains_when_it_starts(diary: Diary) -> None:
    diary.work(throttle=durable.Throttle(6, "1m", burst=2))
    diary.sends(5)
    diary.kit.run_until_idle()
    for n, seconds in ((2, 10), (3, 20), (4, 30)):
        found = run(n).explain()
        assert found.state == "throttled"
        assert found.estimate == diary.began + timedelta(seconds=seconds)
        assert found.ahead == n - 2
    diary.kit.advance("1m")
    assert diary.times == [0, 0, 10, 20, 30]


def test_orderings_and_singletons_name_the_live_run(diary: Diary) -> None:
    diary.work("flow.o", ordering="event.data.k", on=durable.Event("o"))
    diary.work(
        "flow.s", singleton=durable.Singleton(mode="queue"), on=durable.Event("s")
    )
    for n, name in enumerate("ooss"):
        diary.kit.send(name, {"n": n, "k": "key", "nap": "1h"})
    diary.kit.run_until_idle()
    for waiting, live, control in ((1, 0, "ordering"), (3, 2, "singleton")):
        found = run(waiting).explain()
        assert found.control == control
        assert found.limit == 1
        assert found.holders == [str(run(live).pk)]
    diary.kit.advance("5h")


def test_position_is_counted_up_to_a_thousand(diary: Diary) -> None:
    from tests.flow_control.conftest import EVENT

    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.send(-1, nap="1d")
    diary.kit.send_many(durable.NewEvent(EVENT, {"n": n}) for n in range(1100))
    diary.kit.run_until_idle()
    found = run(1099).explain()
    assert found.ahead == 1000
    assert "1,000 or more others" in str(found)
    Run.objects.all().delete()


def test_estimate_uses_only_runs_with_the_same_key(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, key="event.data.tenant", of="runs"))
    diary.sends(2, tenant="slow", nap="20m")
    diary.send(7, tenant="fast", nap="1m")
    diary.kit.run_until_idle()
    diary.kit.advance("20m")
    diary.send(8, tenant="slow", nap="20m")
    diary.kit.run_until_idle()
    found = run(8).explain()
    assert found.estimate == diary.kit.now() + timedelta(minutes=20)
    diary.kit.advance("2h")
    diary.sends(2, tenant="fast", nap="1d")
    diary.kit.run_until_idle()
    assert Run.objects.filter(status="queued").get().explain().estimate is None
