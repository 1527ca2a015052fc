"""Priority: seconds by which a run precedes others in its backlog."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from tests.flow_control.conftest import Diary, count


def test_higher_priority_goes_first_in_the_backlog(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"), priority="event.data.p")
    diary.send("first", p=0, nap="1m")
    diary.kit.run_until_idle()
    for n, ahead in enumerate([0, 10, -10, 600, -600]):
        diary.send(n, p=ahead, nap="1m")
    diary.kit.advance("1h")
    assert diary.order == ["first", 3, 1, 0, 2, 4]


def test_priority_is_seconds_ahead_of_earlier_runs(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"), priority="event.data.p")
    diary.send("first", p=0, nap="10m")
    diary.kit.run_until_idle()
    diary.send("early", p=0)
    diary.kit.advance("30s")
    diary.send("29 seconds", p=29)
    diary.send("31 seconds", p=31)
    diary.kit.advance("1h")
    assert diary.order == ["first", "31 seconds", "early", "29 seconds"]


def test_priority_orders_a_queue_without_any_limit(diary: Diary) -> None:
    diary.work(priority="event.data.p")
    for n in range(5):
        diary.send(n, p=n)
    diary.kit.run_until_idle()
    assert diary.order == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (10**9, "ahead"),
        (601, "ahead"),
        (-(10**9), "behind"),
        (None, "same"),
        ("high", "same"),
        (True, "same"),
        ([1], "same"),
        (0.4, "same"),
        (1e308, "ahead"),
    ],
)
def test_priority_is_capped_and_an_invalid_one_is_ignored(
    diary: Diary, value: Any, place: str
) -> None:
    diary.work(priority=lambda e: e.data["p"])
    diary.send("max", p=600)
    diary.send("zero", p=0)
    diary.send("x", p=value)
    diary.send("min", p=-600)
    diary.kit.run_until_idle()
    expected = {
        "ahead": ["max", "x", "zero", "min"],
        "same": ["max", "zero", "x", "min"],
        "behind": ["max", "zero", "x", "min"],
    }
    assert diary.order == expected[place]


@pytest.mark.parametrize("key", [lambda e: 1 / 0, "event.data.p + 'x'"])
def test_failing_priority_is_ignored_and_the_run_starts(diary: Diary, key: Any) -> None:
    diary.work(priority=key)
    diary.send(1, p=5)
    diary.kit.run_until_idle()
    assert count("completed") == 1


def test_priority_of_a_call_precedes_that_of_the_function(diary: Diary) -> None:
    work = diary.work(priority="event.data.p")
    work.enqueue({"n": "own", "p": 100})
    work.using(priority=200).enqueue({"n": "call", "p": 0})
    diary.kit.run_until_idle()
    assert diary.order == ["call", "own"]


def test_priority_does_not_start_a_delayed_run_early(diary: Diary) -> None:
    work = diary.work(priority=lambda e: 600, concurrency=1)
    work.using(run_after="5m").enqueue({"n": 0})
    diary.kit.advance("1h")
    assert diary.entries == [(0, 300)]


def test_backlogs_are_served_round_robin_whatever_the_priorities(diary: Diary) -> None:
    diary.work(
        concurrency=[
            durable.Concurrency(1, of="runs"),
            durable.Concurrency(5, key="event.data.tenant", of="runs"),
        ],
        priority="event.data.p",
    )
    for n in range(3):
        diary.send(f"a{n}", tenant="a", p=600, nap="1m")
    for n in range(3):
        diary.send(f"b{n}", tenant="b", p=-600, nap="1m")
    diary.kit.advance("1h")
    assert [name[0] for name in diary.order[:4]] in (list("abab"), list("baba"))
    assert [name for name in diary.order if name[0] == "a"] == ["a0", "a1", "a2"]
