"""Repeated queries are compiled once, and evaluated with current values."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import Exists

from durable_jobs import clock
from durable_jobs.models import Worker
from durable_jobs.store import db, exists_probe
from durable_jobs.store.exists_probe import Probe

pytestmark = pytest.mark.django_db


@pytest.fixture
def made() -> list[tuple[str, ...]]:
    """Return which queries were compiled."""
    return []


@pytest.fixture
def probe(made: list[tuple[str, ...]]) -> Probe:
    """Ask whether a worker was seen before one time, and after another."""

    def make(before, after, names):
        made.append(names)
        rows = Worker.objects.using(db.alias()).filter(name__in=names)
        return {
            "before": Exists(rows.filter(seen_at__lt=before)),
            "after": Exists(rows.filter(seen_at__gt=after)),
            "nobody": Exists(rows.none()),
        }

    return Probe(make)


def test_probes_are_evaluated_with_the_given_times(probe: Probe, made):
    now, hour = clock.now(), timedelta(hours=1)
    Worker.objects.create(name="ann", seen_at=now, started_at=now)
    for past, ahead in ((now - hour, now + hour), (now + hour, now - hour)):
        found = probe.evaluate([past, ahead], ("ann",))
        assert found == {
            "before": past > now,
            "after": ahead < now,
            "nobody": False,
        }
    assert made == [("ann",)], "once"


def test_changed_dependencies_compile_a_probe_anew(probe: Probe, made):
    now = clock.now()
    Worker.objects.create(name="ann", seen_at=now, started_at=now)
    later = now + timedelta(hours=1)
    assert probe.evaluate([later, later], ("ann",))["before"]
    assert not probe.evaluate([later, later], ("bob",))["before"]
    assert not probe.evaluate([later, later], ())["before"]
    assert probe.evaluate([later, later], ("ann",))["before"]
    assert made == [("ann",), ("bob",), ()]


def test_cache_of_probes_is_bounded(probe: Probe, made):
    now = clock.now()
    for number in range(3 * exists_probe.MAX_COMPILED):
        probe.evaluate([now, now], (str(number),))
    assert len(probe._compiled) <= exists_probe.MAX_COMPILED


def test_walk_yields_existing_values_with_one_statement_each(
    django_assert_num_queries,
):
    """Workers by their kind, of which one has no recent heartbeat."""
    now, hour = clock.now(), timedelta(hours=1)
    for name, kind, seen in [
        ("ann", "a", now),
        ("bob", "a", now),
        ("eve", "b", now - hour),
        ("dan", "c", now),
    ]:
        Worker.objects.create(name=name, kind=kind, seen_at=seen, started_at=seen)

    def make(since, kind):
        rows = Worker.objects.using(db.alias())
        others = rows.filter(kind__gt=kind).order_by("kind")
        return {
            "here": Exists(rows.filter(kind=kind, seen_at__gte=since)),
            "next": others.values_list("kind", flat=True)[:1],
        }

    probe = Probe(make)
    for since, kinds in ((now, ["a", "c"]), (now - hour, ["a", "b", "c"])):
        with django_assert_num_queries(1 + 3):
            assert list(exists_probe.walk(probe, [since])) == kinds
