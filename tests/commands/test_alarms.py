"""Timers that are due soon: the keeper of a worker sweeps for them at the moment."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from durable_jobs import clock
from durable_jobs.executors import keeper as keepers
from durable_jobs.executors.keeper import FARTHEST_ALARM, Keeper
from durable_jobs.scheduling import timers
from tests.lab.processes import until

pytestmark = pytest.mark.django_db(transaction=True)

SOON = timedelta(seconds=keepers.AHEAD + 0.3)


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """Return the moments at which timers are swept, in place of sweeping them."""
    moments: list[datetime] = []
    monkeypatch.setattr(timers, "sweep", lambda: moments.append(clock.now()))
    return moments


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    clock.now()  # asks the database here, not in the thread
    own = Keeper()
    yield own
    own.stop()


def test_it_gets_ready_before_an_alarm_and_sweeps_when_it_is_due(
    keeper: Keeper, sweeps: list[datetime]
):
    due = clock.now() + SOON
    keeper.alarm(due)
    until(lambda: len(sweeps) == 2, "two sweeps")
    assert sweeps[0] < due <= sweeps[1]


def test_it_is_ready_for_alarms_that_follow(keeper: Keeper, sweeps: list[datetime]):
    due = clock.now() + SOON
    moments = [due + timedelta(milliseconds=50 * number) for number in range(3)]
    for moment in moments:
        keeper.alarm(moment)
    until(lambda: sweeps and sweeps[-1] >= moments[-1], "the last sweep")
    assert [one for one in sweeps if one < due] == sweeps[:1]


def test_far_alarms_are_left_to_the_tick(keeper: Keeper, sweeps: list[datetime]):
    keeper.alarm(clock.now() + FARTHEST_ALARM + timedelta(seconds=1))
    assert keeper._alarms == []
