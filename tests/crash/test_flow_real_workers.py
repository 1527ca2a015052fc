"""Limits with real workers that are killed: never exceeded, and no slot is lost.

Concurrency is counted from rows that the steps write, with the database's times. A body
that was killed has no end and counts as a moment.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise

import pytest
from django.db import transaction

from durable_jobs import durable
from durable_jobs.maintenance import stalled_backlogs
from durable_jobs.models import Run, Slot
from tests.lab import limited as functions
from tests.lab.durable import five_steps
from tests.lab.models import Effect, Spell
from tests.lab.processes import ROOT, Lab, Process, until
from tests.lab.threads import together

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(240),
]

FOUR = ("-P", "prefork", "-c", "4")


def most_together(spans: Iterable[tuple[datetime, datetime]]) -> int:
    """Return the greatest number of spans that overlap at one moment."""
    changes = [change for b, e in spans for change in ((b, 1), (e, -1))]
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def most_at_once(**of: object) -> int:
    """Return the greatest number of spells that overlap."""
    spans = Spell.objects.filter(**of).values_list("began", "ended")
    return most_together((began, ended) for began, ended in spans if ended is not None)


def runs_at_once(**of: object) -> int:
    """Return the greatest number of runs between their first and last spell."""
    spans: dict[str, list[datetime]] = {}
    for spell in Spell.objects.filter(**of):
        spans.setdefault(spell.run, []).append(spell.began)
        if spell.ended is not None:
            spans[spell.run].append(spell.ended)
    return most_together((min(times), max(times)) for times in spans.values())


def all_ended(**of: object) -> bool:
    """Return whether there are runs and all of them have ended."""
    return not Run.objects.filter(**of).live().exists()


def no_slot_is_held() -> bool:
    """Return whether every slot was released."""
    return not Slot.objects.filter(released_at__isnull=True).exists()


def eight_processes(lab: Lab) -> list[Process]:
    """Start two workers of four processes each, and beat."""
    workers = [lab.worker(*FOUR) for _ in range(2)]
    lab.beat()
    return workers


def kill_and_replace(lab: Lab, victim: Process) -> Process:
    """Kill a worker with all its processes, and start another."""
    victim.kill()
    return lab.worker(*FOUR)


def seen(count: int) -> bool:
    """Return whether at least ``count`` spells have begun."""
    return Spell.objects.count() >= count


@pytest.mark.parametrize("of", ["steps", "runs"])
def test_hot_key_is_never_over_its_limit_while_workers_are_killed(
    lab: Lab, of: str
) -> None:
    work = functions.hot_steps if of == "steps" else functions.hot_runs
    with transaction.atomic():
        for number in range(40):
            key = "hot" if number % 5 else f"cold {number}"
            work.enqueue({"key": key, "n": number})
    workers = eight_processes(lab)
    for number in range(2):
        until(lambda n=number: seen(15 * (n + 1)), "some spells", lab)
        workers[number] = kill_and_replace(lab, workers[number])
    until(all_ended, "all runs to end", lab)
    until(no_slot_is_held, "all slots to come back", lab)
    assert Run.objects.filter(status="completed").count() == 40
    assert not stalled_backlogs.lost_slots().exists()
    if of == "steps":
        assert most_at_once(key="hot") <= 3
    else:
        assert runs_at_once(key="hot") <= 2
        assert runs_at_once() <= 5


def test_hot_key_is_used_to_its_limit(lab: Lab) -> None:
    with transaction.atomic():
        for _ in range(40):
            functions.hot_steps.enqueue({"key": "hot", "seconds": 0.2, "steps": 1})
    eight_processes(lab)
    until(all_ended, "all runs to end", lab)
    assert most_at_once(key="hot") == 3


def test_ordering_is_strict_across_kills(lab: Lab) -> None:
    with transaction.atomic():
        for n in range(60):
            functions.ordered.enqueue({"key": f"k{n % 3}", "n": n, "steps": 1})
    workers = eight_processes(lab)
    for number in range(2):
        until(lambda n=number: seen(15 * (n + 1)), "some spells", lab)
        workers[number] = kill_and_replace(lab, workers[number])
    until(all_ended, "all runs to end", lab)
    until(no_slot_is_held, "all slots to come back", lab)
    assert Run.objects.filter(status="completed").count() == 60
    for key in range(3):
        assert most_at_once(key=f"k{key}") == 1
        rows = Effect.objects.order_by("pk").values_list("label", flat=True)
        order = [int(n) for n in rows if int(n) % 3 == key]
        # A killed step repeats before the next step starts.
        assert all(one <= two for one, two in pairwise(order)), order


SEND = """
import sys
import django
django.setup()
from durable_jobs import durable
for _ in range(int(sys.argv[2])):
    durable.send(sys.argv[1], {"key": "k", "steps": 1, "seconds": 0.05})
