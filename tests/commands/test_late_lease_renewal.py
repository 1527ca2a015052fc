"""The executing thread renews a lease whose renewal is late."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durable_jobs import clock, durable
from durable_jobs.conf import settings
from durable_jobs.models import Run
from durable_jobs.store import leases as lease_store
from durable_jobs.worker.background import BackgroundThread

pytestmark = pytest.mark.django_db


class Stuck(BackgroundThread):
    """A background thread that never runs."""

    def _wake_by(self, at: float) -> None:
        """Start no thread."""


@pytest.fixture
def later(monkeypatch):
    """Return a function that advances this process's own clock."""
    real = clock.monotonic

    def running_ahead(part):
        ahead = settings.LEASE_DURATION.total_seconds() * part
        monkeypatch.setattr(clock, "monotonic", lambda: real() + ahead)

    return running_ahead


@pytest.fixture
def claimed(durable_kit):
    """Return a run that this process has claimed."""

    @durable.function(id="t.claimed")
    def function(ctx):
        return None

    function.enqueue()
    (run,) = lease_store.claim("default", 1, "me")
    return run


def lease_of(run):
    """Return the expiry of a run's lease."""
    return Run.objects.get(pk=run.pk).lease_until


def test_overdue_lease_is_renewed_by_the_thread_that_asks(durable_kit, claimed, later):
    leases = Stuck().leases
    with leases.renewing(claimed):
        durable_kit.advance(0.7 * settings.LEASE_DURATION, run=False)
        later(0.7)
        assert not leases.lost(claimed.pk)
        assert lease_of(claimed) == durable_kit.now() + settings.LEASE_DURATION
        later(1.2)
        durable_kit.advance(timedelta(seconds=1), run=False)
        assert not leases.lost(claimed.pk), "the renewal counts"


def test_lease_that_another_worker_took_is_lost(durable_kit, claimed, later):
    leases = Stuck().leases
    with leases.renewing(claimed):
        Run.objects.update(status="queued", lease_token=None, lease_until=None)
        later(0.7)
        assert leases.lost(claimed.pk)
