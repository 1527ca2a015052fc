"""Idempotency: one run for a key in 24 hours; a repeat stores nothing."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from tests.flow_control.conftest import EVENT, Diary, reasons, statuses


def test_repeat_starts_nothing_and_leaves_no_run(diary: Diary) -> None:
    diary.work(idempotency="event.data.order")
    diary.sends(3, order=7)
    diary.kit.run_until_idle()
    assert diary.order == [0]
    assert Run.objects.count() == 1


def test_key_lasts_for_24_hours(diary: Diary) -> None:
    diary.work(idempotency="event.data.order")
    diary.send(0, order=7)
    diary.kit.advance("23h59m")
    diary.send(1, order=7)
    diary.kit.advance("2m")
    diary.send(2, order=7)
    diary.kit.run_until_idle()
    assert diary.order == [0, 2]


def test_keys_differ_by_value_and_type(diary: Diary) -> None:
    diary.work(idempotency="event.data.order")
    for key in [1, "1", True, "true", [1], "x" * 50_000, "x" * 49_999]:
        diary.sends(2, order=key)
    diary.kit.run_until_idle()
    assert len(diary.order) == 7


@pytest.mark.parametrize(
    "key",
    ["event.data.x", "[event.data.x]", "'x-' + string(event.data.x)",
     lambda event: event.data["x"]],
    ids=["value", "list", "text", "callable"],
)  # fmt: skip
def test_keys_beyond_64_bits_differ(diary: Diary, key: Any) -> None:
    diary.work(idempotency=key)
    numbers = [10**20, 10**20 + 1, 1e20, 2**53, 2**53 + 1]
    for n, number in enumerate(numbers):
        diary.send(n, x=number)
    diary.kit.run_until_idle()
    assert diary.order == [0, 1, 3, 4]


def test_condition_that_cannot_be_exact_leaves_a_skipped_run(diary: Diary) -> None:
    diary.work(on=durable.Event(EVENT, if_="event.data.x + 1 > 5"))
    diary.send(0, x=10**20)
    diary.send(1, x=10)
    diary.kit.run_until_idle()
    assert diary.order == [1]
    assert statuses() == ["skipped", "completed"]
    assert "integer beyond 64 bits" in reasons()[0]


def test_null_is_no_key(diary: Diary) -> None:
    diary.work(idempotency="event.data.order")
    diary.send(0)
    diary.send(1, order=None)
    diary.kit.run_until_idle()
    assert diary.order == [0, 1]


def test_first_of_repeats_in_one_send_counts(diary: Diary) -> None:
    diary.work(idempotency="event.data.order")
    diary.kit.send_many(
        durable.NewEvent(EVENT, {"n": n, "order": n % 2}) for n in range(6)
    )
    diary.kit.run_until_idle()
    assert diary.order == [0, 1]


def test_repeated_call_returns_the_existing_run(diary: Diary) -> None:
    work = diary.work(idempotency="event.data.order")
    first = work.enqueue({"n": 0, "order": 7})
    again = work.enqueue({"n": 1, "order": 7})
    assert again.pk == first.pk
    diary.send(2, order=7)
    diary.kit.run_until_idle()
    assert diary.order == [0]


def test_key_lasts_whatever_the_end_of_its_run(diary: Diary) -> None:
    work = diary.work(idempotency="event.data.order")
    work.enqueue({"n": 0, "order": 7}).cancel()
    assert work.enqueue({"n": 1, "order": 7}).status == "cancelled"


def test_send_that_is_rolled_back_takes_no_key(diary: Diary) -> None:
    from django.db import transaction

    diary.work(idempotency="event.data.order")
    with transaction.atomic():
        diary.send(0, order=7)
        transaction.set_rollback(True)
    diary.send(1, order=7)
    diary.kit.run_until_idle()
    assert diary.order == [1]


def test_functions_have_separate_keys(diary: Diary) -> None:
    for name in ("flow.one", "flow.two"):
        diary.work(name, idempotency="event.data.order")
    diary.sends(2, order=7)
    diary.kit.run_until_idle()
    assert diary.order == [0, 0]


def test_reruns_and_redrives_are_no_repeats(diary: Diary) -> None:
    work = diary.work(idempotency="event.data.order")
    run = work.enqueue({"n": 0, "order": 7})
    run.cancel()
    assert run.redrive()
    assert run.rerun().pk != run.pk
    diary.kit.run_until_idle()
    assert diary.order == [0, 0]


def test_failing_key_raises_for_calls_and_skips_for_events(diary: Diary) -> None:
    key: Any = lambda e: e.data["none"]  # noqa: E731  # shared by both ways
    work = diary.work(idempotency=key)
    diary.send(0)
    assert statuses() == ["skipped"]
    assert "flow control failed" in reasons()[0]
    with pytest.raises(durable.ExpressionError):
        work.enqueue({"n": 1})


def test_repeat_is_not_buffered(diary: Diary) -> None:
    diary.work(
        idempotency="event.data.order",
        batch=durable.Batch(2, "1m"),
    )
    diary.sends(3, order=7)
    diary.send(9, order=8)
    diary.kit.run_until_idle()
    assert diary.order == [0]
    assert Run.objects.get().event_meta["buffered"] == 2


def test_repeat_does_not_count_at_the_rate_limit(diary: Diary) -> None:
    diary.work(idempotency="event.data.order", rate_limit=durable.RateLimit(2, "1m"))
    diary.sends(5, order=7)
    diary.send(9, order=8)
    diary.kit.run_until_idle()
    assert diary.order == [0, 9]
