"""Dynamic limits: a callable, or a row that an operator edits."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group

from durable_jobs import durable
from durable_jobs.control import limits as limit_control
from durable_jobs.models import Limit, Run
from tests.flow_control.conftest import Diary, count, reasons, statuses


class Book:
    """Limits by key, which a test changes, and the number of calls."""

    def __init__(self, limit: Any) -> None:
        self.limit = limit
        self.asked: list[Any] = []

    def __call__(self, key: Any) -> Any:
        self.asked.append(key)
        if isinstance(self.limit, Exception):
            raise self.limit
        return self.limit


def test_callable_is_given_the_key(diary: Diary) -> None:
    book = Book(1)
    diary.work(concurrency=durable.Concurrency(book, key="event.data.tenant"))
    for tenant in ("a", None, 7):
        diary.send(1, tenant=tenant)
    diary.kit.run_until_idle()
    assert sorted(map(str, book.asked)) == ["7", "None", "a"]


def test_callable_is_evaluated_once_in_ten_seconds(diary: Diary) -> None:
    book = Book(1)
    diary.work(concurrency=durable.Concurrency(book, of="runs"))
    diary.sends(20, nap="1s")
    diary.kit.advance("9s")
    assert len(book.asked) == 1
    diary.kit.advance("15s")
    assert 2 <= len(book.asked) <= 3
    assert count("completed") == 20


def test_callable_may_query_the_projects_tables(diary: Diary) -> None:
    Group.objects.create(name="acme", pk=2)
    diary.work(
        concurrency=durable.Concurrency(
            lambda key: Group.objects.get(name=key).pk,
            key="event.data.tenant",
            of="runs",
        )
    )
    diary.sends(4, tenant="acme", nap="1h")
    diary.send(9, tenant="nobody")
    diary.kit.run_until_idle()
    assert count("waiting") == 2
    limit_row = Limit.objects.get(key='"nobody"')
    assert limit_row.error.startswith("DoesNotExist: Group matching query")
    assert "DoesNotExist" in str(Run.objects.get(data__n=9).explain())
    Group.objects.create(name="nobody", pk=1)
    diary.kit.advance("1m")
    assert 9 in diary.order
    limit_row.refresh_from_db()
    assert limit_row.error == ""
    diary.kit.advance("3h")


def test_raised_limit_promotes_backlogged_runs(diary: Diary) -> None:
    book = Book(1)
    diary.work(concurrency=durable.Concurrency(book, of="runs"))
    diary.sends(5, nap="1d")
    diary.kit.advance("1m")
    assert len(diary.order) == 1
    book.limit = 4
    diary.kit.advance("30s")
    assert diary.order == [0, 1, 2, 3]
    Run.objects.live().cancel()


def test_lowered_limit_drains(diary: Diary) -> None:
    book = Book(3)
    diary.work(concurrency=durable.Concurrency(book, of="runs"))
    diary.sends(6, nap="10m")
    diary.kit.advance("1m")
    book.limit = 1
    diary.kit.advance("5m")
    assert count("waiting") == 3
    diary.kit.advance("1h")
    assert diary.times == [0, 0, 0, 600, 1200, 1800]


@pytest.mark.parametrize(
    "wrong", [-1, None, "3", True, 2.5, float("nan"), ValueError("no such tenant")]
)
def test_invalid_limit_starts_nothing_and_is_reported(diary: Diary, wrong: Any) -> None:
    book = Book(wrong)
    diary.work(concurrency=durable.Concurrency(book, of="runs"))
    diary.sends(2)
    diary.kit.advance("1m")
    assert diary.order == []
    limit_row = Limit.objects.get(control="concurrency")
    expected = "no such tenant" if isinstance(wrong, Exception) else "a whole number"
    assert expected in limit_row.error
    assert expected in str(Run.objects.first().explain())
    book.limit = 1
    diary.kit.advance("1m")
    assert diary.order == [0, 1]


@pytest.mark.parametrize("wrong", [-1, None, ValueError("away")])
def test_callable_that_fails_later_leaves_the_last_limit(
    diary: Diary, wrong: Any
) -> None:
    book = Book(2)
    diary.work(concurrency=durable.Concurrency(book, of="runs"))
    diary.sends(6, nap="1m")
    diary.kit.run_until_idle()
    book.limit = wrong
    diary.kit.advance("10m")
    assert diary.times == [0, 0, 60, 60, 120, 120]
    assert Limit.objects.get(control="concurrency").error


def test_limit_of_zero_starts_nothing_until_it_grows(diary: Diary) -> None:
    book = Book(0)
    diary.work(concurrency=durable.Concurrency(book))
    diary.sends(2)
    diary.kit.advance("10m")
    assert diary.order == []
    assert Run.objects.first().explain().limit == 0
    book.limit = 1
    diary.kit.advance("1m")
    assert diary.order == [0, 1]


def test_throttle_of_zero_starts_nothing_until_it_grows(diary: Diary) -> None:
    book = Book(0)
    diary.work(throttle=durable.Throttle(book, "1m"))
    diary.sends(2)
    diary.kit.advance("10m")
    assert diary.order == []
    book.limit = 60
    diary.kit.advance("1m")
    diary.kit.advance("1m")
    assert diary.order == [0, 1]
    assert diary.times[1] - diary.times[0] == 1


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2, ["completed", "completed", "skipped"]),
        (0, ["skipped"] * 3),
        (-1, ["skipped"] * 3),
        (ValueError("away"), ["skipped"] * 3),
    ],
)
def test_rate_limit_may_be_a_callable(
    diary: Diary, limit: Any, expected: list[str]
) -> None:
    diary.work(rate_limit=durable.RateLimit(Book(limit), "1m"))
    diary.sends(3)
    diary.kit.run_until_idle()
    assert statuses() == expected
    assert "rate limit" in reasons()[2]


# Operators


def limit_of(control: str = "concurrency") -> Limit:
    """Return the only limit of a control."""
    return Limit.objects.get(control=control)


def test_operator_raises_a_limit_while_runs_are_queued(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(5, nap="1d")
    diary.kit.run_until_idle()
    limit_control.set_limit(limit_of(), 3)
    diary.kit.run_until_idle()
    assert diary.order == [0, 1, 2]
    Run.objects.live().cancel()


def test_operator_lowers_a_limit_and_restores_it(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(2, of="runs"))
    diary.sends(6, nap="10m")
    diary.kit.run_until_idle()
    limit_control.set_limit(limit_of(), 1)
    diary.kit.advance("10m")
    assert diary.times == [0, 0, 600]
    limit_control.set_limit(limit_of(), None)
    diary.kit.run_until_idle()
    assert diary.times == [0, 0, 600, 600]
    diary.kit.advance("1h")


def test_operators_zero_holds_and_precedes_a_callable(diary: Diary) -> None:
    book = Book(5)
    diary.work(concurrency=durable.Concurrency(book, of="runs"))
    diary.send(0)
    diary.kit.run_until_idle()
    limit_control.set_limit(limit_of(), 0)
    diary.send(1)
    diary.kit.advance("1h")
    assert diary.order == [0]
    limit_control.set_limit(limit_of(), 1)
    diary.kit.run_until_idle()
    assert diary.order == [0, 1]


def test_throttle_and_a_rate_limit_can_be_set_too(diary: Diary) -> None:
    diary.work(throttle=durable.Throttle(1, "1h"), on=durable.Event("t"))
    diary.work("flow.r", rate_limit=durable.RateLimit(1, "1h"), on=durable.Event("r"))
    for n in range(3):
        diary.kit.send("t", {"n": n})
        diary.kit.send("r", {"n": n})
    diary.kit.run_until_idle()
    limit_control.set_limit(limit_of("throttle"), 3600)
    limit_control.set_limit(limit_of("rate_limit"), 2)
    diary.kit.send("r", {"n": 9})
    diary.kit.advance("2h")
    assert statuses(function="flow.r") == [
        "completed", "skipped", "skipped", "completed"
    ]  # fmt: skip
    assert count("completed", function="flow.work") == 3


def test_limit_raised_in_the_code_promotes_backlogged_runs(diary: Diary) -> None:
    from durable_jobs.definitions.registry import registry

    for limit in (1, 3):
        registry._functions.pop("flow.work", None)
        diary.work(concurrency=durable.Concurrency(limit, of="runs"))
        if limit == 1:
            diary.sends(4, nap="1d")
        diary.kit.advance("30s")
        assert len(diary.order) == limit
    Run.objects.live().cancel()
