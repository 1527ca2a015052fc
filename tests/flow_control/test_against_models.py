"""Random streams of events, in virtual time, against a small model of each control.

``FLOW_EXAMPLES`` is the number of streams of a test, 2 by default. The seed of each
failing stream is printed.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from durable_jobs import durable
from durable_jobs.maintenance import stalled_backlogs
from durable_jobs.models import RateLimitHit, Run, Slot
from durable_jobs.testing import Kit
from tests.flow_control import models
from tests.flow_control.models import Sent

pytestmark = pytest.mark.django_db

EXAMPLES = int(os.environ.get("FLOW_EXAMPLES", "2"))
EVENT = "model/work"
MS = timedelta(milliseconds=1)
KEYS = ["a", "b", None]
PERIODS = st.sampled_from([1, 700, 1000, 5000, 9000])

random_streams = settings(
    max_examples=EXAMPLES,
    # A failure is repeated by its seed; shrinking would take minutes.
    phases=[Phase.explicit, Phase.generate],
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Lab:
    """A kit, the work in it, and the start and end of each run."""

    def __init__(self, kit: Kit) -> None:
        self.kit, self.began = kit, kit.now()
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.groups: list[tuple[int, Any, list[int]]] = []
        self.steps: Counter[Any] = Counter()

    def ms(self, moment: datetime | None = None) -> int:
        """Return a time in milliseconds from the beginning."""
        return round(((moment or self.kit.now()) - self.began) / MS)

    def declare(self, **declared: Any) -> durable.Function:
        """Declare work that records its start, sleeps for its length, and ends."""

        @durable.function(id="model.work", on=durable.Event(EVENT), **declared)
        def work(ctx):
            data = ctx.event.data
            ctx.step.run("start", self._start, data["n"])
            events = [event.data["n"] for event in ctx.events]
            ctx.step.run("group", self._group, data["key"], events)
            if data["length"]:
                ctx.step.sleep("rest", data["length"] / 1000)
            ctx.step.run("end", self._end, data["n"])

        return work

    def _start(self, n: int) -> None:
        self.starts[n] = self.ms()

    def _group(self, key: Any, events: list[int]) -> None:
        self.groups.append((self.ms(), key, events))

    def _end(self, n: int) -> None:
        self.ends[n] = self.ms()

    def play(self, sent: Sequence[Sent]) -> None:
        """Send a stream at its times, and let all runs end."""
        for one in sent:
            if one.at > self.ms():  # events of one moment are sent together
                self.kit.travel_to(self.began + one.at * MS)
            data = {"n": one.n, "key": one.key, "length": one.length, "p": one.ahead}
            self.kit.send(EVENT, data, ts=self.began + one.ts * MS)
        self.kit.advance("3h")
        assert not Run.objects.live().exists(), "all runs end"
        assert not stalled_backlogs.lost_slots().exists()
        assert not Slot.objects.filter(released_at__isnull=True).exists()


@contextmanager
def lab() -> Iterator[Lab]:
    """Yield a lab on an empty database."""
    with transaction.atomic(), Kit() as kit:
        yield Lab(kit)
        transaction.set_rollback(True)


@st.composite
def streams(draw: Any, longest: int = 0, gap: int = 4000) -> list[Sent]:
    """Draw a stream; the same seed makes the same one."""
    seed = draw(st.integers(0, 2**32))
    note(f"seed {seed}")
    print(f"seed {seed}")
    chosen = random.Random(seed)  # noqa: S311  # not for secrets
    now, found = 0, []
    for n in range(chosen.randint(2, 14)):
        now += chosen.choice([0, 0, 1, chosen.randint(0, gap), gap])
        found.append(
            Sent(
                n,
                now,
                chosen.choice(KEYS),
                now - chosen.choice([0, 0, chosen.randint(0, 10_000)]),
                chosen.choice([0, 0, chosen.randint(-5, 5)]),
                chosen.choice([0, chosen.randint(1, longest)]) if longest else 0,
            )
        )
    return found


@random_streams
@given(streams(), st.integers(1, 7), PERIODS, st.integers(1, 4))
def test_throttle(sent: list[Sent], limit: int, per: int, burst: int) -> None:
    with lab() as it:
        rule = durable.Throttle(limit, per / 1000, key="event.data.key", burst=burst)
        it.declare(throttle=rule)
        it.play(sent)
        expected = models.throttled(sent, limit, per, burst)
        assert it.starts.keys() == expected.keys()
        for n, at in expected.items():
            # The model counts in whole milliseconds, and rounds each up.
            assert abs(it.starts[n] - at) <= 1 + len(sent), (it.starts, expected)


@random_streams
@given(streams(), st.integers(1, 4), PERIODS)
def test_rate_limit(sent: list[Sent], limit: int, per: int) -> None:
    with lab() as it:
        rule = durable.RateLimit(limit, per / 1000, key="event.data.key")
        it.declare(rate_limit=rule)
        it.play(sent)
        assert set(it.starts) == models.in_windows(sent, limit, per)
        skipped = Run.objects.filter(status="skipped").count()
        assert skipped + len(it.starts) == len(sent)


@random_streams
@given(streams(), st.integers(1, 3), st.integers(500, 6000), st.randoms())
def test_rate_limit_is_never_exceeded_while_workers_run_seldom(
    sent: list[Sent], limit: int, per: int, chosen: random.Random
) -> None:
    with lab() as it:
        work = it.declare(rate_limit=durable.RateLimit(limit, per / 1000))
        for one in sent:
            it.kit.travel_to(it.began + one.at * MS, run=False)
            data = {"n": one.n, "key": None, "length": 0}
            work.using(priority=chosen.randint(-600, 600)).enqueue(data)
            if chosen.random() < 0.3:
                it.kit.run_until_idle()
        it.kit.run_until_idle()
        rows = RateLimitHit.objects.order_by("at").values_list("at", flat=True)
        times = [it.ms(at) for at in rows]
        for first, last in zip(times, times[limit:], strict=False):
            assert last - first >= per, times
        assert times, "the first start is accepted"


@random_streams
@given(streams(), st.integers(500, 5000), st.one_of(st.none(), st.integers(0, 5000)))
def test_debounce(sent: list[Sent], period: int, more: int | None) -> None:
    timeout = None if more is None else period + more
    with lab() as it:
        it.declare(
            debounce=durable.Debounce(
                period / 1000,
                key="event.data.key",
                timeout=None if timeout is None else timeout / 1000,
            )
        )
        it.play(sent)
        expected = models.debounced(sent, period, timeout)
        found = sorted((at, events[0]) for at, _, events in it.groups)
        assert found == sorted((at, events[0]) for at, _, events in expected)


@random_streams
@given(streams(), st.integers(500, 5000))
def test_debounce_that_collects_loses_no_event(sent: list[Sent], period: int) -> None:
    with lab() as it:
        rule = durable.Debounce(period / 1000, key="event.data.key", collect=True)
        it.declare(debounce=rule)
        it.play(sent)
        expected = models.debounced(sent, period, None)
        found = sorted((at, sorted(events)) for at, _, events in it.groups)
        assert found == sorted((at, sorted(events)) for at, _, events in expected)


@random_streams
@given(streams(), st.integers(1, 4), st.integers(1, 6000))
def test_batch(sent: list[Sent], size: int, timeout: int) -> None:
    with lab() as it:
        it.declare(batch=durable.Batch(size, timeout / 1000, key="event.data.key"))
        it.play(sent)
        found = sorted((at, events) for at, _, events in it.groups)
        expected = models.batched(sent, size, timeout)
        assert found == sorted((at, events) for at, _, events in expected)


@random_streams
@given(streams(longest=6000), st.sampled_from(["skip", "cancel"]))
def test_singleton(sent: list[Sent], mode: Any) -> None:
    with lab() as it:
        it.declare(singleton=durable.Singleton(key="event.data.key", mode=mode))
        it.play(sent)
        rows = Run.objects.values_list("data__n", "status")
        assert dict(rows) == models.singles(sent, mode)


@random_streams
@given(streams(longest=6000), st.booleans())
def test_singles_run_one_at_a_time_in_order(sent: list[Sent], ordering: bool) -> None:
    key = "event.data.key"
    queue = durable.Singleton(key=key, mode="queue")
    with lab() as it:
        it.declare(**({"ordering": key} if ordering else {"singleton": queue}))
        it.play(sent)
        assert it.starts == models.one_at_a_time(sent)


@random_streams
@given(streams(longest=6000), st.integers(1, 4))
def test_backlog_obeys_concurrency_and_priority(sent: list[Sent], limit: int) -> None:
    with lab() as it:
        rule = durable.Concurrency(limit, of="runs")
        it.declare(concurrency=rule, priority="event.data.p")
        it.play(sent)
        assert it.starts == models.places(sent, limit)


@random_streams
@given(streams(longest=6000), st.integers(1, 3))
def test_sleeping_runs_delay_no_other_run(sent: list[Sent], limit: int) -> None:
    with lab() as it:
        it.declare(concurrency=durable.Concurrency(limit, key="event.data.key"))
        it.play(sent)
        assert it.starts == {one.n: one.at for one in sent}


def over(it: Lab, sent: Sequence[Sent], limit: int, of: Any) -> None:
    """Check that at most ``limit`` runs were between start and end at any time."""
    by_key: dict[Any, list[tuple[int, int]]] = {}
    for one in sent:
        if one.n in it.starts:
            span = (it.starts[one.n], it.ends.get(one.n, it.starts[one.n]))
            by_key.setdefault(of(one), []).append(span)
    for spans in by_key.values():
        for at, _ in spans:
            beside = sum(begin <= at < end for begin, end in spans)
            assert beside <= limit, spans


@random_streams
@given(
    streams(longest=8000),
    st.integers(1, 3),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "ordering", "queue"]),
)
def test_combinations_obey_every_limit_and_waste_no_slot(
    sent: list[Sent],
    narrow: int,
    wide: int,
    throttle: bool,
    crash: bool,
    line: str | None,
) -> None:
    key = "event.data.key"
    declared: dict[str, Any] = {
        "concurrency": [
            durable.Concurrency(narrow, key=key, of="runs"),
            durable.Concurrency(wide, of="runs"),
        ]
    }
    if throttle:
        declared["throttle"] = durable.Throttle(2, "3s", key=key, burst=2)
    if line == "ordering":
        declared["ordering"] = "event.data.n % 2"
    if line == "queue":
        declared["singleton"] = durable.Singleton(key="event.data.n % 2", mode="queue")
    with lab() as it:
        it.declare(**declared)
        if crash:
            it.kit.crash_at("group", "after")
        it.play(sent)
        over(it, sent, narrow, lambda one: one.key)
        over(it, sent, wide, lambda one: None)
        assert len(it.ends) == len(sent)
        if line is not None:
            over(it, sent, 1, lambda one: one.n % 2)
        for parity in (0, 1) if line == "ordering" else ():
            mine = [one.n for one in sent if one.n % 2 == parity]
            assert sorted(mine, key=lambda n: it.starts[n]) == mine or len(
                {it.starts[n] for n in mine}
            ) < len(mine)
        if not throttle and not crash and line is None:
            no_room_is_wasted(it, sent, narrow, wide)


def no_room_is_wasted(it: Lab, sent: Sequence[Sent], narrow: int, wide: int) -> None:
    """Check that each waiting run had to wait: a limit was full until it started."""
    for one in sent:
        started = it.starts[one.n]
        for at in {one.at, *(it.ends[n] for n in it.ends)}:
            if not one.at <= at < started:
                continue
            live = [
                two
                for two in sent
                if two.n != one.n and it.starts[two.n] <= at < it.ends[two.n]
            ]
            same = sum(two.key == one.key for two in live)
            assert same >= narrow or len(live) >= wide, (one, at, it.starts, it.ends)


def test_models_themselves_are_not_empty() -> None:
    sent = [Sent(n, n * 100) for n in range(5)]
    assert models.throttled(sent, 1, 1000, 2) == {
        0: 0, 1: 100, 2: 1000, 3: 2000, 4: 3000
    }  # fmt: skip
    assert models.in_windows(sent, 2, 250) == {0, 1, 3, 4}
    batches = models.batched(sent, 2, 150)
    assert [(when, events) for when, _, events in batches] == [
        (100, [0, 1]), (300, [2, 3]), (550, [4])
    ]  # fmt: skip
    assert [run[0] for run in models.debounced(sent, 150, 300)] == [300, 550]
