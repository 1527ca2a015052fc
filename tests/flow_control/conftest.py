"""Functions that record when they run, and checks after every test."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.maintenance import stalled_backlogs
from durable_jobs.models import Run, Slot
from durable_jobs.testing import Kit

EVENT = "flow/work"


class Diary:
    """Records which work began when, and how many ran at the same time."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.began = kit.now()
        self.entries: list[tuple[Any, float]] = []
        self.peak = 0

    def note(self, what: Any) -> None:
        """Record that work ``n`` begins now."""
        passed = self.kit.now() - self.began
        self.entries.append((what, passed / timedelta(seconds=1)))
        running = Run.objects.filter(lease_token__isnull=False).count()
        self.peak = max(self.peak, running)

    @property
    def order(self) -> list[Any]:
        """The recorded numbers, in order."""
        return [what for what, _ in self.entries]

    @property
    def times(self) -> list[float]:
        """The recorded times, in seconds from the beginning."""
        return [when for _, when in self.entries]

    def work(self, id: str = "flow.work", **declared: Any) -> durable.Function:
        """Declare work that notes ``n`` of its event, and sleeps for ``nap``."""
        declared.setdefault("on", durable.Event(EVENT))

        @durable.function(id=id, **declared)
        def work(ctx):
            ctx.step.run("note", self.note, ctx.event.data.get("n"))
            if nap := ctx.event.data.get("nap"):
                ctx.step.sleep("nap", nap)
            ctx.step.run("end", lambda: None)
            return ctx.event.data.get("n")

        return work

    def send(self, n: Any = None, **data: Any) -> None:
        """Send the event of work ``n``."""
        self.kit.send(EVENT, {"n": n, **data})

    def sends(self, count: int, **data: Any) -> None:
        """Send the events of the work from 0 to ``count``."""
        for n in range(count):
            self.send(n, **data)


@pytest.fixture
def diary(db: None, durable_kit: Kit) -> Diary:
    """Return an empty diary."""
    return Diary(durable_kit)


@pytest.fixture(autouse=True)
def no_slot_leaks(db: None, durable_kit: Kit) -> Iterator[None]:
    """Check that only runs that may have a slot have one."""
    yield
    lost = list(stalled_backlogs.lost_slots())
    assert not lost, f"leaked slots: {lost}"
    if not Run.objects.live().exists():
        held = list(Slot.objects.filter(released_at__isnull=True))
        assert not held, f"all runs have ended, but slots are acquired: {held}"


def statuses(**filters: Any) -> list[str]:
    """Return the statuses of runs, in the order of their start."""
    rows = Run.objects.filter(**filters).order_by("pk")
    return list(rows.values_list("status", flat=True))


def reasons(**filters: Any) -> list[str]:
    """Return the reasons of runs, in the order of their start."""
    rows = Run.objects.filter(**filters).order_by("pk")
    return list(rows.values_list("reason", flat=True))


def count(status: str, **filters: Any) -> int:
    """Count runs of a status."""
    return Run.objects.filter(status=status, **filters).count()
