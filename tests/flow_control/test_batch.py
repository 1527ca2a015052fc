"""Batch: one run for many events; failed events return, apart from the others."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import BufferedEvent, EventWindow, Run
from tests.flow_control.conftest import EVENT, Diary, count, reasons, statuses


def numbers(ctx: Any) -> list[Any]:
    """Return the numbers of a run's events."""
    return [event.data["n"] for event in ctx.events]


def batching(diary: Diary, act: Any = lambda ctx: None, **declared: Any) -> Any:
    """Declare a batch that records its events and calls ``act``."""
    declared.setdefault("batch", durable.Batch(3, "10s"))

    @durable.function(id="flow.batch", on=durable.Event(EVENT), **declared)
    def batch(ctx):
        ctx.step.run("note", diary.note, numbers(ctx))
        return act(ctx)

    return batch


def test_full_batch_starts_at_once_and_another_after_its_timeout(
    diary: Diary,
) -> None:
    batching(diary)
    diary.sends(7)
    diary.kit.advance("1m")
    assert diary.entries == [([0, 1, 2], 0), ([3, 4, 5], 0), ([6], 10)]
    assert not EventWindow.objects.exists()


def test_timeout_counts_from_the_first_event(diary: Diary) -> None:
    batching(diary)
    for n in range(2):
        diary.send(n)
        diary.kit.advance("6s")
    diary.send(2)
    diary.kit.advance("1m")
    assert diary.entries == [([0, 1], 10), ([2], 22)]


def test_keys_have_separate_batches(diary: Diary) -> None:
    batching(diary, batch=durable.Batch(2, "10s", key="event.data.k"))
    for n, key in enumerate(["a", "b", "a", None, "b", "missing"]):
        diary.send(n, k=key) if key != "missing" else diary.send(n)
    diary.kit.advance("1m")
    assert sorted(diary.order) == [[0, 2], [1, 4], [3, 5]]


def test_event_that_fails_the_condition_has_its_own_run(
    diary: Diary,
) -> None:
    batching(diary, batch=durable.Batch(3, "10s", if_="event.data.small"))
    for n in range(4):
        diary.send(n, small=n != 1)
    diary.kit.run_until_idle()
    assert sorted(diary.order) == [[0, 2, 3], [1]]


def test_condition_that_fails_leaves_a_skipped_run(diary: Diary) -> None:
    batching(diary, batch=durable.Batch(3, "10s", if_=lambda e: e.data["none"]))
    diary.send(1)
    diary.kit.run_until_idle()
    assert statuses() == ["skipped"]
    assert "flow control failed" in reasons()[0]


def test_calls_have_runs_of_their_own(diary: Diary) -> None:
    batch = batching(diary)
    batch.enqueue({"n": 7})
    diary.kit.run_until_idle()
    assert diary.order == [[7]]


def test_first_event_of_a_batch_is_the_event_of_the_run(diary: Diary) -> None:
    batching(diary, lambda ctx: ctx.event.data["n"])
    diary.sends(3)
    diary.kit.run_until_idle()
    assert Run.objects.get().output == 0


def test_thousand_events_at_once_are_batches_of_the_size(diary: Diary) -> None:
    batching(diary, batch=durable.Batch(100, "10s"))
    diary.kit.send_many(durable.NewEvent(EVENT, {"n": n}) for n in range(1050))
    diary.kit.advance("10s")
    assert [len(one) for one in diary.order] == [100] * 10 + [50]
    assert [n for one in diary.order for n in one] == list(range(1050))


def test_event_is_in_one_batch_only_when_workers_die(diary: Diary) -> None:
    batching(diary)
    diary.kit.crash_at("note", "after", times=2)
    diary.sends(6)
    diary.kit.advance("10m")
    assert sorted(diary.order) == [[0, 1, 2], [3, 4, 5]]
    assert count("completed") == 2


# Some events fail


def failing(diary: Diary, bad: set[int], **declared: Any) -> Any:
    """Declare a batch that returns some of its events."""

    def give_back(ctx: Any) -> Any:
        failed = [event.id for event in ctx.events if event.data["n"] in bad]
        return durable.BatchFailures(failed) if failed else "all"

    return batching(diary, give_back, **declared)


def test_failed_events_alone_return_in_their_own_batch(
    diary: Diary,
) -> None:
    bad = {1}
    failing(diary, bad, backoff=durable.Backoff.fixed("1m"))
    diary.sends(3)
    diary.kit.run_until_idle()
    bad.clear()
    diary.sends(2)
    diary.kit.advance("5m")
    assert diary.entries == [([0, 1, 2], 0), ([0, 1], 10), ([1], 60)]
    assert set(statuses()) == {"completed"}


def test_batch_out_of_retries_fails_and_its_handler_starts(
    diary: Diary,
) -> None:
    told: list[Any] = []
    failing(
        diary,
        {1},
        retries=2,
        backoff=durable.Backoff.fixed("1m"),
        on_failure=lambda ctx: told.append(ctx.event.data["error"]["type"]),
    )
    diary.sends(3)
    diary.kit.advance("1h")
    assert diary.entries == [([0, 1, 2], 0), ([1], 60), ([1], 120)]
    failed = Run.objects.get(status="failed")
    assert "3 batches in a row" in failed.error["message"]
    assert failed.buffered_events.get().data == {"n": 1}
    assert told == ["BatchFailed"]