"""


def send_from_eight(lab: Lab, name: str, each: int) -> None:
    """Send events from four threads and four processes at the same time."""

    def send() -> None:
        for _ in range(each):
            durable.send(name, {"key": "k", "steps": 1, "seconds": 0.05})

    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SEND, name, str(each)],
            env=lab.environment,
            cwd=ROOT,
        )
        for _ in range(4)
    ]
    together(*[send] * 4)
    assert [process.wait(60) for process in processes] == [0] * 4


def test_rate_limit_is_exact_under_eight_senders(lab: Lab) -> None:
    eight_processes(lab)
    send_from_eight(lab, "lab/limited", 5)
    until(lambda: all_ended(function="lab.limited"), "all runs to end", lab)
    rows = Run.objects.filter(function="lab.limited")
    assert rows.filter(status="completed").count() == 10
    assert rows.filter(status="skipped").count() == 30
    assert Effect.objects.filter(label="in").count() == 10


def test_singleton_has_one_live_run_with_eight_senders(lab: Lab) -> None:
    eight_processes(lab)
    send_from_eight(lab, "lab/single", 3)
    until(all_ended, "all runs to end", lab)
    until(no_slot_is_held, "all slots to come back", lab)
    by_mode = {
        mode: Run.objects.filter(function=f"lab.single_{mode}")
        for mode in ("skip", "cancel", "queue")
    }
    assert {rows.count() for rows in by_mode.values()} == {24}
    assert by_mode["queue"].filter(status="completed").count() == 24
    done = by_mode["skip"].filter(status="completed").count()
    assert done >= 1
    assert by_mode["skip"].filter(status="skipped").count() == 24 - done
    done = by_mode["cancel"].filter(status="completed").count()
    assert done >= 1
    assert by_mode["cancel"].filter(status="cancelled").count() == 24 - done
    for mode in ("skip", "queue"):
        ids = [str(pk) for pk in by_mode[mode].values_list("pk", flat=True)]
        assert most_at_once(run__in=ids) == 1


def test_paused_function_starts_nothing(lab: Lab) -> None:
    functions.hot_steps.pause()
    five_steps.pause()
    eight_processes(lab)
    with transaction.atomic():
        for _ in range(10):
            functions.hot_steps.enqueue({"key": "k"})
            five_steps.enqueue()
    other = functions.ordered.enqueue({"key": "k", "n": 1})
    until(lambda: all_ended(pk=other.pk), "another function's run", lab)
    assert not Run.objects.exclude(pk=other.pk).exclude(status="queued").exists()
    functions.hot_steps.resume()
    five_steps.resume()
    until(all_ended, "all runs to end", lab)
    assert Run.objects.filter(status="completed").count() == 21


@pytest.mark.parametrize("point", ["claim.committed", "claim.returned"])
def test_new_limit_applies_to_earlier_runs_though_a_worker_dies(
    lab: Lab, point: str
) -> None:
    """The limit is deployed with the workers; this process has the old code."""
    with transaction.atomic():
        for n in range(24):
            functions.limited_since.enqueue({"key": "hot" if n % 4 else "cold"})
    assert not Run.objects.filter(flow__isnull=False).exists()
    dying = lab.worker(
        "-P",
        "solo",
        LAB_RELEASE="2",
        DURABLE_JOBS_FAILPOINTS=f"{point}=kill",
    )
    until(lambda: not dying.alive, "a worker to die", lab)
    lined_up = Run.objects.filter(flow__isnull=False).exists()
    assert lined_up == (point == "claim.returned")
    for _ in range(2):
        lab.worker(*FOUR, LAB_RELEASE="2")
    lab.beat(LAB_RELEASE="2")
    until(all_ended, "all runs to end", lab)
    until(no_slot_is_held, "all slots to come back", lab)
    assert Run.objects.filter(status="completed", flow__isnull=False).count() == 24
    assert runs_at_once(key="hot") <= 2
    assert runs_at_once(key="cold") <= 2
