"""Several real beats, with workers killed meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durable_jobs import clock, durable
from durable_jobs.models import Event, Run, Schedule
from tests.lab import durable as functions
from tests.lab.processes import Lab, until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(180),
]

MANY = 60
MINUTES = 3


def test_each_slot_fires_once_with_two_beats_and_a_worker_that_dies(lab: Lab) -> None:
    """Each occurrence has exactly one run, whichever process fires it or dies."""
    for _ in range(MANY):
        durable.schedules.create(functions.five_steps, "* * * * *", catch_up="all")
    first = clock.now().replace(second=0, microsecond=0) - timedelta(minutes=MINUTES)
    Schedule.objects.filter(declared=False).update(next_occurrence=first, due_at=first)
    lab.beat()
    lab.beat()
    doomed = lab.worker()
    until(lambda: Run.objects.count() > 10, "the first runs", lab)
    doomed.kill()
    lab.worker()

    def fired() -> bool:
        late = Schedule.objects.filter(declared=False, next_occurrence__lte=clock.now())
        return not late.exists()

    until(fired, "all slots to be fired", lab)
    lab.close()
    upcoming = min(Schedule.objects.values_list("next_occurrence", flat=True))
    runs = Run.objects.filter(trigger="durable/cron", event__ts__lt=upcoming)
    slots = [(run.data["schedule"], run.data["scheduled_at"]) for run in runs]
    passed = (upcoming - first) // timedelta(minutes=1)
    assert len(slots) == len(set(slots)) == MANY * passed
    assert Event.objects.filter(source="cron").count() == Run.objects.count()