def test_dead_letter_can_be_redriven(diary: Diary) -> None:
    bad = {1}
    failing(diary, bad, retries=0)
    diary.sends(3)
    diary.kit.run_until_idle()
    dead = Run.objects.get(status="failed")
    bad.clear()
    assert dead.redrive()
    assert dead.wait().status == "completed"
    assert diary.order == [[0, 1, 2], [1]]


def test_dead_letters_are_redriven_at_a_rate(diary: Diary) -> None:
    bad = set(range(9))
    failing(diary, bad, retries=0)
    diary.sends(9)
    diary.kit.run_until_idle()
    dead = Run.objects.filter(status="failed")
    assert dead.count() == 3
    bad.clear()
    assert dead.redrive(rate=durable.Throttle(1, "1m")) == 3
    diary.kit.advance("1h")
    assert diary.times == [0, 0, 0, 0, 60, 120]


def test_unknown_ids_in_a_batch_failure_are_reported_and_change_nothing(
    diary: Diary,
) -> None:
    batching(diary, lambda ctx: durable.BatchFailures(["nobody", "é" * 2000]))
    diary.sends(3)
    diary.kit.advance("1h")
    run = Run.objects.get()
    assert run.status == "completed"
    assert "nobody" in run.reason
    assert len(run.reason) <= 1000
    assert run.output["failed"] == []


@pytest.mark.parametrize("wrong", ["id", [7], [None], 5, None])
def test_invalid_list_of_failed_ids_is_refused(wrong: Any) -> None:
    with pytest.raises(durable.ConfigurationError, match="event ids"):
        durable.BatchFailures(wrong)


def test_run_of_one_event_may_return_it_too(diary: Diary) -> None:
    bad = {7}
    batch = failing(diary, bad, backoff=durable.Backoff.fixed("1m"))
    run = batch.enqueue({"n": 7})
    diary.kit.run_until_idle()
    bad.clear()
    diary.kit.advance("1h")
    run.refresh_from_db()
    assert diary.order == [[7], [7]]
    assert run.output["failed"] == [run.event_meta["id"]]


# All events fail


def test_poisonous_event_is_isolated_and_the_others_are_done(diary: Diary) -> None:
    done: list[int] = []

    def act(ctx: Any) -> None:
        if 5 in numbers(ctx):
            raise ValueError("poison")
        done.extend(numbers(ctx))

    told: list[Any] = []
    batching(
        diary,
        act,
        batch=durable.Batch(8, "10s"),
        retries=1,
        backoff=durable.Backoff.fixed("1s"),
        on_failure=lambda ctx: told.append(ctx.event.data["error"]["message"]),
    )
    diary.sends(8)
    diary.kit.advance("1h")
    assert sorted(done) == [0, 1, 2, 3, 4, 6, 7]
    assert told == ["poison"]
    alone = Run.objects.filter(status="failed").order_by("-pk").first()
    assert [one.data["n"] for one in alone.buffered_events.all()] == [5]


def test_batch_that_was_split_is_not_redriven(diary: Diary) -> None:
    def act(ctx: Any) -> None:
        raise ValueError("poison")

    batching(diary, act, retries=0)
    diary.sends(3)
    diary.kit.run_until_idle()
    whole = Run.objects.order_by("pk").first()
    assert "continue in two runs" in whole.reason
    assert whole.redrive() is False
    assert count("failed") == 5


def test_events_that_were_given_back_are_not_rate_limited_again(diary: Diary) -> None:
    bad = {1}
    failing(
        diary,
        bad,
        backoff=durable.Backoff.fixed("1m"),
        rate_limit=durable.RateLimit(1, "1h"),
    )
    diary.sends(3)
    diary.kit.run_until_idle()
    bad.clear()
    diary.kit.advance("10m")
    assert diary.order == [[0, 1, 2], [1]]


def test_batch_of_a_removed_function_waits_for_it(diary: Diary) -> None:
    from durable_jobs.definitions.registry import registry

    batching(diary)
    diary.sends(3)
    function = registry._functions.pop("flow.batch")
    diary.work("flow.other", concurrency=1)
    diary.kit.advance("10m")
    assert BufferedEvent.objects.count() == 3
    registry.add(function)
    diary.kit.advance("2m")
    assert diary.order[-1] == [0, 1, 2]


def test_rows_of_a_pruned_run_are_deleted_with_it(diary: Diary) -> None:
    batching(diary)
    diary.sends(3)
    diary.kit.run_until_idle()
    assert BufferedEvent.objects.count() == 3
    diary.kit.advance("31d")
    assert not Run.objects.exists()
    assert not BufferedEvent.objects.exists()


def test_async_function_reads_the_events_of_its_batch(diary: Diary) -> None:
    """An event loop runs, in which database queries are not allowed."""

    @durable.function(
        id="flow.batch", on=durable.Event(EVENT), batch=durable.Batch(3, "10s")
    )
    async def batch(ctx):
        return numbers(ctx)

    diary.sends(3)
    diary.kit.run_until_idle()

    assert Run.objects.get().result() == [0, 1, 2]
